// The pages of the hub itself: the live view, and refusals in a browser.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { test } from 'node:test';
import { inBrowsers, newPerson } from '../lib/browser.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';

const KEY = 'tk_a-key-that-may-do-everything';
const CONFIGURATION = `
private_topics = ["user-*"]
[[key]]
name = "all"
secret = "${KEY}"
publish = ["*"]
subscribe = ["*"]
`;

/** A hub with a key. */
async function hubWithKey(t, ...args) {
  const file = join(await folder(t), 'tidings.toml');
  writeFileSync(file, CONFIGURATION);
  return Hub.start(t, 'serve', '--config', file, ...args);
}

async function publish(hub, topic, body) {
  const headers = { Authorization: `Bearer ${KEY}` };
  assert.equal((await fetch(hub.url(`/topics/${topic}`), { method: 'POST', body, headers })).status, 200);
}

/** Waits until the live view shows an event with this data, and resolves with all shown events, newest first. */
async function shown(page, data) {
  const all = () => [...document.querySelectorAll('#events .data')].map((element) => element.textContent);
  await page.waitForFunction((data) => [...document.querySelectorAll('#events .data')].some((element) => element.textContent === data), {}, data);
  return page.evaluate(all);
}

const state = (page, words) => page.waitForFunction((words) => document.getElementById('state').textContent.includes(words), {}, words);

async function submit(page, form, field, text) {
  await page.type(`#${form} [name=${field}]`, text);
  await page.click(`#${form} button`);
}

inBrowsers('the pages of a hub', (browser, name) => {
  test(`in ${name} the live view is the first thing on a phone, and no input is cut`, async (t) => {
    const hubs = [await Hub.start(t, 'serve'), await hubWithKey(t)];
    const page = await newPerson(t, browser());
    await page.setViewport({ width: 390, height: 844 });
    for (const hub of hubs) {
      await page.goto(hub.origin);
      const boxes = await page.evaluate(() =>
        [...document.querySelectorAll('#state, input, button, #events')].map((element) => {
          const { left, right, top } = element.getBoundingClientRect();
          return { left, right, top, isCut: element.scrollWidth > element.clientWidth + 1 };
        }),
      );
      assert.ok(boxes.length >= 5, JSON.stringify(boxes));
      for (const { left, right, top, isCut } of boxes) {
        assert.ok(left >= 0 && right <= 390 && top < 844 / 2 && !isCut, JSON.stringify(boxes));
      }
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= 390));
    }
  });

  test(`in ${name} the page of a hub without keys watches at once, and publishes`, async (t) => {
    const hub = await Hub.start(t, 'serve');
    await hub.publish('news', '<b>before</b>');
    const page = await newPerson(t, browser());
    await page.goto(hub.origin);
    await shown(page, '<b>before</b>');
    await submit(page, 'publish', 'data', 'from the page');
    assert.deepEqual(await shown(page, 'from the page'), ['from the page', '<b>before</b>']);
  });

  test(`in ${name} a pasted key shows what it may receive, and is kept in memory only`, async (t) => {
    const hub = await hubWithKey(t);
    await publish(hub, 'user-42', 'private');
    await publish(hub, 'news', 'public');
    const page = await newPerson(t, browser());
    const addresses = [];
    page.on('request', (request) => addresses.push(request.url()));
    await page.goto(hub.origin);
    await submit(page, 'publish', 'data', 'refused first, ');
    await state(page, 'credential');
    assert.deepEqual(await page.$$('#events li'), [], 'an event was shown before it was requested');

    await page.click('#credential button');
    assert.deepEqual(await shown(page, 'public'), ['public']);
    await submit(page, 'credential', 'credential', 'tk_a-key-that-does-not-exist');
    await state(page, 'key');
    await submit(page, 'credential', 'credential', KEY);
    assert.deepEqual(await shown(page, 'private'), ['public', 'private']);
    await submit(page, 'publish', 'data', 'published with the key');
    await shown(page, 'refused first, published with the key');

    const kept = await page.evaluate(() => [
      location.href,
      document.cookie,
      JSON.stringify({ ...localStorage, ...sessionStorage }),
      ...[...document.querySelectorAll('input')].map((input) => input.value),
    ]);
    for (const text of [...addresses, ...kept]) assert.ok(!text.includes(KEY), text);
    for (const address of addresses) assert.ok(address.startsWith(hub.origin) || address.startsWith('data:'), address);
    await page.reload();
    assert.deepEqual(await page.$$('#events li'), []);
  });

  test(`in ${name} the view of a topic that needs a credential asks for it`, async (t) => {
    const hub = await hubWithKey(t, '--anonymous', 'false');
    await publish(hub, 'news', 'for readers with a key');
    const page = await newPerson(t, browser());
    await page.goto(hub.url('/topics/news'));
    await state(page, 'credential');
    await submit(page, 'credential', 'credential', KEY);
    assert.deepEqual(await shown(page, 'for readers with a key'), ['for readers with a key']);
  });

  test(`in ${name} the live view continues after a restart and misses nothing`, async (t) => {
    const hub = await Hub.start(t, 'serve', '--store', await folder(t), '--retry-millis', '300');
    await hub.publish('news', 'one');
    const page = await newPerson(t, browser());
    await page.goto(hub.url('/topics/news'));
    await shown(page, 'one');
    await hub.kill();
    await hub.startAgain();
    await hub.publish('news', 'two');
    assert.deepEqual(await shown(page, 'two'), ['two', 'one']);
  });

  test(`in ${name} a wrong address shows a page with advice`, async (t) => {
    const hub = await Hub.start(t, 'serve');
    const page = await newPerson(t, browser());
    const response = await page.goto(hub.url('/nowhere'));
    assert.equal(response.status(), 404);
    assert.match(await page.evaluate(() => document.body.textContent), /There is nothing at .\/nowhere.*GET/s);
    await Promise.all([page.waitForNavigation(), page.click('a')]);
    assert.equal(page.url(), `${hub.origin}/`);
  });

  test(`in ${name} a page opened from a file is refused, and the log has advice`, async (t) => {
    const hub = await Hub.start(t, 'serve');
    const file = join(await folder(t), 'page.html');
    writeFileSync(file, `<!doctype html><script>new EventSource('${hub.url('/stream?topic=a')}')</script>`);
    const page = await newPerson(t, browser());
    await page.goto(pathToFileURL(file).href);
    await hub.output.until('the refusal', (all) => all.some((line) => line.includes('opened from a file') && line.includes('python3 -m http.server')));
  });
});
