// Directories in which applications use the package for Node as `npm install` would leave it there, with the frameworks of tests/adopt.

import { cpSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { atEnd } from './ending.mjs';
import { folder } from './folder.mjs';
import { built } from './program.mjs';

const PACKAGE = fileURLToPath(new URL('../../clients/node', import.meta.url));
/** Below it Node and bundlers find the frameworks. */
const FRAMEWORKS = fileURLToPath(new URL('../adopt', import.meta.url));

/** A directory with the package installed, and with the files of `source`, if one is given. */
export function projectDirectory(t, source) {
  const work = join(FRAMEWORKS, 'work');
  mkdirSync(work, { recursive: true });
  const directory = mkdtempSync(join(work, 'project-'));
  atEnd(t, () => rmSync(directory, { recursive: true, force: true }));
  if (source) cpSync(source, directory, { recursive: true });
  const { files } = JSON.parse(readFileSync(join(PACKAGE, 'package.json'), 'utf8'));
  for (const file of ['package.json', ...files.filter((name) => name !== 'types')]) {
    cpSync(join(PACKAGE, file), join(directory, 'node_modules/tidings', file), { recursive: true });
  }
  return realpathSync(directory);
}

/** The environment of an application that starts its own hub for development. */
export async function developmentEnvironment(t) {
  const env = { ...process.env, TIDINGS_BIN: built('tidings'), XDG_RUNTIME_DIR: await folder(t), NEXT_TELEMETRY_DISABLED: '1' };
  for (const name of ['NODE_ENV', 'TIDINGS_URL', 'TIDINGS_TOKEN', 'TIDINGS_TICKET_SECRET']) delete env[name];
  return env;
}
