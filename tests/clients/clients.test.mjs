// Third-party clients work unchanged. Each receives the published events, receives nothing from heartbeats, and, if it can resume,
// misses nothing.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { describe, test } from 'node:test';
import { Client } from '../lib/client.mjs';
import { atEnd } from '../lib/ending.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub, Node } from '../lib/hub.mjs';
import { Proxy } from '../lib/proxy.mjs';
import { KEY, configuration, publish } from '../lib/tickets.mjs';

const CLIENTS = {
  'npm eventsource': 'node/eventsource.mjs',
  'npm event-source-polyfill': 'node/event-source-polyfill.mjs',
  'npm @microsoft/fetch-event-source': 'node/fetch-event-source.mjs',
  'npm reconnecting-eventsource': 'node/reconnecting-eventsource.mjs',
  'npm sse.js': 'node/sse-js.mjs',
  'npm eventsource-client': 'node/eventsource-client.mjs',
  'npm launchdarkly-eventsource': 'node/launchdarkly-eventsource.mjs',
  'npm event-source-plus': 'node/event-source-plus.mjs',
  'PyPI httpx-sse': 'python/httpx_client.py',
  'PyPI sseclient-py': 'python/sseclient_client.py',
  'PyPI launchdarkly-eventsource': 'python/launchdarkly_client.py',
  'PyPI requests-sse': 'python/requests_client.py',
  'PyPI aiohttp-sse-client': 'python/aiohttp_client.py',
  'PyPI sseclient': 'python/sseclient_alone_client.py',
};

/** What clients make of data that they do not keep as it is. */
const AS_RECEIVED = {
  'npm event-source-plus': (data) => data.split('\n').at(-1),
  'PyPI sseclient': (data) => Buffer.from(data).toString('latin1'),
};

/** How many tests run at once. */
const AT_ONCE = 3;
const GREETING = 'grüße, 世界 🗞️';
const SEVERAL_LINES = 'first\nsecond\n\nlast';
/** How often the greeting is repeated for an event that is larger than any buffer on its way. */
const LARGE_TIMES = 10_000;

// Most of the time these tests wait, for heartbeats and for reconnects.
describe('clients of others', { concurrency: AT_ONCE }, () => {
  for (const [name, client] of Object.entries(CLIENTS)) {
    const received = AS_RECEIVED[name] ?? ((data) => data);

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
      await listener.upTo(received(GREETING));
      const before = heartbeats(proxy);
      await proxy.passed.until('two more heartbeats', () => heartbeats(proxy) >= before + 2);
      const end = await hub.publish('news', 'the end');

      assert.deepEqual(await listener.upTo('the end'), [
        { type: 'message', id: plain.id, data: 'plain' },
        { type: 'note', id: typed.id, data: 'typed' },
        { type: 'message', id: 'order-42', data: 'named' },
        { type: 'message', id: lines.id, data: received(SEVERAL_LINES) },
        { type: 'message', id: greeting.id, data: received(GREETING) },
        { type: 'message', id: end.id, data: 'the end' },
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

  test('npm event-source-plus presents a key in a header', async (t) => {
    const hub = await Node.start(t, '--config', await configuration(t));
    const listener = new Client(t, CLIENTS['npm event-source-plus'], hub.url('/stream?topic=user-42'), KEY);
    await listener.opened();
    await publish(hub, 'user-42', 'private');
    assert.deepEqual((await listener.upTo('private')).map((event) => event.data), ['private']);
  });

  test('PyPI sseclient receives any language with --charset-utf8, and an event of any size, since each is one chunk', async (t) => {
    const hub = await Hub.start(t, 'serve', '--charset-utf8');
    const listener = new Client(t, CLIENTS['PyPI sseclient'], hub.url('/stream?topic=news'));
    await listener.opened();
    const large = GREETING.repeat(LARGE_TIMES);
    await hub.publish('news', GREETING);
    await hub.publish('news', large);
    assert.deepEqual((await listener.upTo(large)).map((event) => event.data), [GREETING, large]);
  });

  test('PyPI sseclient resumes by itself when the hub restarts', async (t) => {
    const hub = await Hub.start(t, 'serve', '--store', await folder(t), '--retry-millis', '300');
    const listener = new Client(t, CLIENTS['PyPI sseclient'], hub.url('/stream?topic=news'));
    await listener.opened();
    await hub.publish('news', 'before');
    await listener.upTo('before');
    await hub.stop();
    await hub.startAgain();
    await hub.publish('news', 'while away');
    await listener.upTo('while away');
    await hub.publish('news', 'back again');
    assert.deepEqual(
      (await listener.upTo('back again')).map(({ type, data }) => [type, data]),
      [
        ['message', 'before'],
        ['tidings', '{"kind":"reconnect","reason":"shutdown"}'],
        // It takes the end of the response for an event.
        ['message', ''],
        ['message', 'while away'],
        ['message', 'back again'],
      ],
    );
    assert.equal(listener.received.entries.filter((entry) => entry.open).length, 1);
  });

  // Why a hub never divides an event into chunks.
  test('PyPI sseclient loses a part of an event that is divided into chunks', async (t) => {
    const server = http.createServer((request, response) => {
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      response.write('data: in t');
      response.write('wo\n\n');
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    atEnd(t, () => server.closeAllConnections());
    atEnd(t, () => new Promise((closed) => server.close(closed)));
    const listener = new Client(t, CLIENTS['PyPI sseclient'], `http://127.0.0.1:${server.address().port}/`);
    assert.deepEqual((await listener.upTo('in t')).map((event) => event.data), ['in t']);
  });
});

function heartbeats(proxy) {
  return proxy.textOf('/stream').split(': hb\n').length - 1;
}
