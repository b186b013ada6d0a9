// The snippets of the README, run as they stand there. Only the address is another: here every hub has a free port.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { forSuite, newPerson } from '../lib/browser.mjs';
import { PYTHON } from '../lib/client.mjs';
import { read, snippet } from '../lib/document.mjs';
import { Hub } from '../lib/hub.mjs';
import { serve } from '../lib/site.mjs';

const execute = promisify(execFile);
const readme = read('README.md');
const WRITTEN = 'http://127.0.0.1:8080';
const chromium = forSuite('chromium');

/** Resolves with the data of all events on a topic, oldest first. */
async function history(hub, topic) {
  const response = await fetch(hub.url(`/topics/${topic}?since=earliest`), { headers: { Accept: 'text/event-stream' } });
  let text = '';
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  while (!text.includes('\n\n')) {
    const { value, done } = await reader.read();
    assert.ok(!done, `the stream ended: ${text}`);
    text += value;
  }
  await reader.cancel();
  return [...text.matchAll(/^data: (.*)$/gm)].map((match) => match[1]);
}

test('three lines of JavaScript hear what a curl says', async (t) => {
  const hub = await Hub.start(t, 'serve');
  const script = snippet(readme, 'Three lines of JavaScript', 'js').replaceAll(WRITTEN, hub.origin);
  assert.equal(script.trim().split('\n').length, 3);
  const page = await newPerson(t, chromium());
  const logged = [];
  const firstLine = new Promise((resolve) => {
    page.on('console', (message) => {
      logged.push(message.text());
      resolve();
    });
  });
  await page.goto(await serve(t, { '/': '<!doctype html><title>three lines</title>' }));
  const connected = page.waitForResponse((response) => response.url().startsWith(hub.origin));
  await page.addScriptTag({ content: script });
  await connected;
  const curl = snippet(readme, 'events.onmessage', 'sh').split('\n').find((line) => line.startsWith('curl -d'));
  await execute('sh', ['-c', curl.replace(WRITTEN, hub.origin)]);
  await firstLine;
  assert.deepEqual(logged, ['hello']);
});

test('the Flask snippet publishes', async (t) => {
  const hub = await Hub.start(t, 'serve');
  const code = snippet(readme, '**Flask**', 'python').replaceAll(WRITTEN, hub.origin);
  const before = 'from flask import Flask\napp = Flask(__name__)\n';
  const after = '\nassert app.test_client().post("/orders").status_code == 204\n';
  await execute(PYTHON, ['-c', before + code + after]);
  assert.deepEqual(await history(hub, 'orders'), ['a new order']);
});

test('the Django snippet publishes', async (t) => {
  const hub = await Hub.start(t, 'serve');
  const code = snippet(readme, '**Django**', 'python').replaceAll(WRITTEN, hub.origin);
  const before = 'from types import SimpleNamespace\nsettings = SimpleNamespace(TIDINGS_KEY="key")\n';
  const after = '\nnotify(SimpleNamespace(pk=42), 3)\n';
  await execute(PYTHON, ['-c', before + code + after]);
  assert.deepEqual(await history(hub, 'user-42'), ['{"unread": 3}']);
});

test('the Node snippet publishes', async (t) => {
  const hub = await Hub.start(t, 'serve');
  const code = snippet(readme, '**Node**', 'js').replaceAll(WRITTEN, hub.origin);
  await execute(process.execPath, ['--input-type=module', '-e', code]);
  assert.deepEqual(await history(hub, 'chat'), ['hello']);
});
