// `@tidings/client`: receive events of a hub, or of any server that sends them.

import { hubSource } from './hub-source.js';
import { connection } from './sharing.js';
import { subscription, type Handlers } from './subscription.js';
import { tab as createTab } from './tab.js';
import type { Hub, Matcher, Options, Settings, Status, Subscribe } from './types.js';

export type { Reading, Refusal, Requests, Source } from './source.js';
export type * from './types.js';

/**
 * A connection to the hub at `url`, such as `https://hub.example.com`. It is made with the first subscription, so that a page that is
 * rendered on a server makes none. `Events` says which data each topic has.
 */
export function connect<Events = Record<string, any>>(url: string, options: Options<Events> = {}): Hub<Events> {
  const { location, document, navigator, BroadcastChannel } = globalThis as Partial<Window & typeof globalThis>;
  const base = new URL(url, location?.href).href;
  const settings: Settings = { parse: (text: string) => JSON.parse(text), onError: console.error, source: hubSource, ...options };
  const listeners = new Set<(status: Status) => void>();
  const closed = new AbortController();
  const { signal } = closed;
  let status: Status = 'connecting';

  function onStatus(next: Status): void {
    if (next === status) return;
    status = next;
    for (const listener of [...listeners]) listener(next);
  }

  const name = options.tabs === 'shared' && navigator?.locks && BroadcastChannel && `tidings 1 ${base} ${options.session}`;
  const requests = settings.source(base, settings);
  const tab = createTab(requests, settings);
  const { enter, leave, want, wake } = connection(tab, requests, settings, onStatus, name);

  // A page that the browser keeps to return to it, or stops, must not hold the connection. The names belong to window or to document.
  for (const [listener, types] of [
    [leave, ['pagehide', 'freeze']],
    [enter, ['pageshow', 'resume']],
    [wake, ['online', 'visibilitychange']],
  ] as const) {
    globalThis.addEventListener?.(types[0], listener, { signal });
    document?.addEventListener(types[1], listener, { signal });
  }

  function add(matcher: Matcher, handlers: Handlers, { since, onLive }: Subscribe = {}): () => void {
    if (signal.aborted) throw new Error('This connection is closed: connect again');
    const added = subscription(matcher, base, handlers, settings);
    added.key = requests.key ?? added.key;
    added.since = since === 'now' ? undefined : since;
    added.onLive = onLive;
    tab.subscriptions.add(added);
    enter();
    if (tab.covered().has(added.key)) tab.begin();
    else want();
    return () => void tab.subscriptions.delete(added);
  }

  return {
    get status() {
      return status;
    },
    onStatus(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    on: (matcher, event, subscribe) => add(matcher, { event }, subscribe),
    onGap: (matcher, gap) => add(matcher, { gap }),
    close() {
      closed.abort();
      leave();
      tab.subscriptions.clear();
    },
  };
}
