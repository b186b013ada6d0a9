// Which tab holds the connection: the one that has the lock. It passes everything on through a channel of this origin, and the browser
// gives the lock to the next tab when it is closed, crashes, or leaves.

import { live } from './live.js';
import type { PassedStep } from './message.js';
import type { Requests } from './source.js';
import type { Tab } from './tab.js';
import type { Settings, Status } from './types.js';

/** What tabs send each other. */
interface Message {
  /** From the tab that holds the connection. */
  step?: PassedStep;
  status?: Status;
  /** What do you want? What was missed will be passed on of these topics and patterns only. */
  ask?: string[];
  /** From the others. */
  want?: string[];
  wake?: true;
}

export interface Connection {
  /** Connects, or waits for its turn to. */
  enter(): void;
  /** Leaves the connection to others; `enter` continues where this tab was. */
  leave(): void;
  /** To be called when something is wanted that the stream does not have. */
  want(): void;
  /** To be called when the network may be back. */
  wake(): void;
}

/** A connection that tabs share that know it by the same name; without a name it belongs to this one alone. */
export function connection(
  tab: Tab,
  requests: Requests,
  settings: Settings,
  onStatus: (status: Status) => void,
  name: string | false | undefined,
): Connection {
  let channel: BroadcastChannel | undefined;
  let entered: AbortController | undefined;
  let isLeading = false;
  let status: Status = 'connecting';

  const own = (): string[] => [...tab.subscriptions].map(({ key }) => key);
  const send = (message: Message): void => channel?.postMessage(message);
  const stream = live(requests, tab, settings, {
    ask() {
      send({ ask: [...tab.covered()] });
      stream.want(own());
    },
    pass(step) {
      const passed = { ...step, from: tab.position() };
      send({ step: passed });
      tab.receive(passed);
    },
    setStatus(next) {
      onStatus((status = next));
      send({ status });
    },
  });

  function take({ step, status: said, ask, want: wanted, wake }: Message): void {
    if (!isLeading) {
      if (said) onStatus((status = said));
      if (step) tab.receive(step);
      if (!ask) return;
      tab.cover(ask);
      want();
      return;
    }
    if (wake) stream.wake();
    if (!wanted) return;
    const id = tab.position();
    // A new tab has to know where the stream is.
    send({ status, ...(id !== undefined && { step: { from: id, id, covers: [...tab.covered()] } }) });
    stream.want(wanted);
  }

  function want(): void {
    if (isLeading) stream.want(own());
    else send({ want: own() });
  }

  function lead(): void {
    isLeading = true;
    stream.start();
  }

  return {
    enter() {
      if (entered) return;
      const { signal } = (entered = new AbortController());
      if (!name) return lead();
      channel = new BroadcastChannel(name);
      channel.onmessage = ({ data }) => take(data);
      want();
      const hold = () =>
        new Promise<unknown>((release) => {
          // It may have left while the lock was on its way.
          if (signal.aborted) return release(null);
          signal.onabort = release;
          lead();
        });
      // Rejects if this tab leaves before its turn.
      navigator.locks.request(name, { signal }, hold).catch(() => {});
    },
    leave() {
      if (!entered) return;
      entered.abort();
      entered = undefined;
      isLeading = false;
      stream.stop();
      channel?.close();
      channel = undefined;
      tab.suspend();
    },
    want,
    wake() {
      if (isLeading) stream.wake();
      else send({ wake: true });
    },
  };
}
