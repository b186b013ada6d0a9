// Third-party clients work unchanged. Each receives the published events, receives nothing from heartbeats, and, if it can resume,
// misses nothing.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Client } from '../lib/client.mjs';
import { Hub } from '../lib/hub.mjs';
import { Proxy } from '../lib/proxy.mjs';

const CLIENTS = {
  'npm eventsource': 'node/eventsource.mjs',
  'npm event-source-polyfill': 'node/event-source-polyfill.mjs',
  'npm @microsoft/fetch-event-source': 'node/fetch-event-source.mjs',
  'npm reconnecting-eventsource': 'node/reconnecting-eventsource.mjs',
  'npm sse.js': 'node/sse-js.mjs',
  'npm eventsource-client': 'node/eventsource-client.mjs',
  'npm launchdarkly-eventsource': 'node/launchdarkly-eventsource.mjs',
  'PyPI httpx-sse': 'python/httpx_client.py',
  'PyPI sseclient-py': 'python/sseclient_client.py',
  'PyPI launchdarkly-eventsource': 'python/launchdarkly_client.py',
  'PyPI requests-sse': 'python/requests_client.py',
  'PyPI aiohttp-sse-client': 'python/aiohttp_client.py',
};

/** How many tests run at once. */
const AT_ONCE = 3;
const GREETING = 'grüße, 世界 🗞️';
const SEVERAL_LINES = 'first\nsecond\n\nlast';

// Most of the time these tests wait, for heartbeats and for reconnects.
describe('clients of others', { concurrency: AT_ONCE }, () => {
  for (const [name, client] of Object.entries(CLIENTS)) {
    test(`${name} receives data, type, id, several lines and any language, and nothing from heartbeats`, async (t) => {
      const hub = await Hub.start(t, 'serve', '--heartbeat-secs', '1');
      const proxy = await Proxy.start(t, hub.port);
      const listener = new Client(t, client, proxy.url('/stream?topic=news'));
      await listener.opened();

      const plain = await hub.publish('news', 'plain');
      const typed = await hub.publish('news', 'typed', { type: 'note' });
      await hub.publish('news', 'named', { id: 'order-42' });
      const lines = await hub.publish('news', SEVERAL_LINES);
      const greeting = await hub.publish('news', GREETING);
      await listener.upTo(GREETING);
      const before = heartbeats(proxy);
      await proxy.passed.until('two more heartbeats', () => heartbeats(proxy) >= before + 2);
      const last = await hub.publish('news', 'last');

      assert.deepEqual(await listener.upTo('last'), [
        { type: 'message', id: plain.id, data: 'plain' },
        { type: 'note', id: typed.id, data: 'typed' },
        { type: 'message', id: 'order-42', data: 'named' },
        { type: 'message', id: lines.id, data: SEVERAL_LINES },
        { type: 'message', id: greeting.id, data: GREETING },
        { type: 'message', id: last.id, data: 'last' },
      ]);
    });

    test(`${name} resumes after a cut and misses nothing`, async (t) => {
      const hub = await Hub.start(t, 'serve', '--retry-millis', '300');
      const proxy = await Proxy.start(t, hub.port);
      const listener = new Client(t, client, proxy.url('/stream?topic=news'));
      await listener.opened();
      await hub.publish('news', 'before');
      await listener.upTo('before');

      for (const round of ['one', 'two']) {
        const connections = proxy.connections;
        proxy.pause();
        proxy.cut();
        await hub.publish('news', `${round}: while away`);
        await hub.publish('news', `${round}: still away`);
        await proxy.moreConnectionsThan(connections);
        proxy.resume();
        await listener.upTo(`${round}: still away`);
        await hub.publish('news', `${round}: back again`);
        await listener.upTo(`${round}: back again`);
      }

      assert.deepEqual(
        listener.events.map((event) => event.data),
        ['before', ...['one', 'two'].flatMap((round) => ['while away', 'still away', 'back again'].map((what) => `${round}: ${what}`))],
      );
    });
  }
});

function heartbeats(proxy) {
  return proxy.textOf('/stream').split(': hb\n').length - 1;
}
