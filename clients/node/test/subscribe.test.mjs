// Subscriptions outlive their connections: nothing is missed, nothing comes twice, and a gap is an item.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Proxy } from '../../../tests/lib/proxy.mjs';
import { Client } from '../src/index.js';
import { clientOf, receiving, startHub } from './hubs.mjs';

test('connections that are cut lose and repeat nothing, also before the first event', async (t) => {
  const hub = await startHub(t);
  const proxy = await Proxy.start(t, hub.port);
  const publisher = clientOf(hub);
  const received = receiving(t, clientOf(proxy), ['chat', 'news'], { patterns: ['/rooms/:room'] });
  await proxy.passed.until('the stream', (all) => all.some(({ text }) => text?.includes('hello')));
  const topics = ['chat', 'news', '/rooms/7'];
  for (let number = 0; number < 12; number += 1) {
    if (number % 4 === 0) {
      const { connections } = proxy;
      proxy.cut();
      await publisher.publish(topics[number % 3], `${number} while away`);
      await proxy.moreConnectionsThan(connections);
    } else await publisher.publish(topics[number % 3], `${number}`);
    await received.until(`event ${number}`, (all) => all.length > number);
  }
  const expected = Array.from({ length: 12 }, (_, number) => [topics[number % 3], number % 4 === 0 ? `${number} while away` : `${number}`]);
  assert.deepEqual(received.entries.map(({ topic, data }) => [topic, data]), expected);
});

test('an id of the publisher that is no ASCII is resumed from', async (t) => {
  const hub = await startHub(t);
  const proxy = await Proxy.start(t, hub.port);
  const client = clientOf(hub);
  const received = receiving(t, clientOf(proxy), 'chat', { since: 'earliest' });
  await client.publish('chat', 'first', { id: 'grüße 🗞️' });
  await received.until('the first event', (all) => all.length > 0);
  proxy.cut();
  await client.publish('chat', 'second');
  await received.until('the second event', (all) => all.length > 1);
  assert.deepEqual(received.entries.map(({ kind, data }) => [kind, data]), [['event', 'first'], ['event', 'second']]);
});

test('a hub that lost its log is noticed as a gap', async (t) => {
  const hub = await startHub(t);
  const client = clientOf(hub);
  const received = receiving(t, client, 'chat', { since: 'earliest' });
  await client.publish('chat', 'before');
  await received.until('the first event', (all) => all.length > 0);
  await hub.kill();
  await hub.startAgain();
  await received.until('a gap', (all) => all.some(({ kind }) => kind === 'gap'));
  await client.publish('chat', 'after');
  await received.until('the next event', (all) => all.some(({ data }) => data === 'after'));
  const [, gap] = received.entries;
  assert.equal(gap.reason, 'other-log');
});

test('a signal ends the iteration, and its connection', async (t) => {
  const hub = await startHub(t);
  const client = clientOf(hub);
  const stop = new AbortController();
  const received = [];
  for (const data of ['one', 'two', 'three']) await client.publish('chat', data);
  for await (const { data } of client.subscribe('chat', { since: 'earliest', signal: stop.signal })) {
    received.push(data);
    // Events that have arrived already are not received either.
    if (data === 'two') stop.abort();
  }
  assert.deepEqual(received, ['one', 'two']);
});

test('a refusal that does not pass ends the subscription with an error', async (t) => {
  const hub = await startHub(t);
  const wrongKey = new Client({ url: hub.origin.replace('//', '//:tk_wrong@') });
  await assert.rejects(wrongKey.subscribe('chat').next(), ({ name, status }) => name === 'TidingsError' && status === 401);
  await assert.rejects(clientOf(hub).subscribe('chat', { since: 'yesterday' }).next(), ({ status, message }) => status === 400 && /earliest/.test(message));
  await assert.rejects(clientOf(hub).subscribe('').next(), /the topic is ""/);
});
