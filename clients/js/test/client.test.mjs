// The client at a real hub, in one process without tabs: nothing is missed, nothing comes twice, and the status says what is.

import assert from 'node:assert/strict';
import http from 'node:http';
import { once } from 'node:events';
import { test } from 'node:test';
import { atEnd } from '../../../tests/lib/ending.mjs';
import { folder } from '../../../tests/lib/folder.mjs';
import { Hub } from '../../../tests/lib/hub.mjs';
import { Journal } from '../../../tests/lib/journal.mjs';
import { Proxy } from '../../../tests/lib/proxy.mjs';
import { configuration, publish as publishPrivate, ticketMaker } from '../../../tests/lib/tickets.mjs';
import { connect } from '../dist/index.js';
import { plain } from '../dist/plain.js';

const HASTE = ['--retry-millis', '100', '--heartbeat-secs', '1'];

/** A hub with a store, so that it loses nothing when it restarts. */
async function startHub(t, ...args) {
  return Hub.start(t, 'serve', '--store', await folder(t), ...HASTE, ...args);
}

/** A connection that ends with the test, and a journal of what happens on it. */
function open(t, url, options = {}) {
  const journal = new Journal();
  const hub = connect(url, { onError: (error) => journal.add({ error: error.message }), ...options });
  atEnd(t, () => hub.close());
  hub.onStatus((status) => journal.add({ status }));
  return {
    hub,
    journal,
    on: (matcher, subscribe = {}) =>
      hub.on(matcher, (data, meta) => journal.add({ data, meta }), { onLive: () => journal.add({ live: true }), ...subscribe }),
    data: () => journal.entries.filter(({ meta }) => meta).map(({ data }) => data),
    errors: () => journal.entries.filter(({ error }) => error),
    live: (times = 1) => journal.until('the subscription', (all) => all.filter(({ live }) => live).length >= times),
    upTo: (last) => journal.until(`the event ${last}`, (all) => all.some(({ data }) => data === last)),
    hasStatus: (wanted) => journal.until(`the status ${wanted}`, (all) => all.some(({ status }) => status === wanted)),
  };
}

async function publish(hub, topic, from, to = from) {
  for (let number = from; number <= to; number += 1) await hub.publish(topic, String(number));
}

const range = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

test('a subscription begins now, or with the history that it wants, and says what is replayed', async (t) => {
  const hub = await startHub(t);
  await publish(hub, 'news', 1, 5);
  const here = open(t, hub.origin);
  here.on('news', { since: '-2' });
  await here.live();
  await publish(hub, 'news', 6);
  await here.upTo(6);
  const events = here.journal.entries.filter(({ meta }) => meta);
  assert.deepEqual(events.map(({ data, meta }) => [data, meta.replayed]), [[4, true], [5, true], [6, false]]);
  const [{ meta }] = events;
  assert.equal(meta.topic, 'news');
  assert.equal(meta.type, 'message');
  assert.match(meta.id, /^#/);
  assert.ok(Math.abs(Date.parse(meta.time) - Date.now()) < 3_600_000, meta.time);
  assert.equal(here.hub.status, 'connected');
});

test('topics that join later have their own beginnings, and disturb no other', async (t) => {
  const hub = await startHub(t);
  const here = open(t, hub.origin);
  here.on('a');
  await here.live();
  await publish(hub, 'b', 1, 3);
  await publish(hub, 'c', 11, 13);
  here.on('b', { since: 'earliest' });
  here.on('c');
  await here.live(3);
  await publish(hub, 'a', 21);
  await publish(hub, 'b', 4);
  await publish(hub, 'c', 14);
  await here.upTo(14);
  assert.deepEqual(here.data(), [1, 2, 3, 21, 4, 14]);
});

test('a history that ends at an event with an id of its publisher is read, and continued', async (t) => {
  const hub = await startHub(t);
  const here = open(t, hub.origin);
  here.on('news');
  await here.live();
  for (const [number, id] of [[1, 'order 41'], [2, '-50']]) await hub.publish('news', String(number), { id });
  await here.upTo(2);
  const late = open(t, hub.origin);
  late.on('news', { since: 'id:order 41' });
  const later = [];
  here.hub.on('news', (data, { id }) => later.push([data, id]), { since: 'earliest', onLive: () => here.journal.add({ later: true }) });
  await here.journal.until('the history', (all) => all.some(({ later }) => later));
  await late.upTo(2);
  await hub.publish('news', '3', { id: 'order 43' });
  await Promise.all([here.upTo(3), late.upTo(3)]);
  assert.deepEqual(later, [[1, 'order 41'], [2, '-50'], [3, 'order 43']]);
  assert.deepEqual([here.data(), late.data()], [[1, 2, 3], [2, 3]]);
  assert.deepEqual([...here.errors(), ...late.errors()], []);
});

test('a subscription that has ended receives nothing, and an equal one continues', async (t) => {
  const hub = await startHub(t);
  const here = open(t, hub.origin);
  const off = here.on('news');
  here.hub.on('news', (data) => here.journal.add({ second: data }));
  await here.live();
  off();
  await publish(hub, 'news', 1);
  await here.journal.until('the second', (all) => all.some(({ second }) => second === 1));
  assert.deepEqual(here.data(), []);
});

test('connections that are cut lose and repeat nothing, and no gap is reported', async (t) => {
  const hub = await startHub(t);
  const proxy = await Proxy.start(t, hub.port);
  const here = open(t, proxy.origin);
  here.on('news');
  here.hub.onGap('news', (gap) => here.journal.add({ gap }));
  await here.live();
  for (let number = 1; number <= 30; number += 1) {
    if (number % 5 === 0) proxy.cut();
    await publish(hub, 'news', number);
  }
  await here.upTo(30);
  assert.deepEqual(here.data(), range(1, 30));
  assert.ok(!here.journal.entries.some(({ gap }) => gap));
});

test('a hub that restarts with its store loses nothing; one that lost its log reports one gap to each handler', async (t) => {
  const stored = await startHub(t);
  const inMemory = await Hub.start(t, 'serve', ...HASTE);
  for (const [hub, gaps] of [[stored, 0], [inMemory, 1]]) {
    const here = open(t, hub.origin);
    here.on('news');
    here.hub.onGap('news', (gap) => here.journal.add({ gap }));
    await here.live();
    await publish(hub, 'news', 1, 3);
    await here.upTo(3);
    await hub.kill();
    await here.hasStatus('offline');
    await hub.startAgain();
    await publish(hub, 'news', 4, 6);
    await here.upTo(6);
    assert.deepEqual(here.data(), range(1, 6));
    const found = here.journal.entries.filter(({ gap }) => gap);
    assert.equal(found.length, gaps);
    if (gaps) assert.equal(found[0].gap.reason, 'other-log');
    here.hub.close();
  }
});

test('a connection that is silent longer than the hub announced is replaced', async (t) => {
  const hub = await startHub(t);
  const proxy = await Proxy.start(t, hub.port);
  const here = open(t, proxy.origin);
  here.on('news');
  await here.live();
  const before = proxy.connections;
  proxy.pause();
  await publish(hub, 'news', 1);
  await proxy.moreConnectionsThan(before);
  await here.hasStatus('offline');
  proxy.resume();
  await here.upTo(1);
  assert.deepEqual(here.data(), [1]);
});

test('tickets are renewed before they expire, and nothing is lost or doubled over several', async (t) => {
  const make = await ticketMaker(t);
  const hub = await Hub.start(t, 'serve', '--config', await configuration(t), '--store', await folder(t), ...HASTE);
  let asked = 0;
  const ticket = () => {
    asked += 1;
    return make(['user-42'], { expires_at: Math.floor(Date.now() / 1000) + 4 });
  };
  const here = open(t, hub.origin, { ticket });
  here.on('user-42');
  await here.live();
  let last = 0;
  while (asked < 4) await publishPrivate(hub, 'user-42', String((last += 1)));
  await publishPrivate(hub, 'user-42', String((last += 1)));
  await here.upTo(last);
  assert.deepEqual(here.data(), range(1, last));
  assert.ok(!here.journal.entries.some(({ status }) => status === 'unauthorized' || status === 'offline'));
});

test('a refused credential is asked for again, and the status says so', async (t) => {
  const make = await ticketMaker(t);
  const hub = await Hub.start(t, 'serve', '--config', await configuration(t), '--store', await folder(t), ...HASTE);
  let isLoggedIn = false;
  const here = open(t, hub.origin, { ticket: () => (isLoggedIn ? make(['user-42']) : 'tt1.nonsense') });
  here.on('user-42');
  await here.hasStatus('unauthorized');
  isLoggedIn = true;
  await here.live();
  await publishPrivate(hub, 'user-42', '1');
  await here.upTo(1);
  assert.equal(here.hub.status, 'connected');
  assert.match(here.errors()[0].error, /was answered 401: /);
});

test('a request that can never succeed is reported, with the reason', async (t) => {
  const hub = await startHub(t);
  const here = open(t, hub.origin);
  here.on('news', { since: 'yesterday' });
  await here.live();
  assert.match(here.errors()[0].error, /answered 400: .*since/);
});

test('history that is requested while the hub has a new log, which the stream does not know yet, is read', async (t) => {
  const hub = await Hub.start(t, 'serve', '--retry-millis', '2000', '--heartbeat-secs', '1');
  const here = open(t, hub.origin);
  here.on('news');
  await here.live();
  await publish(hub, 'news', 1);
  await here.upTo(1);
  await hub.kill();
  await here.hasStatus('offline');
  await hub.startAgain();
  await publish(hub, 'news', 2, 4);
  const history = [];
  here.hub.on('news', (data) => history.push(data), { since: 'earliest', onLive: () => here.journal.add({ isRead: true }) });
  await here.journal.until('the history', (all) => all.some(({ isRead }) => isRead));
  await publish(hub, 'news', 5);
  await here.upTo(5);
  assert.deepEqual([here.data(), history], [range(1, 5), range(2, 5)]);
  assert.deepEqual(here.errors(), []);
});

test('data that is not valid, or a handler that throws, is reported and keeps nothing from others', async (t) => {
  const hub = await startHub(t);
  const here = open(t, hub.origin);
  here.hub.on('news', () => {
    throw new Error('of the handler');
  });
  here.on('news');
  await here.live();
  await hub.publish('news', 'not JSON');
  await publish(hub, 'news', 1);
  await here.upTo(1);
  const errors = here.errors().map(({ error }) => error);
  assert.equal(errors.filter((error) => error.includes('JSON')).length, 2);
  assert.equal(errors.filter((error) => error.includes('of the handler')).length, 1);
  const text = open(t, hub.origin, { parse: String });
  text.on('news');
  await text.live();
  await publish(hub, 'news', 2);
  await text.upTo('2');
});

test('a pattern in a runtime without URLPattern, and a closed connection, are errors at once', (t) => {
  const { hub } = open(t, 'http://127.0.0.1:9');
  if (!('URLPattern' in globalThis)) assert.throws(() => hub.on({ pattern: '/users/:id' }, () => {}), /URLPattern/);
  hub.close();
  assert.throws(() => hub.on('news', () => {}), /closed/);
});

/** A server that is not a hub: `answer` gets what it needs to respond to each request. */
async function server(t, answer) {
  const serving = http.createServer(answer).listen(0, '127.0.0.1');
  await once(serving, 'listening');
  atEnd(t, () => {
    serving.closeAllConnections();
    return new Promise((closed) => serving.close(closed));
  });
  return `http://127.0.0.1:${serving.address().port}`;
}

test('Retry-After is honoured, and status 503 is tried again', async (t) => {
  const times = [];
  const url = await server(t, (request, response) => {
    times.push(performance.now());
    if (times.length === 1) response.writeHead(503, { 'Retry-After': '1' }).end('{"detail":"The hub is full."}');
    else response.writeHead(200, { 'Content-Type': 'text/event-stream' }).write('event: tidings\nid: #a.1\ndata: {"kind":"hello"}\n\n');
  });
  const here = open(t, url);
  here.on('news');
  await here.live();
  // A timer may be a little early.
  assert.ok(times[1] - times[0] > 990, `after ${times[1] - times[0]} ms`);
  assert.match(here.errors()[0].error, /answered 503: The hub is full/);
  assert.deepEqual(here.journal.entries.filter(({ status }) => status).map(({ status }) => status), ['offline', 'connected']);
});

test('a plain stream of any server is resumed after its last id, with its types as topics', async (t) => {
  const asked = [];
  const url = await server(t, (request, response) => {
    const last = Number(request.headers['last-event-id'] ?? 0);
    asked.push(last);
    response.writeHead(200, { 'Content-Type': 'text/event-stream; charset=utf-8' });
    response.end(`retry: 10\n\nid: ${last + 1}\nevent: price\ndata: ${last + 1}\n\nid: ${last + 2}\ndata: "other"\n\n`);
  });
  const here = open(t, `${url}/prices?of=gold`, { source: plain });
  here.on('price');
  await here.upTo(5);
  assert.deepEqual(here.data().slice(0, 3), [1, 3, 5]);
  assert.deepEqual(asked.slice(0, 3), [0, 2, 4]);
});
