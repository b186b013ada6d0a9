// Directories in which applications use the package for Node as `npm install` would leave it there, with the frameworks of tests/adopt.

import { cpSync, linkSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { atEnd } from './ending.mjs';
import { folder } from './folder.mjs';
import { built } from './program.mjs';
import { start } from './service.mjs';

const PACKAGE = fileURLToPath(new URL('../../clients/node', import.meta.url));
/** Below it Node and bundlers find the frameworks. */
const FRAMEWORKS = fileURLToPath(new URL('../adopt', import.meta.url));
/** The program of Next. */
export const NEXT = join(FRAMEWORKS, 'node_modules/next/dist/bin/next');
/** How long Next may compile a page on a machine that does other things, too. */
const COMPILING_MS = 180_000;

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
  installProgram(directory);
  return realpathSync(directory);
}

/** The package of this platform, with the built program: a bundler that followed it would fail. */
function installProgram(directory) {
  const name = `@tidings/${process.platform}-${process.arch}`;
  const program = join(directory, 'node_modules', name, 'bin/tidings');
  mkdirSync(dirname(program), { recursive: true });
  writeFileSync(join(directory, 'node_modules', name, 'package.json'), JSON.stringify({ name, version: '0.1.0' }));
  try {
    linkSync(built('tidings'), program);
  } catch {
    // The build is on another file system.
    cpSync(built('tidings'), program);
  }
}

/** The environment of an application that starts its own hub for development. */
export async function developmentEnvironment(t) {
  const env = { ...process.env, TIDINGS_BIN: built('tidings'), XDG_RUNTIME_DIR: await folder(t), NEXT_TELEMETRY_DISABLED: '1' };
  for (const name of ['NODE_ENV', 'TIDINGS_URL', 'TIDINGS_TOKEN', 'TIDINGS_TICKET_SECRET']) delete env[name];
  return env;
}

/** Runs Node in this directory, with a hub for development, until the test ends; resolves with the origin of its server. */
export async function serve(t, directory, command, isReady) {
  const env = await developmentEnvironment(t);
  // It is found in its package.
  delete env.TIDINGS_BIN;
  const run = (port) => [process.execPath, command(port), { cwd: directory, env: { ...env, PORT: String(port) } }];
  const { port } = await start(t, run, isReady);
  return `http://127.0.0.1:${port}`;
}

/** Runs the development server of Next; resolves with its origin once these paths are compiled, which takes longer than a browser waits. */
export async function serveNext(t, directory, ...paths) {
  const origin = await serve(t, directory, (port) => [NEXT, 'dev', '--hostname', '127.0.0.1', '--port', String(port)], /Ready in/);
  await compile(origin, paths);
  return origin;
}

/** Requests each of these paths, so that a development server has compiled them. */
export async function compile(origin, paths) {
  for (const path of paths) {
    const response = await fetch(origin + path, { redirect: 'manual', signal: AbortSignal.timeout(COMPILING_MS) });
    if (response.status >= 500) {
      // The page of the error holds its message, among much else.
      const page = await response.text();
      throw new Error(`${path} was answered ${response.status}: ${page.match(/"message":"[^"]*"/)?.[0] ?? page}`);
    }
    await response.body?.cancel();
  }
}
