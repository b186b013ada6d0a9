// An axum application with a login, and the change that pushes an event to its user.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { CHANGED_LINES_MAX, ORDERS, pushesToItsUser, worksBefore } from '../lib/adoption.mjs';
import { inEachBrowser } from '../lib/browser.mjs';
import { built } from '../lib/program.mjs';
import { start } from '../lib/service.mjs';

const inEach = inEachBrowser();
const SERVES = /http:\/\/127\.0\.0\.1:\d+/;

/** Runs one of the two; resolves with its origin. */
async function application(t, name) {
  const { port } = await start(t, (port) => [built(`tidings-adopt-axum-${name}`), [], { env: { ...process.env, PORT: port } }], SERVES);
  return `http://127.0.0.1:${port}`;
}

test('the axum application works before the change', async (t) => {
  const origin = await application(t, 'before');
  await inEach(t, (t, browser, place) => worksBefore(t, browser, origin, place));
});

test('the axum application pushes to its user after the change', async (t) => {
  const origin = await application(t, 'after');
  await inEach(t, (t, browser, place) => pushesToItsUser(t, browser, origin, ORDERS * place));
});

test('the change to the axum application is six lines, with that of its dependencies, and removes none', () => {
  const text = (path) => readFileSync(fileURLToPath(new URL(`axum/${path}`, import.meta.url)), 'utf8').split('\n');
  const [before, after] = [text('src/before.rs'), text('src/after.rs')];
  let next = 0;
  const added = after.filter((line) => line !== before[next] || ++next === 0);
  assert.equal(next, before.length, `a line was removed or changed: ${before[next]}`);
  const dependencies = text('Cargo.toml').filter((line) => line.endsWith('# the change'));
  assert.equal(dependencies.length, 1);
  assert.ok(added.length > 0 && added.length + dependencies.length <= CHANGED_LINES_MAX, added.join('\n'));
});
