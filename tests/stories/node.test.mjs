// docs/node.md: every block is run as it is written there; only the ports differ.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { blocks, read, snippet } from '../lib/document.mjs';
import { Node } from '../lib/hub.mjs';
import { projectDirectory, serve as run, serveNext } from '../lib/node-package.mjs';
import { start } from '../lib/service.mjs';
import { Stream } from '../lib/stream.mjs';
import { KEY, SECRET, configuration } from '../lib/tickets.mjs';

const execute = promisify(execFile);
const DOCUMENT = read('docs/node.md');
const used = new Set();

/** The first block in `language` after `words`; at the end every block in JavaScript must have been used. */
function take(words, language = 'js') {
  const code = snippet(DOCUMENT, words, language);
  used.add(code);
  return code;
}

/** A project directory with this file; resolves with its path. */
function project(t, name, code) {
  const directory = projectDirectory(t);
  mkdirSync(join(directory, name, '..'), { recursive: true });
  writeFileSync(join(directory, name), code);
  return directory;
}

/** Starts an application of the document with its own hub for development; resolves with its origin. */
function serve(t, words) {
  return run(t, project(t, 'app.mjs', take(words)), () => ['app.mjs'], /^ready$/);
}

/** A hub with a key, and the environment of an application that uses it. */
async function withHub(t) {
  const hub = await Node.start(t, '--config', await configuration(t));
  const env = { ...process.env, TIDINGS_URL: `http://:${KEY}@127.0.0.1:${hub.port}`, TIDINGS_TICKET_SECRET: `1:${SECRET}` };
  return { hub, env };
}

test('the application of the document lets user 42 receive', async (t) => {
  const origin = await serve(t, 'Save this as `app.mjs`');
  const open = async (user) => {
    const login = await fetch(`${origin}/login/${user}`, { redirect: 'manual' });
    const [Cookie] = login.headers.get('set-cookie').split(';');
    const stream = await Stream.open(t, `${origin}/stream`, { Accept: 'text/event-stream', Cookie });
    assert.equal(stream.status, 200);
    return stream;
  };
  const [mine, other] = [await open('42'), await open('7')];
  const curl = snippet(DOCUMENT, 'Start it, open', 'sh').trim().split('\n')[1].replace('http://127.0.0.1:3000', origin);
  await execute('sh', ['-euc', curl]);
  await mine.receive('{"paid":17}');
  await execute('sh', ['-euc', curl.replace('/42', '/7')]);
  await other.receive('{"paid":17}');
  assert.deepEqual([mine.data.length, other.data.length], [1, 1]);
  assert.equal((await fetch(`${origin}/stream`)).status, 403);
  assert.match(await (await fetch(origin)).text(), /new EventSource\('\/stream'\)/);
});

test('everything that the document publishes arrives', async (t) => {
  const { hub, env } = await withHub(t);
  const stream = await Stream.open(t, hub.url('/stream?topic=*&since=earliest&format=json'), { Authorization: `Bearer ${KEY}` });
  const directory = project(t, 'publish.mjs', take('## Publishing'));
  const { stdout } = await execute(process.execPath, ['publish.mjs'], { cwd: directory, env });
  await stream.received.until('six events', (all) => all.length >= 6);
  const events = stream.received.entries.map(({ data }) => JSON.parse(data));
  assert.deepEqual(events.map(({ topic, type, data }) => [topic, type, data]), [
    ['chat', 'message', 'hello'],
    ['chat', 'note', '{"from":"Ann","text":"hi"}'],
    ['orders', 'message', 'paid'],
    ['chat', 'message', 'one'],
    ['news', 'message', '{"two":2}'],
    ['chat', 'message', 'when there is time'],
  ]);
  assert.equal(stdout.trim(), events[0].id);
});

for (const framework of ['Hono', 'Fastify']) {
  test(`the route for ${framework} streams without a hub in front, and names its topics to one`, async (t) => {
    const origin = await serve(t, `**${framework}**`);
    const stream = await Stream.open(t, `${origin}/stream`);
    assert.equal(stream.status, 200);
    assert.match(stream.headers['content-type'], /^text\/event-stream/);
    const asked = await fetch(`${origin}/stream`, { headers: { 'Tidings-Version': '0.1.0' } });
    assert.match(asked.headers.get('tidings-subscribe'), /^topic=chat/);
  });
}

test('the route for Next streams in its development server, for the user of the cookie', async (t) => {
  const directory = project(t, 'app/stream/route.js', take('**Next**'));
  writeFileSync(join(directory, 'app/layout.js'), 'export default ({ children }) => children;\n');
  const origin = await serveNext(t, directory, '/stream');
  assert.equal((await fetch(`${origin}/stream`)).status, 403);
  const stream = await Stream.open(t, `${origin}/stream`, { Accept: 'text/event-stream', Cookie: 'user=42' });
  assert.equal(stream.status, 200);
  assert.match(stream.headers['content-type'], /^text\/event-stream/);
  const asked = await fetch(`${origin}/stream`, { headers: { 'Tidings-Version': '0.1.0', Cookie: 'user=42' } });
  assert.equal(asked.headers.get('tidings-subscribe'), 'topic=chat&topic=user-42');
});

test('the ticket of the document is accepted', async (t) => {
  const { hub, env } = await withHub(t);
  const directory = project(t, 'ticket.mjs', take('gives it a [ticket]'));
  const { stdout } = await execute(process.execPath, ['ticket.mjs'], { cwd: directory, env });
  const stream = await Stream.open(t, hub.url(`/stream?ticket=${stdout.trim()}`));
  assert.equal(stream.status, 200);
});

test('the loop of the document receives history and what is published', async (t) => {
  const { hub, env } = await withHub(t);
  const headers = { Authorization: `Bearer ${KEY}` };
  const publish = (topic, body) => fetch(hub.url(`/topics/${topic}`), { method: 'POST', headers, body });
  await publish('news', 'earlier');
  const directory = project(t, 'receive.mjs', take('## Receiving'));
  const { printed } = await start(t, () => [process.execPath, ['receive.mjs'], { cwd: directory, env }], /^news message .*Z earlier$/);
  await publish('chat', 'now');
  await printed.until('the next event', (all) => all.some((line) => /^chat message .*Z now$/.test(line)));
});

test('the test of the document passes', async (t) => {
  const directory = project(t, 'orders.test.mjs', take('## Tests of your application'));
  const env = { ...process.env };
  // Otherwise it reports to the tests that run here.
  delete env.NODE_TEST_CONTEXT;
  const { stdout } = await execute(process.execPath, ['--test', '--test-reporter=tap', 'orders.test.mjs'], { cwd: directory, env });
  assert.match(stdout, /^# pass 1$/m);
});

test('every block of JavaScript was taken by one of these tests', () => {
  const left = blocks(DOCUMENT).filter(({ language, code }) => language === 'js' && !used.has(code));
  assert.deepEqual(left, []);
});
