// Publishing: what arrives, what is repeated, and what errors say.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { test } from 'node:test';
import { atEnd } from '../../../tests/lib/ending.mjs';
import { Client, TidingsError } from '../src/index.js';
import { KEY, clientOf, startHub, withKey } from './hubs.mjs';

/** The events of these topics, read with the key. */
async function published(hub, count, ...topics) {
  const items = [];
  for await (const item of clientOf(hub).subscribe(topics, { since: 'earliest' })) {
    items.push(item);
    if (items.length === count) return items;
  }
  return items;
}

/** A server that answers with `answer(request, response, attempt)`, and records what it was sent. */
async function server(t, answer) {
  const requests = [];
  const listening = http.createServer(async (request, response) => {
    const body = (await request.setEncoding('utf8').toArray()).join('');
    requests.push({ method: request.method, url: request.url, headers: request.headers, body });
    answer(request, response, requests.length);
  });
  listening.listen(0, '127.0.0.1');
  await once(listening, 'listening');
  atEnd(t, () => {
    listening.closeAllConnections();
    listening.close();
  });
  return { origin: `http://127.0.0.1:${listening.address().port}`, requests };
}

test('text and bytes are published as they are, everything else as JSON', async (t) => {
  const hub = await startHub(t);
  const client = clientOf(hub);
  const first = await client.publish('chat', 'grüße 🗞️');
  await client.publish('chat', new TextEncoder().encode('bytes: ü'));
  await client.publish('chat', { paid: 17, by: null });
  await client.publish('chat', [1, '2']);
  await client.publish('a topic/with & signs?', 'x', { type: 'note', id: 'order-17' });
  const items = await published(hub, 5, '*');
  assert.deepEqual(items.map(({ data }) => data), ['grüße 🗞️', 'bytes: ü', '{"paid":17,"by":null}', '[1,"2"]', 'x']);
  assert.equal(items[0].id, first.id);
  const { topic, type, id, time } = items[4];
  assert.deepEqual({ topic, type, id }, { topic: 'a topic/with & signs?', type: 'note', id: 'order-17' });
  assert.ok(time instanceof Date && !Number.isNaN(time.getTime()));
});

test('a private event reaches only subscribers that were granted its topic', async (t) => {
  const hub = await startHub(t);
  const client = clientOf(hub);
  await client.publish('news', 'secret', { private: true });
  await client.publish('news', 'public');
  const anonymous = new Client({ url: hub.origin });
  for await (const item of anonymous.subscribe('news', { since: 'earliest' })) {
    assert.equal(item.data, 'public');
    break;
  }
});

test('an event on several topics is one event', async (t) => {
  const hub = await startHub(t);
  const { id } = await clientOf(hub).publish(['orders', 'user-42'], { paid: 17 }, { type: 'paid' });
  const [item] = await published(hub, 1, 'user-42');
  assert.deepEqual([item.id, item.type, item.topic, item.data], [id, 'paid', 'orders', '{"paid":17}']);
});

test('a topic that no URL can contain is published on', async (t) => {
  const hub = await startHub(t);
  for (const topic of ['.', '..', 'a/../b', '%2e']) await clientOf(hub).publish(topic, topic);
  const items = await published(hub, 4, '*');
  assert.deepEqual(items.map(({ topic }) => topic), ['.', '..', 'a/../b', '%2e']);
});

test('a batch is published as a whole, or not at all', async (t) => {
  const hub = await startHub(t);
  const client = clientOf(hub);
  const receipts = await client.publishMany([
    { topic: 'chat', data: 'one\ntwo' },
    { topic: ['chat', 'news'], data: { three: 3 }, type: 'note', private: true },
  ]);
  const wrong = client.publishMany([{ topic: 'chat', data: 'x' }, { topic: 'chat', data: 'y', type: 'tidings' }]);
  await assert.rejects(wrong, (error) => error instanceof TidingsError && error.status === 400 && /Line 2/.test(error.message));
  await client.publish('chat', 'last');
  const items = await published(hub, 3, 'chat');
  assert.deepEqual(items.map(({ data }) => data), ['one\ntwo', '{"three":3}', 'last']);
  assert.deepEqual(receipts.map(({ id }) => id), items.slice(0, 2).map(({ id }) => id));
  assert.deepEqual(await client.publishMany([]), []);
});

test('under one idempotency key an event is published once', async (t) => {
  const client = clientOf(await startHub(t));
  const first = await client.publish('chat', 'x', { idempotencyKey: 'order-17' });
  assert.deepEqual(await client.publish('chat', 'x', { idempotencyKey: 'order-17' }), { ...first, duplicate: true });
});

test('a publication without an answer is repeated under the same key', async (t) => {
  const hub = await server(t, (request, response, attempt) => {
    if (attempt === 1) request.socket.destroy();
    else if (attempt === 2) response.writeHead(503).end('Nothing was published');
    else response.end('{"id":"#3"}');
  });
  // The time-out only bounds the test.
  assert.deepEqual(await clientOf(hub, { timeoutMillis: 30_000 }).publish('chat', 'hello'), { id: '#3' });
  const [first, ...others] = hub.requests;
  assert.equal(others.length, 2);
  assert.match(first.headers['idempotency-key'], /^[0-9a-f-]{36}$/);
  for (const other of others) {
    assert.deepEqual([other.url, other.body, other.headers['idempotency-key']], ['/topics/chat', 'hello', first.headers['idempotency-key']]);
  }
  assert.equal(first.headers.authorization, `Bearer ${KEY}`);
});

test('an ephemeral event is received live and by nobody later', async (t) => {
  const hub = await startHub(t);
  const client = clientOf(hub);
  const first = await client.publish('chat', 'first');
  for await (const item of client.subscribe('chat', { since: 'earliest' })) {
    if (item.data === 'first') {
      assert.deepEqual(await client.publish('chat', 'Ann', { type: 'typing', ephemeral: true }), { id: null });
      continue;
    }
    assert.deepEqual([item.data, item.type, item.id], ['Ann', 'typing', first.id]);
    break;
  }
  await client.publish('chat', 'last');
  assert.deepEqual((await published(hub, 2, 'chat')).map(({ data }) => data), ['first', 'last']);
});

test('ephemeral events alone have no key, and are not repeated if they may have arrived', async (t) => {
  const hub = await server(t, (request, response, attempt) => {
    if (attempt === 1) request.socket.destroy();
    else response.end('{"events":[{"id":null},{"id":"#2"}]}');
  });
  // The time-out only bounds the test.
  const client = clientOf(hub, { timeoutMillis: 30_000 });
  const unknown = (error) => error.outcome === 'unknown';
  await assert.rejects(client.publish('chat', 'Ann', { ephemeral: true }), unknown);
  await client.publishMany([{ topic: 'chat', data: 'Ann', ephemeral: true }, { topic: 'chat', data: 'hello' }]);
  assert.deepEqual(hub.requests.map(({ headers }) => 'idempotency-key' in headers), [false, true]);
  assert.equal(hub.requests[0].url, '/topics/chat?ephemeral=true');
});

test('a hub that does not answer fails a publication in time, with an unknown outcome and without the key', async (t) => {
  const hub = await server(t, () => {});
  await assert.rejects(clientOf(hub, { timeoutMillis: 100 }).publish('chat', 'hello'), (error) => {
    assert.equal(error.outcome, 'unknown');
    assert.match(error.message, new RegExp(`publishing on "chat" failed.*${hub.origin}.*did not answer in time`));
    assert.doesNotMatch(error.message, new RegExp(KEY));
    return true;
  });
});

test('a hub that is not there has published nothing', async (t) => {
  const hub = await startHub(t);
  await hub.stop();
  const rejected = assert.rejects(clientOf(hub, { timeoutMillis: 100 }).publish('chat', 'hello'), (error) => {
    assert.match(error.message, /cannot be reached.*TIDINGS_URL/);
    assert.equal(error.outcome, 'not-published');
    return true;
  });
  await rejected;
});

test('an event that was refused is not repeated, and the error says why', async (t) => {
  const hub = await startHub(t);
  const wrongKey = new Client({ url: hub.origin.replace('//', '//:tk_wrong@') });
  await assert.rejects(wrongKey.publish('chat', 'x'), ({ status, message }) => status === 401 && message.startsWith('publishing on "chat" was answered 401: '));
  await assert.rejects(clientOf(hub).publish('chat', 'x', { type: 'tidings' }), ({ status }) => status === 400);
});

test('what cannot be published is refused before anything is sent', async (t) => {
  const hub = await server(t, (_, response) => response.end('{"id":"#1"}'));
  const client = clientOf(hub);
  const circle = {};
  circle.self = circle;
  const wrong = [
    [['chat', undefined], /the data is undefined/],
    [['chat', () => {}], /a function/],
    [['chat', circle], /cannot be written as JSON/],
    [['chat', 10n], /cannot be written as JSON/],
    [['chat', new Uint8Array([0xff])], /not text in UTF-8/],
    [['', 'x'], /the topic is ""/],
    [[undefined, 'x'], /the topic is undefined/],
    [[[], 'x'], /the topic is \[\]/],
    [['chat', 'x', { privat: true }], /no option "privat": publishing takes type, id, private/],
  ];
  for (const [args, message] of wrong) await assert.rejects(client.publish(...args), { name: 'TidingsError', message });
  assert.deepEqual(hub.requests, []);
});

test('a wrong address is refused without showing the key', async () => {
  const wrong = {
    'not a URL with tk_secret': /not a URL/,
    'ftp://:tk_secret@hub': /begins with ftp:/,
    'http://tk_secret@hub': /has a user name/,
    'http://:tk_secret@hub?x=1': /a query/,
    'http://:tk_secret%@hub': /percent-encoded/,
  };
  for (const [url, message] of Object.entries(wrong)) {
    await assert.rejects(new Client({ url }).hub(), (error) => {
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /tk_secret/);
      return true;
    });
  }
});

test('a key and a token at the same time are refused', async () => {
  await assert.rejects(new Client({ url: withKey('http://127.0.0.1:1'), token: 'x' }).hub(), /two credentials/);
});
