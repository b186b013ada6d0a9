// An Express application with a login, and the change that pushes a private event to its user.

import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ORDERS, applyChanges, pushesToItsUser, worksBefore } from '../lib/adoption.mjs';
import { inEachBrowser } from '../lib/browser.mjs';
import { projectDirectory, serve } from '../lib/node-package.mjs';

const APPLICATION = fileURLToPath(new URL('express', import.meta.url));
const inEach = inEachBrowser();
const run = (t, directory) => serve(t, directory, () => ['app.mjs'], /^http:/);

test('the Express application works before the change', async (t) => {
  const origin = await run(t, projectDirectory(t, APPLICATION));
  await inEach(t, (t, browser, place) => worksBefore(t, browser, origin, place));
});

test('the Express application pushes to its user after `npm install tidings` and a few lines', async (t) => {
  const directory = projectDirectory(t, APPLICATION);
  t.diagnostic(`${await applyChanges(join(directory, 'changes.diff'), directory)} changed lines, 1 command`);
  const origin = await run(t, directory);
  await inEach(t, (t, browser, place) => pushesToItsUser(t, browser, origin, ORDERS * place));
});
