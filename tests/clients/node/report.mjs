// Every client in this folder prints what it receives, one line of JSON per event, and runs until it is killed:
// `node client.mjs URL`. TYPES lists event types other than `message` to subscribe to.

export const url = process.argv[2];
export const TYPES = ['message', 'note', 'tidings'];

export function report({ type, id, data }) {
  process.stdout.write(`${JSON.stringify({ type, id, data })}\n`);
}

export function opened() {
  process.stdout.write(`${JSON.stringify({ open: true })}\n`);
}

/** For clients with the interface of EventSource. */
export function listen(source) {
  source.addEventListener('open', opened);
  for (const type of TYPES) {
    source.addEventListener(type, (event) => report({ type: event.type, id: event.lastEventId, data: event.data }));
  }
}

// Some clients let the process exit while they wait to reconnect; a server that uses them would keep running.
const A_DAY_MS = 86_400_000;
setInterval(() => {}, A_DAY_MS);
