// A Next application with a login, and the change that pushes a private event to its user.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ORDERS, applyChanges, person, pushesToItsUser, worksBefore } from '../lib/adoption.mjs';
import { eavesdrop, inEachBrowser, opened } from '../lib/browser.mjs';
import { projectDirectory, serveNext } from '../lib/node-package.mjs';
import { Visitor } from '../lib/visitor.mjs';

const APPLICATION = fileURLToPath(new URL('next', import.meta.url));
const PATHS = ['/login', '/', '/orders/0/ship'];
const inEach = inEachBrowser();

/** Also without a reload, since Next shows the page after the login in the same document. */
async function pushesAfterLogin(t, browser, origin, number) {
  const cleo = await person(t, browser, origin, 'Cleo', eavesdrop);
  await opened(cleo.page, 1);
  const lamp = `lamp ${number}`;
  await (await Visitor.logIn(origin, 'Cleo')).submit('/', { item: lamp });
  assert.equal((await (await Visitor.logIn(origin, 'shop')).post(`/orders/${number}/ship`)).status, 204);
  await cleo.shows(`${lamp}: shipped`);
}

test('a Next application and the change', async (t) => {
  const directory = projectDirectory(t, APPLICATION);

  await t.test('works before the change', async (t) => {
    const origin = await serveNext(t, directory, ...PATHS);
    await inEach(t, (t, browser, place) => worksBefore(t, browser, origin, place));
  });

  // In the same directory, where Next finds what it has compiled before.
  await t.test('pushes to its user after `npm install tidings` and a few lines', async (t) => {
    t.diagnostic(`${await applyChanges(join(directory, 'changes.diff'), directory)} changed lines, 1 command`);
    const origin = await serveNext(t, directory, ...PATHS, '/stream');
    await inEach(t, async (t, browser, place) => {
      const first = (ORDERS + 1) * place;
      await pushesToItsUser(t, browser, origin, first);
      await pushesAfterLogin(t, browser, origin, first + ORDERS);
    });
  });
});
