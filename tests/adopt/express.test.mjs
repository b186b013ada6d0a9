// An Express application with a login, and the change that pushes a private event to its user.

import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { applyChanges, pushesToItsUser, worksBefore } from '../lib/adoption.mjs';
import { BROWSERS } from '../lib/browser.mjs';
import { developmentEnvironment, projectDirectory } from '../lib/node-package.mjs';
import { start } from '../lib/service.mjs';

const APPLICATION = fileURLToPath(new URL('express', import.meta.url));

async function serve(t, directory) {
  const env = await developmentEnvironment(t);
  const { port } = await start(t, (port) => [process.execPath, ['app.mjs'], { cwd: directory, env: { ...env, PORT: port } }], /^http:/);
  return `http://127.0.0.1:${port}`;
}

for (const name of BROWSERS) {
  test(`the Express application works before the change in ${name}`, async (t) => {
    await worksBefore(t, name, await serve(t, projectDirectory(t, APPLICATION)));
  });

  test(`the Express application pushes to its user after \`npm install tidings\` and a few lines, in ${name}`, async (t) => {
    const directory = projectDirectory(t, APPLICATION);
    t.diagnostic(`${await applyChanges(join(directory, 'changes.diff'), directory)} changed lines, 1 command`);
    await pushesToItsUser(t, name, await serve(t, directory));
  });
}
