// The one connection: a stream of everything that is wanted, opened again whenever it ends, and continued where it was.
//
// A stream begins now; its `hello` says at which position that is. What was missed since the last position is read separately up to
// there, and passed on first. So it is known which events are replayed, and a topic that joins receives nothing from before it did.

import { backoff } from './backoff.js';
import { JOINING_MILLIS, SILENT_MILLIS_MAX, WATCH_MILLIS } from './limits.js';
import type { Report, Step } from './message.js';
import type { Refusal, Requests } from './source.js';
import type { Tab } from './tab.js';
import type { Settings } from './types.js';

export interface Live {
  /** Opens it anew if it has not all of these topics and patterns. */
  want(keys: Iterable<string>): void;
  /** Opens it, unless it is open already and was not silent for too long: the computer was asleep, or offline. */
  wake(): void;
  stop_(): void;
  /** Whether it is open, or being opened. */
  isOpen_(): unknown;
}

/** `tell` passes reports on to all tabs, which answer the question what they want with `want`. */
export function live(requests: Requests, tab: Tab, settings: Settings, tell: (report: Report) => void): Live {
  /** The stream that is open, or being opened; there is none while tabs join, or until the next attempt. */
  let attempt: AbortController | undefined;
  /** Opens the stream, or watches it. */
  let timer: ReturnType<typeof setTimeout> | undefined;
  let wanted: Set<string>;
  let failures = 0;
  let lastByteAt: number;
  let silentMillisMax: number;

  function stop(): void {
    attempt?.abort();
    attempt = undefined;
    clearTimeout(timer);
    lastByteAt = Infinity;
  }

  function start(): void {
    stop();
    wanted = new Set();
    timer = setTimeout(open, JOINING_MILLIS);
    tell({ covers: tab.covered_(), ask: true });
  }

  function pass(step: Step): void {
    tell({ step });
  }

  function open(): void {
    const { signal } = (attempt = new AbortController());
    const keys = wanted;
    if (!keys.size) return;
    let base: number | undefined;
    /** Resolves when what was missed has been read. */
    let caughtUp: Promise<void> | undefined;

    async function catchUp(id: string): Promise<void> {
      const covered = tab.covered_();
      if (covered.size) {
        tell({ status: 'replaying' });
        await requests.read({ keys: covered, since: `id:${tab.position_()}`, until: id, take: pass, signal });
      }
      tell({ step: { id }, covers: keys, status: 'connected' });
      failures = 0;
    }

    function take(step: Step): void {
      if (step.kind === 'hello') {
        silentMillisMax = 2000 * step.heartbeat_secs! || Infinity;
        caughtUp = catchUp(step.id).catch(ended);
        return;
      }
      // `expiring`, `expired` or `revoked`: the last two also end the stream.
      if (/exp|rev/.test(step.kind!)) requests.renew?.().then(() => signal.aborted || start(), settings.onError);
      caughtUp?.then(() => signal.aborted || pass(step));
    }

    function ended(error: (Error & Partial<Refusal>) | void): void {
      // Reading what was missed may fail as well, or this attempt has been replaced.
      if (signal.aborted) return;
      stop();
      const isRefused = [401, 403].includes(error?.status!);
      // A network error is a TypeError, and no news.
      if (error && !failures && !(error instanceof TypeError)) settings.onError(error);
      tell({ status: isRefused ? 'unauthorized' : error ? 'offline' : 'connecting' });
      timer = setTimeout(start, isRefused && !failures ? 0 : Math.max(backoff(failures, base), 1000 * error?.retryAfterSecs! || 0));
      failures += 1;
    }

    const onBytes = () => (lastByteAt = Date.now());
    onBytes();
    silentMillisMax = SILENT_MILLIS_MAX;
    timer = setInterval(wake, WATCH_MILLIS);
    requests.read({ keys, lastId: tab.position_(), take, onRetry: (millis) => (base = millis), onBytes, signal }).then(ended, ended);
  }

  function wake(): void {
    if (attempt) {
      if (Date.now() - lastByteAt < silentMillisMax) return;
      tell({ status: 'offline' });
    }
    start();
  }

  return {
    want(keys) {
      // Once it is opened anew, all tabs say again what they want.
      for (const key of keys) {
        if (attempt && !wanted.has(key)) start();
        else wanted.add(key);
      }
    },
    wake,
    stop_: stop,
    isOpen_: () => attempt,
  };
}
