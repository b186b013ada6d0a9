// The AI SDK: the application of docs/language-models.md, and the chat that `useChat` is made of.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { POLLING, inEachBrowser, newPerson } from '../lib/browser.mjs';
import { read, snippet } from '../lib/document.mjs';
import { atEnd } from '../lib/ending.mjs';
import { Journal } from '../lib/journal.mjs';
import { projectDirectory, serve } from '../lib/node-package.mjs';
import { Proxy } from '../lib/proxy.mjs';

const APPLICATION = snippet(read('docs/language-models.md'), 'Save this as `app.mjs`', 'js');
const ANSWER = 'You asked "why?", and this is the answer.';
const inEach = inEachBrowser();

/** What `useChat` does with React, with the state of React replaced. */
const PAGE = `
  import { AbstractChat, DefaultChatTransport } from 'ai';

  class State {
    status = 'ready';
    messages = [];
    pushMessage = (message) => { this.messages = [...this.messages, message]; };
    popMessage = () => { this.messages = this.messages.slice(0, -1); };
    replaceMessage = (index, message) => { this.messages = this.messages.with(index, this.snapshot(message)); };
    snapshot = (message) => structuredClone(message);
  }

  class Chat extends AbstractChat {}

  const id = new URLSearchParams(location.search).get('id');
  window.chat = new Chat({ id, state: new State(), transport: new DefaultChatTransport() });
  window.text = () => window.chat.lastMessage?.parts.map((part) => part.text ?? '').join('');
`;

/** A server that holds each request until the test lets it pass. */
async function gate(t) {
  const held = new Journal();
  let passed = 0;
  const server = http.createServer((request, response) => held.add({ pass: () => response.end() }));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  atEnd(t, () => {
    server.closeAllConnections();
    return new Promise((closed) => server.close(closed));
  });
  const pass = async () => {
    const next = await held.until('a request to hold', (all) => all[passed]);
    passed += 1;
    next.pass();
  };
  return { url: `http://127.0.0.1:${server.address().port}/`, pass };
}

/** Waits for the status of the chat and the text of its last message. */
function shows(page, status, text) {
  return page.waitForFunction((status, text) => window.chat?.status === status && window.text() === text, POLLING, status, text);
}

test('npm ai shows an answer as it comes, and all of it after a cut and after a reload', async (t) => {
  const words = await gate(t);
  const directory = projectDirectory(t);
  // The model waits in the middle of its answer.
  const pause = 'await setTimeout(50);';
  assert.ok(APPLICATION.includes(pause));
  writeFileSync(join(directory, 'app.mjs'), APPLICATION.replace(pause, `if (word === 'and ') await fetch('${words.url}');`));
  const stdin = { contents: PAGE, resolveDir: fileURLToPath(new URL('..', import.meta.url)) };
  mkdirSync(join(directory, 'public'));
  await build({ stdin, bundle: true, format: 'iife', outfile: join(directory, 'public/chat.js'), logLevel: 'error' });
  writeFileSync(join(directory, 'public/index.html'), '<!doctype html><title>Chat</title><script src="/chat.js"></script>');
  const origin = await serve(t, directory, () => ['app.mjs'], /^ready$/);
  const proxy = await Proxy.start(t, Number(new URL(origin).port));

  await inEach(t, async (t, browser, place) => {
    const page = await newPerson(t, browser);
    await page.goto(proxy.url(`/?id=chat-${place}`));
    const begun = 'You asked "why?", and ';
    await page.evaluate(() => void window.chat.sendMessage({ text: 'why?' }));
    await shows(page, 'streaming', begun);
    proxy.cut();
    await shows(page, 'error', begun);
    await page.evaluate(() => void window.chat.resumeStream());
    await shows(page, 'streaming', begun);
    assert.deepEqual(await page.evaluate(() => window.chat.messages.map((message) => message.role)), ['user', 'assistant']);

    await page.reload();
    await page.evaluate(() => void window.chat.resumeStream());
    await shows(page, 'streaming', begun);
    await words.pass();
    await shows(page, 'ready', ANSWER);

    await page.evaluate(() => window.chat.resumeStream());
    assert.equal(await page.evaluate(() => window.chat.status), 'ready');
    assert.equal(await page.evaluate(() => window.text()), ANSWER);
    assert.equal(await page.evaluate(() => window.chat.messages.length), 1);
  });
});
