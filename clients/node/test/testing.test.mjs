// tidings/testing: what an application publishes is recorded, without a hub.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client, publish, publishLater, publishMany, revoke, stream, ticket } from '../src/index.js';
import { record } from '../src/testing.js';

test('everything that any client publishes and revokes is recorded, until the recording ends', async (t) => {
  const recorded = record();
  t.after(() => recorded.end());
  const receipt = await publish('user-42', { paid: 17 }, { private: true, type: 'paid' });
  await publishMany([{ topic: ['a', 'b'], data: 'text', id: 'own' }]);
  await new Client({ url: 'http://127.0.0.1:1' }).publish('chat', new TextEncoder().encode('bytes'));
  publishLater('chat', 'later');
  await revoke({ label: 'user-42' });
  await new Promise((resolve) => setImmediate(resolve));

  assert.deepEqual(recorded.on('user-42'), [
    { topic: 'user-42', topics: ['user-42'], data: '{"paid":17}', json: { paid: 17 }, type: 'paid', private: true, ephemeral: false, id: undefined },
  ]);
  assert.equal(typeof receipt.id, 'string');
  assert.deepEqual(recorded.on('b').map(({ data, id, json }) => [data, id, json]), [['text', 'own', undefined]]);
  assert.deepEqual(recorded.on('chat').map(({ data }) => data), ['bytes', 'later']);
  assert.deepEqual(recorded.revoked, [{ label: 'user-42' }]);
  recorded.clear();
  assert.deepEqual([recorded.published, recorded.revoked], [[], []]);

  recorded.end();
  await assert.rejects(new Client({ url: 'http://127.0.0.1:1', timeoutMillis: 1 }).publish('chat', 'x'), /cannot be reached/);
});

test('what a hub would not receive fails in a test as well', async (t) => {
  const recorded = record();
  t.after(() => recorded.end());
  await assert.rejects(publish('chat', undefined), /the data is undefined/);
  await assert.rejects(publish('chat', 'x', { privat: true }), /no option "privat"/);
  assert.deepEqual(recorded.published, []);
});

test('routes and tickets work without a hub', async (t) => {
  const recorded = record();
  t.after(() => recorded.end());
  const answered = await stream(new Request('http://app/stream'), 'user-42', { label: 'user-42' });
  assert.equal(answered.headers.get('tidings-subscribe'), 'topic=user-42&label=user-42');
  assert.match(await ticket('user-42'), /^tt1\.test\./);
});

test('a second recording at the same time is refused', (t) => {
  const recorded = record();
  t.after(() => recorded.end());
  assert.throws(record, /recorded already/);
});
