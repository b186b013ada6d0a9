// Libraries for pages whose parts come from the server: what a stream brings is put into the page, unchanged, and after a cut nothing
// is missing.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { POLLING, inEachBrowser, newPerson } from '../lib/browser.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';
import { Proxy } from '../lib/proxy.mjs';
import { serve } from '../lib/site.mjs';

const inEach = inEachBrowser();
const read = (path) => readFileSync(fileURLToPath(new URL(`../${path}`, import.meta.url)), 'utf8');

/** Waits until exactly these items are in the list of the page, in this order. */
function shows(page, ...items) {
  const same = (items) => JSON.stringify([...document.querySelectorAll('#orders > li')].map((item) => item.textContent)) === items;
  return page.waitForFunction(same, POLLING, JSON.stringify(items)).catch(async (error) => {
    const body = await page.evaluate(() => document.body.innerHTML);
    throw new Error(`the page never showed ${JSON.stringify(items)} but ${body}`, { cause: error });
  });
}

/** Opens the page and waits until its stream is open; resolves with the request of the stream. */
async function open(page, url) {
  const isStream = (response) => new URL(response.url()).pathname === '/stream' && response.request().method() === 'GET';
  const opened = page.waitForResponse(isStream);
  await page.goto(url);
  const response = await opened;
  assert.equal(response.status(), 200);
  return response.request();
}

/** Cuts all connections, and publishes an event before the page can be back. */
async function whileAway(proxy, publish) {
  const { connections } = proxy;
  proxy.pause();
  proxy.cut();
  await publish();
  await proxy.moreConnectionsThan(connections);
  proxy.resume();
}

test('htmx.org 4 swaps events without a type, pauses while hidden, and misses nothing', async (t) => {
  const content = (response, request) => `<!doctype html><title>htmx</title>
    <script src="/htmx.js"></script><script src="/hx-sse.js"></script>
    <ul id="orders" hx-sse:connect="/stream${new URL(request.url, 'http://page').search}" hx-swap="beforeend"></ul>
    <script>
      window.notes = [];
      document.body.addEventListener('note', (event) => window.notes.push(event.detail.data));
      window.hide = (hidden) => {
        Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
        document.dispatchEvent(new Event('visibilitychange'));
      };
    </script>`;
  const site = await serve(t, {
    '/': content,
    '/htmx.js': read('node_modules/htmx.org-4/dist/htmx.min.js'),
    '/hx-sse.js': read('node_modules/htmx.org-4/dist/ext/hx-sse.min.js'),
  });
  const hub = await Hub.start(t, 'serve', '--upstream', site, '--retry-millis', '300');
  const proxy = await Proxy.start(t, hub.port);
  await inEach(t, async (t, browser, place) => {
    const topic = `orders-${place}`;
    const page = await newPerson(t, browser);
    const request = await open(page, proxy.url(`/?topic=${topic}`));
    assert.equal(request.headers().accept, 'text/html, text/event-stream');

    await hub.publish(topic, '<li>one</li>');
    await hub.publish(topic, '<li>not swapped</li>', { type: 'note' });
    await hub.publish(topic, '<li>\ntwo\n</li>');
    await shows(page, 'one', '\ntwo\n');
    assert.deepEqual(await page.evaluate(() => window.notes), ['<li>not swapped</li>']);

    await whileAway(proxy, () => hub.publish(topic, '<li>while away</li>'));
    await shows(page, 'one', '\ntwo\n', 'while away');

    await page.evaluate(() => window.hide(true));
    const isAlone = async (topic) => {
      const summary = await fetch(`/topics/${topic}`, { headers: { Accept: 'application/json' } });
      return (await summary.json()).subscribers === 0;
    };
    await page.waitForFunction(isAlone, POLLING, topic);
    await hub.publish(topic, '<li>while hidden</li>');
    await page.evaluate(() => window.hide(false));
    await shows(page, 'one', '\ntwo\n', 'while away', 'while hidden');
  });
});

/**
 * Two versions: what npm has is from before 1.0, where events have other names, and a page does not come back after the end of a response,
 * whatever its options are.
 */
const DATASTAR = {
  '@starfederation/datastar': {
    script: 'node_modules/@starfederation/datastar/dist/datastar.js',
    onLoad: 'data-on-load',
    comesBack: false,
    elements: ['datastar-merge-fragments', 'mergeMode', 'fragments'],
    signals: 'datastar-merge-signals',
  },
  starhtml: {
    script: '.cache/apart/starhtml/starhtml/static/js/datastar-core.js',
    onLoad: 'data-init',
    comesBack: true,
    elements: ['datastar-patch-elements', 'mode', 'elements'],
    signals: 'datastar-patch-signals',
  },
};

for (const [name, { script, onLoad, comesBack, elements, signals }] of Object.entries(DATASTAR)) {
  test(`Datastar, as it is in ${name}, patches a page of another origin, and misses nothing`, async (t) => {
    const hub = await Hub.start(t, 'serve', '--retry-millis', '300', '--store', await folder(t));
    const proxy = await Proxy.start(t, hub.port);
    const content = (response, request) => `<!doctype html><title>Datastar</title>
      <script>
        document.addEventListener('datastar-sse', ({ detail }) => (window.isFinished ||= detail.type === 'finished'));
      </script>
      <script type="module" src="/datastar.js"></script>
      <body data-signals="{unread: 3}">
      <b data-text="$unread"></b>
      <ul id="orders" ${onLoad}="@get('${proxy.url(`/stream${new URL(request.url, 'http://page').search}`)}', {retry: 'always'})"></ul>`;
    const site = await serve(t, { '/': content, '/datastar.js': read(script) });
    const [type, mode, field] = elements;
    const append = (topic, ...lines) =>
      hub.publish(topic, ['selector #orders', `${mode} append`, ...lines.map((line) => `${field} ${line}`)].join('\n'), { type });
    await inEach(t, async (t, browser, place) => {
      const topic = `orders-${place}`;
      const page = await newPerson(t, browser);
      const request = await open(page, `${site}/?topic=${topic}`);
      assert.equal(request.headers()['datastar-request'], 'true');
      assert.equal(new URL(request.url()).searchParams.get('datastar'), '{"unread":3}');

      await append(topic, '<li>one</li>');
      await append(topic, '<li>', 'two', '</li>');
      await shows(page, 'one', '\ntwo\n');
      await whileAway(proxy, () => append(topic, '<li>while away</li>'));
      await shows(page, 'one', '\ntwo\n', 'while away');
      await hub.publish(topic, 'signals {unread: 4}', { type: signals });
      await page.waitForFunction(() => document.querySelector('b').textContent === '4', POLLING);

      await hub.stop();
      await hub.startAgain();
      if (!comesBack) return page.waitForFunction(() => window.isFinished, POLLING);
      await append(topic, '<li>after the restart</li>');
      await shows(page, 'one', '\ntwo\n', 'while away', 'after the restart');
    });
  });
}
