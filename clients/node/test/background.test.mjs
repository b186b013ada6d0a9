// Publishing in the background: it never delays or fails the application, and reports what it dropped.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BackgroundQueue } from '../src/background.js';
import { clientOf, startHub } from './hubs.mjs';

/** A promise, and how to settle it. */
function deferred() {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
}

test('events arrive in their order, and flush waits for them', async (t) => {
  const hub = await startHub(t);
  const client = clientOf(hub);
  for (let number = 1; number <= 100; number += 1) client.publishLater('chat', number);
  assert.equal(await client.flush(30_000), true);
  const received = [];
  for await (const { data } of client.subscribe('chat', { since: 'earliest' })) if (received.push(Number(data)) === 100) break;
  assert.deepEqual(received, Array.from({ length: 100 }, (_, place) => place + 1));
  assert.equal(client.dropped, 0);
});

test('an event that finds the queue full is dropped and reported, and the others are published', async () => {
  const gate = deferred();
  const published = [];
  const drops = [];
  const publish = async ({ data }) => {
    await gate.promise;
    published.push(data);
  };
  const queue = new BackgroundQueue(publish, { eventsMax: 2, onDrop: (drop) => drops.push(drop) });
  for (const data of ['a', 'b', 'c']) queue.add({ topic: 'chat', data, options: {} });
  assert.deepEqual(drops.map(({ topic, data, error }) => [topic, data, error.message]), [
    ['chat', 'c', '2 events wait for the hub already (background.eventsMax)'],
  ]);
  assert.equal(await queue.flush(1), false);
  gate.resolve();
  assert.equal(await queue.flush(30_000), true);
  assert.deepEqual(published, ['a', 'b']);
  assert.equal(queue.dropped, 1);
});

test('an event that the hub refuses is dropped, and a callback that fails does no harm', async (t) => {
  const hub = await startHub(t);
  const reported = t.mock.method(console, 'error', () => {});
  const drops = [];
  const onDrop = (drop) => {
    drops.push(drop);
    throw new Error('in the application');
  };
  const client = clientOf(hub, { background: { onDrop } });
  client.publishLater('chat', 'x', { type: 'tidings' });
  client.publishLater('chat', undefined);
  client.publishLater('chat', 'good');
  assert.equal(await client.flush(30_000), true);
  assert.deepEqual(drops.map(({ error }) => error.status), [400, undefined]);
  assert.equal(reported.mock.callCount(), 2);
  for await (const { data } of client.subscribe('chat', { since: 'earliest' })) {
    assert.equal(data, 'good');
    break;
  }
});

test('without a callback the console is warned once, not for each event', async (t) => {
  const warned = t.mock.method(console, 'warn', () => {});
  const queue = new BackgroundQueue(() => Promise.reject(new Error('no hub')));
  for (const data of ['a', 'b', 'c']) queue.add({ topic: 'chat', data, options: {} });
  await queue.flush(30_000);
  assert.deepEqual(warned.mock.calls.map(({ arguments: [line] }) => line), ['tidings: dropped 1 event since the last report: no hub']);
  assert.equal(queue.dropped, 3);
});
