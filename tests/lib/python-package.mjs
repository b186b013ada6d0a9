// Applications that use the package for Python as `pip install tidings` would leave it there.

import { execFileSync } from 'node:child_process';
import { cpSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { PYTHON } from './client.mjs';
import { folder } from './folder.mjs';
import { built } from './program.mjs';
import { start } from './service.mjs';

const SOURCE = fileURLToPath(new URL('../../clients/python/src', import.meta.url));

/** The environment of a program that finds the package, and no hub that runs already. */
function environment() {
  const env = { ...process.env, PYTHONPATH: SOURCE, PYTHONUNBUFFERED: '1', PYTHONDONTWRITEBYTECODE: '1', TIDINGS_BIN: built('tidings') };
  for (const name of ['TIDINGS_URL', 'TIDINGS_TOKEN', 'TIDINGS_TICKET_SECRET', 'TIDINGS_DEV']) delete env[name];
  return env;
}

/** A copy of the application in `source`, which exists during the test `t`. */
export async function copyOf(t, source) {
  const directory = await folder(t);
  cpSync(source, directory, { recursive: true });
  return directory;
}

/** Makes the tables of a Django application. */
export function migrate(directory) {
  execFileSync(PYTHON, ['manage.py', 'migrate', '-v0'], { cwd: directory, env: { ...environment(), TIDINGS_DEV: '0' } });
}

/** Runs Python in this directory with the arguments `command(port)` until the test ends; resolves with the origin of its server. */
export async function serve(t, directory, command, isReady, more = {}) {
  const options = { cwd: directory, detached: true };
  const env = { ...environment(), XDG_RUNTIME_DIR: await folder(t), ...more };
  const { port } = await start(t, (port) => [PYTHON, command(port), { ...options, env: { ...env, PORT: String(port) } }], isReady);
  return `http://127.0.0.1:${port}`;
}
