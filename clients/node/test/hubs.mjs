// A hub with a key and a ticket secret, and clients of it.

import { atEnd } from '../../../tests/lib/ending.mjs';
import { Node } from '../../../tests/lib/hub.mjs';
import { Journal } from '../../../tests/lib/journal.mjs';
import { KEY, SECRET, configuration } from '../../../tests/lib/tickets.mjs';
import { Client } from '../src/index.js';

export { KEY };
export const TICKET_SECRET = `1:${SECRET}`;

/** Starts a hub for the duration of the test `t`; `lines` are further lines of its configuration. */
export async function startHub(t, lines = '') {
  const hub = await Node.start(t, '--config', await configuration(t, lines), '--retry-millis', '500');
  hub.withKey = withKey(hub.origin);
  return hub;
}

/** The address with the key, as in TIDINGS_URL. */
export function withKey(origin) {
  return origin.replace('//', `//:${KEY}@`);
}

/** A client of a hub, or of a proxy in front of it. */
export function clientOf({ origin }, options = {}) {
  return new Client({ url: withKey(origin), ...options });
}

/** What a subscription of these topics receives, during the test `t`. */
export function receiving(t, client, topics, options = {}) {
  const journal = new Journal();
  const stop = new AbortController();
  const done = (async () => {
    for await (const item of client.subscribe(topics, { ...options, signal: stop.signal })) journal.add(item);
  })().catch((error) => journal.add({ failed: String(error) }));
  atEnd(t, () => {
    stop.abort();
    return done;
  });
  return journal;
}
