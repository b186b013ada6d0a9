// examples/express and examples/next: their pages, forms and streams, without a browser.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { developmentEnvironment, projectDirectory } from '../lib/node-package.mjs';
import { start } from '../lib/service.mjs';
import { Stream } from '../lib/stream.mjs';
import { Visitor } from '../lib/visitor.mjs';

const EXAMPLES = fileURLToPath(new URL('../../examples', import.meta.url));
const NEXT = fileURLToPath(new URL('../adopt/node_modules/next/dist/bin/next', import.meta.url));
const FILES = {
  express: ['app.mjs'],
  next: ['app/layout.jsx', 'app/messages.jsx', 'app/page.jsx', 'app/stream/route.js'],
};

/** Starts an example with its own hub for development; resolves with its origin. */
async function serve(t, name, command) {
  const env = await developmentEnvironment(t);
  const directory = projectDirectory(t, join(EXAMPLES, name));
  const run = (port) => [process.execPath, command(port), { cwd: directory, env: { ...env, PORT: String(port) } }];
  const { port } = await start(t, run, /^ready$|Ready in/);
  return `http://127.0.0.1:${port}`;
}

for (const [name, files] of Object.entries(FILES)) {
  test(`the example for ${name} has forty lines at most`, () => {
    const lines = files.map((file) => readFileSync(join(EXAMPLES, name, file), 'utf8').split('\n').length - 1);
    assert.ok(lines.reduce((sum, count) => sum + count) <= 40, String(lines));
  });
}

test('notifications reach their user alone, with history, until the user logs out', async (t) => {
  const origin = await serve(t, 'express', () => ['app.mjs']);
  const [ann, bob] = [await Visitor.logIn(origin, 'Ann'), await Visitor.logIn(origin, 'Bob & <b>')];
  const notify = async (from, to, text) => assert.equal((await from.post('/notify', new URLSearchParams({ to, text }))).status, 204);
  await notify(bob, 'Ann', 'before');
  const [ofAnn, ofBob] = [await Stream.open(t, `${origin}/stream`, ann.headers), await Stream.open(t, `${origin}/stream`, bob.headers)];
  await notify(bob, 'Ann', 'hello');
  await notify(ann, 'Bob & <b>', 'hi');
  await ofAnn.receive('{"from":"Bob & <b>","text":"hello"}');
  await ofBob.receive('{"from":"Ann","text":"hi"}');
  assert.deepEqual(ofAnn.data, ['{"from":"Bob & <b>","text":"before"}', '{"from":"Bob & <b>","text":"hello"}']);
  assert.deepEqual(ofBob.data, ['{"from":"Ann","text":"hi"}']);
  assert.equal((await ann.post('/logout')).status, 302);
  await ofAnn.ended();
  assert.equal((await fetch(`${origin}/stream`, { headers: ann.headers, redirect: 'manual' })).status, 302);
});

test('a message that the form of Next sends reaches a stream that is open, and one that is opened later', async (t) => {
  const origin = await serve(t, 'next', (port) => [NEXT, 'dev', '--hostname', '127.0.0.1', '--port', String(port)]);
  const early = await Stream.open(t, `${origin}/stream`);
  await new Visitor(origin).submit('/', { text: 'hello' });
  await early.receive('hello');
  await (await Stream.open(t, `${origin}/stream`)).receive('hello');
});
