// A hub for development: one for each project directory, started by the first process that needs it and shared by all, such as those of
// a server that reloads. A supervisor (supervisor.js) holds it, and ends it when no process is attached any more.

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { lstatSync, mkdirSync, realpathSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { PLATFORM_PACKAGE, findBinary } from './binary.js';
import { TidingsError } from './error.js';

/** How long a hub may take to start. */
const START_MILLIS_MAX = 20_000;
/** The interval of looks at a supervisor that starts. */
const LOOK_MILLIS = 25;
const INSTEAD = 'Or set TIDINGS_URL to the address of a hub, http://:KEY@127.0.0.1:8080';

/** @typedef {{ url: string, ticketSecret: string }} DevelopmentHub */

/**
 * Attaches this process to the hub of its project directory, and starts that if necessary.
 *
 * @returns {Promise<{ hub: DevelopmentHub, ended: Promise<void> }>} the hub, and when it has ended
 */
export async function attach() {
  if (process.platform === 'win32') throw new TidingsError(`on Windows no hub is started for development. ${INSTEAD}`);
  const place = join(runtimeDirectory(), `node-${createHash('sha256').update(realpathSync(process.cwd())).digest('hex').slice(0, 16)}`);
  const deadline = performance.now() + START_MILLIS_MAX;
  for (let started = false; performance.now() < deadline; ) {
    const attached = await connect(`${place}.sock`);
    if (attached) {
      if (started) console.error(`tidings: started a hub for development at ${attached.hub.url.replace(/:[^:@/]*@/, ':***@')} (log: ${place}.log)`);
      return attached;
    }
    if (!started) supervise(place);
    started = true;
    await pause(LOOK_MILLIS);
  }
  throw new TidingsError(`the hub for development did not start; ${place}.log may say why. ${INSTEAD}`);
}

/** The directory of this user for sockets, which nobody else can read. */
function runtimeDirectory() {
  const { uid } = userInfo();
  const directory = process.env.XDG_RUNTIME_DIR ? join(process.env.XDG_RUNTIME_DIR, 'tidings') : join(tmpdir(), `tidings-${uid}`);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const found = lstatSync(directory);
  if (!found.isDirectory() || found.uid !== uid || (found.mode & 0o077) !== 0) {
    throw new TidingsError(`${directory} has to be a directory that is yours alone (mode 700), since it leads to the key of the hub for development`);
  }
  return directory;
}

/** @param {string} place */
function supervise(place) {
  const binary = findBinary();
  if (!binary) {
    throw new TidingsError(
      `the program tidings is not installed, so no hub can be started for development: it is neither in the package ${PLATFORM_PACKAGE}, nor in PATH, nor named by TIDINGS_BIN. ${INSTEAD}`,
    );
  }
  // Found by the path of this file, so that a bundler leaves it where it is.
  const script = join(dirname(fileURLToPath(import.meta.url)), 'supervisor.js');
  const run = 'Deno' in globalThis ? ['run', '--allow-all', script] : [script];
  const env = { ...process.env };
  // What debuggers and loaders put there is about the application.
  delete env.NODE_OPTIONS;
  const supervisor = spawn(process.execPath, [...run, place, binary], { cwd: '/', env, detached: true, stdio: 'ignore' });
  // Its failure is noticed by attempts to connect.
  supervisor.on('error', () => {});
  supervisor.unref();
}

/**
 * Attaches to the supervisor at this socket, if it is there: it sends one line when its hub is ready, and counts the connection.
 *
 * @param {string} path
 * @returns {Promise<{ hub: DevelopmentHub, ended: Promise<void> } | undefined>}
 */
function connect(path) {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path);
    const ended = new Promise((end) => socket.once('close', () => end(undefined)));
    // Nobody is there, or it has just ended.
    socket.on('error', () => {});
    ended.then(() => resolve(undefined));
    let text = '';
    socket.setEncoding('utf8');
    socket.on('data', (part) => {
      text += part;
      if (!text.endsWith('\n')) return;
      const { error, ...hub } = JSON.parse(text);
      if (error) return reject(new TidingsError(`the hub for development cannot start: ${error}`));
      socket.unref();
      resolve({ hub, ended });
    });
  });
}
