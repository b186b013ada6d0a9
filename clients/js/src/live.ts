// The one connection: a stream of everything that is wanted, opened again whenever it ends, and continued where it was.
//
// A stream begins now; its `hello` says at which position that is. What was missed since the last position is read separately up to
// there, and passed on first. So it is known which events are replayed, and a topic that joins receives nothing from before it did.

import { backoff } from './backoff.js';
import { readHistory } from './history.js';
import { steps, type Step } from './message.js';
import type { Refusal, Requests } from './source.js';
import type { Tab } from './tab.js';
import type { Settings, Status } from './types.js';

/** A connection that has not answered for this long is given up. */
const SILENT_MILLIS_MAX = 45_000;
const WATCH_MILLIS = 500;
/** How long tabs may take to say what they want before the stream is opened. */
const JOINING_MILLIS = 20;

/** Where what is received goes. */
export interface Output {
  /** Asks all tabs what they want; they answer with `want`. */
  ask(): void;
  pass(step: Step): void;
  setStatus(status: Status): void;
}

export interface Live {
  /** Opens the stream, or opens it anew. */
  start(): void;
  /** Opens it anew if it has not all of these topics and patterns. */
  want(keys: Iterable<string>): void;
  /** Opens it at once if it waits for its next attempt, or was silent for too long: the computer was asleep, or offline. */
  wake(): void;
  stop(): void;
}

export function live(requests: Requests, tab: Tab, { ticket, token, onError }: Settings, output: Output): Live {
  let attempt: AbortController | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let watch: ReturnType<typeof setInterval> | undefined;
  let wanted = new Set<string>();
  let failures = 0;
  let lastByteAt = 0;
  let silentMillisMax = 0;
  /** The hub refuses to read up to a position. Then the stream itself resumes, and it is unknown where its history ends. */
  let resumes = false;

  function stop(): void {
    attempt?.abort();
    clearTimeout(timer);
    clearInterval(watch);
    attempt = timer = watch = undefined;
  }

  function start(): void {
    stop();
    wanted = new Set();
    timer = setTimeout(open, JOINING_MILLIS);
    output.ask();
  }

  function open(): void {
    stop();
    const current = (attempt = new AbortController());
    const { signal } = current;
    const keys = [...wanted];
    if (!keys.length) return;
    let error: (Error & Partial<Refusal>) | undefined;
    let base: number | undefined;
    let catchingUp: Promise<void> | undefined;
    /** What arrives while missed events are still read. */
    let queue: Step[] | undefined = [];

    const fail = (cause: Error): void => {
      error ??= cause;
      current.abort();
    };

    async function catchUp(until: string): Promise<void> {
      const [position, covered] = [tab.position(), tab.covered()];
      if (position && covered.size && !resumes) {
        output.setStatus('replaying');
        await readHistory(requests, covered, `id:${position}`, until, output.pass, signal).catch((refusal: Refusal) => {
          resumes = refusal.status === 400;
          if (resumes) start();
          throw refusal;
        });
      }
      output.pass({ id: (resumes && position) || until, covers: keys });
      output.setStatus('connected');
      failures = 0;
      resumes = false;
      queue!.forEach(output.pass);
      queue = undefined;
    }

    function take(step: Step): void {
      const { notice } = step;
      if (notice?.kind === 'hello') {
        silentMillisMax = 2000 * notice.heartbeat_secs! || Infinity;
        catchingUp ??= catchUp(step.id).catch(fail);
        return;
      }
      const kind = notice?.kind;
      if (kind === 'expiring' && (ticket || token)) requests.renew().then(() => current === attempt && start(), onError);
      if (kind === 'expired' || kind === 'revoked') {
        requests.forget();
        // Otherwise even a new credential is refused.
        if (catchingUp) return start();
      }
      if (queue) queue.push(step);
      else output.pass(step);
    }

    function ended(): void {
      if (current !== attempt) return;
      stop();
      const isUnauthorized = error?.status === 401 || error?.status === 403;
      if (isUnauthorized) requests.forget();
      // A network error is a TypeError, and no news.
      if (error && !failures && !(error instanceof TypeError)) onError(error);
      output.setStatus(isUnauthorized ? 'unauthorized' : error ? 'offline' : 'connecting');
      const delay = !failures && isUnauthorized ? 0 : Math.max(backoff(failures, base), 1000 * (error?.retryAfterSecs ?? 0));
      failures += 1;
      timer = setTimeout(start, delay);
    }

    const reading = {
      keys,
      query: { since: resumes && tab.position() ? `id:${tab.position()}` : 'now', hello: 'true' },
      lastId: tab.position(),
      onBlock: steps(take),
      onRetry: (millis: number) => (base = millis),
      onBytes: () => (lastByteAt = Date.now()),
    };
    reading.onBytes();
    silentMillisMax = SILENT_MILLIS_MAX;
    watch = setInterval(giveUpSilent, WATCH_MILLIS);
    requests.read(reading, signal).catch(fail).then(ended);
  }

  function giveUpSilent(): void {
    if (Date.now() - lastByteAt < silentMillisMax) return;
    output.setStatus('offline');
    start();
  }

  return {
    start,
    want(keys) {
      const missing = [...keys].filter((key) => !wanted.has(key));
      if (timer) missing.forEach(wanted.add, wanted);
      else if (missing.length) start();
    },
    wake() {
      if (timer) start();
      else if (watch) giveUpSilent();
    },
    stop,
  };
}
