// `@tidings/client`: receive events of a hub, or of any server that sends them.

import { hubSource } from './hub-source.js';
import { connection } from './sharing.js';
import { subscription, type Handlers } from './subscription.js';
import { tab as createTab } from './tab.js';
import type { Hub, Matcher, Options, Settings, Status } from './types.js';

export type { Reading, Refusal, Requests, Source } from './source.js';
export type * from './types.js';

/**
 * A connection to the hub at `url`, such as `https://hub.example.com`. It is made with the first subscription, so that a page that is
 * rendered on a server makes none. `Events` says which data each topic has.
 */
export function connect<Events = Record<string, any>>(url: string, options: Options<Events> = {}): Hub<Events> {
  const { location, navigator } = globalThis as Partial<Window & typeof globalThis>;
  const base = new URL(url, location?.href).href;
  // The second argument of `JSON.parse` has no effect, as a topic is not a function.
  const settings: Settings = { parse: JSON.parse as (text: string) => unknown, onError: console.error, source: hubSource, ...options };
  const listeners = new Set<(status: Status) => void>();
  const closed = new AbortController();
  const { signal } = closed;
  const name = options.tabs === 'shared' && navigator?.locks && `tidings 1 ${base} ${options.session}`;
  const requests = settings.source(base, settings);
  const tab = createTab(requests, settings);
  const { status, enter_: enter, leave_: leave, wake } = connection(tab, requests, settings, listeners, name);

  // A page that the browser keeps to return to it, or stops, must not hold the connection. Some of these events belong to the document
  // and do not bubble, but all can be captured here.
  const reactions: Record<string, () => void> = { pagehide: leave, freeze: leave, pageshow: enter, resume: enter, online: wake, visibilitychange: wake };
  for (const type in reactions) globalThis.addEventListener?.(type, reactions[type]!, { capture: true, signal });

  function add(matcher: Matcher, handlers: Handlers): () => void {
    if (signal.aborted) throw new Error('This connection is closed: connect again');
    const added = subscription(matcher, base, handlers, settings, requests.key);
    tab.subscriptions_.add(added);
    enter();
    return () => void tab.subscriptions_.delete(added);
  }

  return {
    get status() {
      return status();
    },
    onStatus(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    on: (matcher, event, subscribe) => add(matcher, { ...subscribe, event }),
    onGap: (matcher, gap) => add(matcher, { gap }),
    close() {
      closed.abort();
      leave();
      tab.subscriptions_.clear();
    },
  };
}
