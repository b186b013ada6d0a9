// The application's own route for streams: with a hub in front it names the topics, without one it passes the hub's stream on.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { test } from 'node:test';
import { atEnd } from '../../../tests/lib/ending.mjs';
import { Node } from '../../../tests/lib/hub.mjs';
import { Stream } from '../../../tests/lib/stream.mjs';
import { stream as expressStream } from '../src/express.js';
import { Client, publish, revoke, stream } from '../src/index.js';
import { TICKET_SECRET, clientOf, startHub } from './hubs.mjs';

const DEFAULT_CLIENT = Symbol.for('tidings.client');

/** Sets variables of the environment for the duration of the test `t`. */
function environment(t, variables) {
  const before = { ...process.env };
  atEnd(t, () => {
    process.env = before;
    delete globalThis[DEFAULT_CLIENT];
  });
  process.env = { ...before, ...variables };
  delete globalThis[DEFAULT_CLIENT];
}

/** A server on a free port. */
async function serve(t, answer) {
  const server = http.createServer(answer).listen(0, '127.0.0.1');
  await once(server, 'listening');
  atEnd(t, () => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}`;
}

/** The two ways in which a handler answers. */
const HANDLERS = {
  'tidings/express': (...wanted) => (request, response) => expressStream(request, response, ...wanted),
  'stream(request)': (...wanted) => async (request, response) => {
    const left = new AbortController();
    response.once('close', () => left.abort());
    const answered = await stream({ headers: request.headers, signal: left.signal }, ...wanted);
    response.writeHead(answered.status, Object.fromEntries(answered.headers));
    try {
      for await (const part of answered.body ?? []) response.write(part);
    } catch (error) {
      if (!left.signal.aborted) throw error;
    }
    response.end();
  },
};

for (const [name, handler] of Object.entries(HANDLERS)) {
  test(`${name}: a hub in front makes a stream of the topics, with label, pattern and history`, async (t) => {
    environment(t, { NODE_ENV: 'production' });
    const options = { label: 'user-4&2', patterns: ['/rooms/:room'], since: 'earliest', expires: 600, format: 'json' };
    const application = await serve(t, handler('chat', 'user-4&2', options));
    const asked = await fetch(application, { headers: { 'Tidings-Version': '0.1.0' } });
    assert.equal(asked.headers.get('tidings-subscribe'), 'topic=chat&topic=user-4%262&pattern=%2Frooms%2F%3Aroom&label=user-4%262&since=earliest&expires=600&format=json');
    assert.equal(asked.status, 200);
    assert.equal(await asked.text(), '');
  });

  test(`${name}: without a hub in front, production answers what to do`, async (t) => {
    environment(t, { NODE_ENV: 'production' });
    const logged = t.mock.method(console, 'error', () => {});
    const answered = await fetch(await serve(t, handler('chat')));
    assert.equal(answered.status, 500);
    assert.match(await answered.text(), /Put the hub in front.*tidings run -- .*--authorize/);
    assert.match(logged.mock.calls[0].arguments[0], /^tidings: .*tidings run/);
  });

  test(`${name}: without a hub in front, a development server passes the stream on, resumes it, and revokes it`, async (t) => {
    const hub = await startHub(t);
    environment(t, { NODE_ENV: 'development', TIDINGS_URL: hub.withKey, TIDINGS_TICKET_SECRET: TICKET_SECRET });
    const application = await serve(t, handler('user-42', 'chat', { label: 'user-42', patterns: ['/rooms/:room'], since: 'earliest' }));
    const { id } = await publish('user-42', 'for 42', { private: true });
    await publish('user-43', 'for another', { private: true });
    await publish('/rooms/7', 'in the room', { private: true });
    await publish('chat', 'for all');
    const fromTheBeginning = await Stream.open(t, application);
    assert.match(fromTheBeginning.headers['content-type'], /^text\/event-stream/);
    await fromTheBeginning.receive('for all');
    assert.deepEqual(fromTheBeginning.data, ['for 42', 'in the room', 'for all']);
    const resumed = await Stream.open(t, application, { Accept: 'text/event-stream', 'Last-Event-ID': id });
    await resumed.receive('for all');
    assert.deepEqual(resumed.data, ['in the room', 'for all']);
    await revoke({ label: 'user-42' });
    await resumed.ended();
    assert.equal(resumed.received.entries.at(-2).data, '{"kind":"revoked"}');
  });

  test(`${name}: a browser that leaves ends its stream at the hub`, async (t) => {
    const hub = await startHub(t);
    environment(t, { NODE_ENV: 'development', TIDINGS_URL: hub.withKey, TIDINGS_TICKET_SECRET: TICKET_SECRET });
    const stream = await Stream.open(t, await serve(t, handler('chat', { label: 'me' })));
    const subscribers = () => subscribersOf(hub);
    assert.equal(await subscribers(), 1);
    stream.close();
    while ((await subscribers()) > 0) await new Promise((resolve) => setImmediate(resolve));
  });
}

/** How many streams there are on the topic chat. */
async function subscribersOf(hub) {
  const { token } = await clientOf(hub).hub();
  const summary = await fetch(hub.url('/topics/chat'), { headers: { Accept: 'application/json', Authorization: `Bearer ${token}` } });
  return (await summary.json()).subscribers;
}

test('a hub without keys is passed on, too', async (t) => {
  const hub = await Node.start(t);
  environment(t, { NODE_ENV: 'development', TIDINGS_URL: hub.origin });
  await new Client().publish('chat', 'hello', { private: true });
  const opened = await Stream.open(t, await serve(t, HANDLERS['tidings/express']('chat', { since: 'earliest' })));
  assert.equal(opened.status, 200);
  await publish('chat', 'public');
  await opened.receive('public');
});

test('a hub that is gone is a 502 that names its address without the key', async (t) => {
  const hub = await startHub(t);
  await hub.stop();
  environment(t, { NODE_ENV: 'development', TIDINGS_URL: hub.withKey });
  const answered = await stream(new Request('http://app/stream'), 'chat');
  assert.equal(answered.status, 502);
  assert.equal(answered.headers.get('retry-after'), '1');
  const text = await answered.text();
  assert.ok(text.startsWith(`The hub at ${hub.origin} cannot be reached`) && !text.includes('tk_'), text);
});

test('a stream without topics, or with an option that does not exist, is refused', async () => {
  const request = new Request('http://app/stream');
  await assert.rejects(async () => stream(request), /the stream has no topic/);
  await assert.rejects(async () => stream(request, 'chat', { labl: 'x' }), /no option "labl": a stream takes patterns, label/);
  await assert.rejects(async () => stream(request, ''), /the topic is \[""\]/);
});

test('the real hub asks the route and keeps the connection', async (t) => {
  environment(t, { NODE_ENV: 'production' });
  // A hub before it sends Tidings-Version is answered by a route that adds it.
  const application = await serve(t, (request, response) => {
    request.headers['tidings-version'] ??= '0.1.0';
    return HANDLERS['tidings/express']('user-42')(request, response);
  });
  const hub = await Node.start(t, '--authorize', `${application}/stream`);
  const opened = await Stream.open(t, hub.url('/stream'));
  assert.equal(opened.status, 200);
  await hub.publish('user-42', 'mine', { private: '' });
  await opened.receive('mine');
});
