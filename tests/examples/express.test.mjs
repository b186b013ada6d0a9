// examples/express: private notifications in both browsers, until their user logs out.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { POLLING, inEachBrowser, newPerson } from '../lib/browser.mjs';
import { projectDirectory, serve } from '../lib/node-package.mjs';
import { Stream } from '../lib/stream.mjs';

const EXAMPLE = fileURLToPath(new URL('../../examples/express', import.meta.url));
const inEach = inEachBrowser();

test('the example has forty lines at most', () => {
  assert.ok(readFileSync(`${EXAMPLE}/app.mjs`, 'utf8').trimEnd().split('\n').length <= 40);
});

test('notifications reach their user alone, on every page and after a reload, until the user logs out', async (t) => {
  const origin = await serve(t, projectDirectory(t, EXAMPLE), () => ['app.mjs'], /^ready$/);
  await inEach(t, async (t, browser, place) => {
    const names = [`Ann ${place}`, `Bob & <b> ${place}`];
    const logIn = async (user) => {
      const page = await newPerson(t, browser);
      await page.goto(`${origin}/login`);
      await page.type('input[name=user]', user);
      const connected = page.waitForResponse((response) => new URL(response.url()).pathname === '/stream' && response.ok());
      await page.keyboard.press('Enter');
      await connected;
      return page;
    };
    const [ann, bob] = [await logIn(names[0]), await logIn(names[1])];
    const send = (page, to, text) =>
      page.evaluate(async (body) => (await fetch('/notify', { method: 'POST', body: new URLSearchParams(body) })).status, { to, text });
    const shows = (page, ...texts) =>
      page.waitForFunction((texts) => JSON.stringify([...document.querySelectorAll('li')].map((item) => item.textContent)) === texts, POLLING, JSON.stringify(texts));

    assert.equal(await send(bob, names[0], 'hello <i>'), 204);
    assert.equal(await send(ann, names[1], 'hi'), 204);
    await shows(bob, `${names[0]}: hi`);
    await shows(ann, `${names[1]}: hello <i>`);
    await ann.reload();
    await shows(ann, `${names[1]}: hello <i>`);

    // Her stream ends when she logs out, and she gets no other.
    const Cookie = (await ann.cookies()).map(({ name, value }) => `${name}=${value}`).join('; ');
    const stream = await Stream.open(t, `${origin}/stream`, { Accept: 'text/event-stream', Cookie });
    await stream.receive(JSON.stringify({ from: names[1], text: 'hello <i>' }));
    assert.equal(await ann.evaluate(() => fetch('/logout', { method: 'POST' }).then(({ url }) => url)), `${origin}/login`);
    await stream.ended();
    assert.equal((await fetch(`${origin}/stream`, { headers: { Cookie }, redirect: 'manual' })).status, 302);
  });
});
