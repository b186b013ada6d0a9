// examples/express: private notifications in both browsers, until their user logs out.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { BROWSERS, launch, newPerson } from '../lib/browser.mjs';
import { developmentEnvironment, projectDirectory } from '../lib/node-package.mjs';
import { start } from '../lib/service.mjs';

const EXAMPLE = fileURLToPath(new URL('../../examples/express', import.meta.url));

test('the example has forty lines at most', () => {
  assert.ok(readFileSync(`${EXAMPLE}/app.mjs`, 'utf8').split('\n').length <= 41);
});

for (const name of BROWSERS) {
  test(`notifications reach their user alone, on every page and after a reload, in ${name}`, async (t) => {
    const env = await developmentEnvironment(t);
    const directory = projectDirectory(t, EXAMPLE);
    const { port } = await start(t, (port) => [process.execPath, ['app.mjs'], { cwd: directory, env: { ...env, PORT: port } }], /^ready$/);
    const origin = `http://127.0.0.1:${port}`;
    const browser = await launch(t, name);
    const logIn = async (user) => {
      const page = await newPerson(t, browser);
      await page.goto(`${origin}/login`);
      await page.type('input[name=user]', user);
      const connected = page.waitForResponse((response) => new URL(response.url()).pathname === '/stream' && response.ok());
      await page.keyboard.press('Enter');
      await connected;
      return page;
    };
    const [ann, bob] = [await logIn('Ann'), await logIn('Bob & <b>')];
    const send = (page, to, text) =>
      page.evaluate(async (body) => (await fetch('/notify', { method: 'POST', body: new URLSearchParams(body) })).status, { to, text });
    const shows = (page, ...texts) =>
      page.waitForFunction((texts) => JSON.stringify([...document.querySelectorAll('li')].map((item) => item.textContent)) === texts, { polling: 50 }, JSON.stringify(texts));

    assert.equal(await send(bob, 'Ann', 'hello <i>'), 204);
    assert.equal(await send(ann, 'Bob & <b>', 'hi'), 204);
    await shows(bob, 'Ann: hi');
    await shows(ann, 'Bob & <b>: hello <i>');
    await ann.reload();
    await shows(ann, 'Bob & <b>: hello <i>');

    // Her stream ends when she logs out, and the page gets no other.
    const revoked = ann.evaluate(() => fetch('/logout', { method: 'POST' }).then(({ url }) => url));
    assert.equal(await revoked, `${origin}/login`);
    assert.equal((await fetch(`${origin}/stream`, { redirect: 'manual' })).status, 302);
  });
}
