// examples/next: a page and a route handler of Next, with its development server, in both browsers.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { BROWSERS, POLLING, launch, newPerson } from '../lib/browser.mjs';
import { projectDirectory, serveNext } from '../lib/node-package.mjs';

const EXAMPLE = fileURLToPath(new URL('../../examples/next', import.meta.url));
const FILES = ['layout.jsx', 'messages.jsx', 'page.jsx', 'stream/route.js'];

test('the example has forty lines at most', () => {
  const lines = FILES.map((file) => readFileSync(join(EXAMPLE, 'app', file), 'utf8').trimEnd().split('\n').length);
  assert.ok(lines.reduce((sum, count) => sum + count) <= 40, String(lines));
});

test('a message that is sent in one browser is shown in both, and again after a reload', async (t) => {
  const origin = await serveNext(t, projectDirectory(t, EXAMPLE), '/', '/stream');
  const pages = [];
  for (const name of BROWSERS) {
    const page = await newPerson(t, await launch(t, name));
    const connected = page.waitForResponse((response) => new URL(response.url()).pathname === '/stream' && response.ok());
    await page.goto(origin);
    await connected;
    pages.push(page);
  }
  const shows = (page, ...texts) =>
    page.waitForFunction((texts) => JSON.stringify([...document.querySelectorAll('li')].map((item) => item.textContent)) === texts, POLLING, JSON.stringify(texts));
  for (const [place, page] of pages.entries()) {
    await page.type('input[name=text]', `from ${BROWSERS[place]}`);
    await page.keyboard.press('Enter');
    for (const other of pages) await shows(other, ...BROWSERS.slice(0, place + 1).map((name) => `from ${name}`));
  }
  await pages[0].reload();
  await shows(pages[0], ...BROWSERS.map((name) => `from ${name}`));
});
