// What the pages of the site say to readers who are in trouble, or write a page: commands and pages are run as they are written there.
// Only the ports differ.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { suite, test } from 'node:test';
import { promisify } from 'node:util';
import { forSuite, newPerson } from '../lib/browser.mjs';
import { blocks, read, snippet } from '../lib/document.mjs';
import { Hub } from '../lib/hub.mjs';
import { serve } from '../lib/site.mjs';

const HUB = 'http://127.0.0.1:8080';
/** The end of a command that watches a stream. */
const WATCHED = 28;

/** Runs a block of shell as a reader would; resolves with what it printed. */
async function shell(code, origin) {
  const run = promisify(execFile)('bash', ['-c', code.replaceAll(HUB, origin)], { encoding: 'utf8' });
  const { stdout, code: status } = await run.catch((error) => error);
  assert.ok([undefined, WATCHED].includes(status), `${code} ended with ${status}`);
  return stdout;
}

/** What each command of docs/troubleshoot.md prints with a hub that is as it should be, in the order of the page. */
const PRINTED = [
  /^HTTP\/1\.1 200 OK/,
  /"id":[^]*\ndata: test\n/,
  /"topic":"chat"[^]*"data":"test"/,
  /content-type: text\/event-stream[^]*\nretry: \d+\n/i,
  /^1\.1\n$/,
  /^access-control-allow-origin: http:\/\/localhost:8000/i,
  /other\.example\.com/,
  /^:.*\nretry: \d+\n/,
  /content-type: text\/event-stream/i,
];

test('every command of docs/troubleshoot.md shows what it should of a hub that works', async (t) => {
  const hub = await Hub.start(t, 'serve', '--allow-origin', 'http://localhost:8000');
  const all = blocks(read('docs/troubleshoot.md')).filter(({ language, code }) => language === 'sh' && !code.startsWith('python3'));
  assert.equal(all.length, PRINTED.length);
  // No event comes later.
  for (const [at, { code }] of all.entries()) {
    assert.match(await shell(code.replace(/--max-time \d+/, '--max-time 1'), hub.origin), PRINTED[at], code);
  }
});

suite('in a browser', () => {
  const browser = forSuite('chromium');

  test('the page of docs/browsers.md shows messages, typed events and gaps, and resumes', async (t) => {
    const document = read('docs/browsers.md');
    const hub = await Hub.start(t, 'serve', '--retry-millis', '300');
    await hub.publish('chat', 'before');
    const origin = await serve(t, { '/events.html': snippet(document, 'Save it as', 'html').replaceAll(HUB, hub.origin) });
    const page = await newPerson(t, browser());
    await page.goto(`${origin.replace('127.0.0.1', 'localhost')}/events.html`);
    const shown = (text) => page.waitForFunction((text) => document.getElementById('log').textContent.includes(text), {}, text);
    await shown('message: before');
    await shell(snippet(document, 'publish one event of each kind', 'sh'), hub.origin);
    await shown('message: hello');
    await shown('paid: 17');
    await hub.kill();
    await hub.startAgain();
    await shown('some events are gone');
  });
});
