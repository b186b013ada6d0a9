// A Flask and a Django application with a login, and the changes that push a private event to their users.

import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ORDERS, applyChanges, pushesToItsUser, worksBefore } from '../lib/adoption.mjs';
import { inEachBrowser } from '../lib/browser.mjs';
import { copyOf, migrate, serve } from '../lib/python-package.mjs';

/** The applications: how they are run, and the number of their first order. */
const APPLICATIONS = {
  flask: { command: () => ['app.py'], isReady: /Running on/, first: 0 },
  django: {
    prepare: migrate,
    command: (port) => ['manage.py', 'runserver', `127.0.0.1:${port}`],
    isReady: /Starting development server/,
    first: 1,
  },
};
const inEach = inEachBrowser();

for (const [name, { prepare, command, isReady, first }] of Object.entries(APPLICATIONS)) {
  const source = fileURLToPath(new URL(name, import.meta.url));

  test(`the ${name} application works before the change`, async (t) => {
    const directory = await copyOf(t, source);
    prepare?.(directory);
    const origin = await serve(t, directory, command, isReady);
    await inEach(t, (t, browser, place) => worksBefore(t, browser, origin, first + place));
  });

  test(`the ${name} application pushes to its user after \`pip install tidings\` and a few lines`, async (t) => {
    const directory = await copyOf(t, source);
    t.diagnostic(`${await applyChanges(join(directory, 'changes.diff'), directory)} changed lines, 1 command`);
    prepare?.(directory);
    const origin = await serve(t, directory, command, isReady);
    await inEach(t, (t, browser, place) => pushesToItsUser(t, browser, origin, first + ORDERS * place));
  });
}
