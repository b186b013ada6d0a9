// The process that holds the hub for development: `supervisor.js PLACE BINARY`. It listens on PLACE.sock, sends each process that
// connects the address of the hub, and ends with the hub when none is connected any more. The kernel closes the connection of a process
// that dies, however it dies.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createWriteStream, mkdirSync, rmSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import process from 'node:process';
import { setTimeout as pause } from 'node:timers/promises';

/** How long a hub is kept without a process: a server that reloads is back sooner. */
const UNUSED_MILLIS_MAX = 5000;
/** A lock this old was left by a process that was killed while it held it, which takes no time. */
const LOCK_MILLIS_MAX = 5000;
const LOOK_MILLIS = 10;
/** How much of what the hub printed an error repeats. */
const LOG_CHARACTERS_MAX = 500;

const CONFIGURATION = `listen = ["127.0.0.1:0"]
anonymous = false
drain_secs = 1

[[key]]
name = "development"
secret_env = "DEVELOPMENT_KEY"
publish = ["*"]
subscribe = ["*"]
admin = true

[[ticket_secret]]
id = "development"
secret_env = "DEVELOPMENT_TICKET_SECRET"
`;

/** The hub ends when its supervisor does, also when that is killed: then the input of the shell ends. */
const SHELL = '"$0" "$@" & hub=$!; exec 2>/dev/null; cat; kill "$hub"; wait "$hub"';

const [, , place, binary] = process.argv;
/** @type {Set<import('node:net').Socket>} */
const attached = new Set();
/** The line for processes that attach, once it is known. */
let line = '';
/** Whether that line is why there is no hub. Then one process has to read it before the supervisor ends. */
let failed = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let unused;

const server = createServer((socket) => {
  attached.add(socket);
  clearTimeout(unused);
  if (line) socket.write(line);
  socket.on('error', () => {});
  socket.resume();
  socket.on('close', () => {
    attached.delete(socket);
    waitForUse();
  });
  if (failed) end();
});

if (await listen()) {
  waitForUse();
  startHub();
}

/** Listens on the socket, and resolves with true; or with false if another supervisor does. */
async function listen() {
  const path = `${place}.sock`;
  await lock();
  try {
    if (await answers(path)) return false;
    rmSync(path, { force: true });
    await new Promise((resolve, reject) => server.once('error', reject).listen(path, () => resolve(undefined)));
    return true;
  } finally {
    rmdirSync(`${place}.lock`);
  }
}

/** Only the process that makes this directory may replace the socket. */
async function lock() {
  const path = `${place}.lock`;
  for (;;) {
    try {
      return mkdirSync(path);
    } catch (error) {
      if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'EEXIST') throw error;
      const { mtimeMs = Date.now() } = statSync(path, { throwIfNoEntry: false }) ?? {};
      if (Date.now() - mtimeMs > LOCK_MILLIS_MAX) rmSync(path, { recursive: true, force: true });
      else await pause(LOOK_MILLIS);
    }
  }
}

/** @param {string} path @returns {Promise<boolean>} */
function answers(path) {
  return new Promise((resolve) => {
    const socket = createConnection(path, () => resolve(true));
    socket.on('connect', () => socket.destroy());
    socket.on('error', () => resolve(false));
  });
}

function startHub() {
  const key = `tk_${randomBytes(24).toString('base64url')}`;
  const secret = randomBytes(32).toString('base64url');
  writeFileSync(`${place}.toml`, CONFIGURATION, { mode: 0o600 });
  const log = createWriteStream(`${place}.log`, { mode: 0o600 });
  // Its settings are those above, and its log names its address.
  const inherited = Object.entries(process.env).filter(([name]) => name !== 'RUST_LOG' && !name.startsWith('TIDINGS_'));
  const env = { ...Object.fromEntries(inherited), DEVELOPMENT_KEY: key, DEVELOPMENT_TICKET_SECRET: secret };
  const hub = spawn('sh', ['-c', SHELL, binary, 'serve', '--config', `${place}.toml`], { env, stdio: ['pipe', 'ignore', 'pipe'] });
  const output = /** @type {import('node:stream').Readable} */ (hub.stderr);
  let printed = '';
  output.setEncoding('utf8').on('data', (text) => {
    log.write(text);
    if (line) return;
    printed += text;
    const address = printed.match(/ url="http:\/\/(127\.0\.0\.1:\d+)"/)?.[1];
    if (address) send({ url: `http://:${key}@${address}`, ticketSecret: `development:${secret}` });
  });
  // Only the hub itself has this output open.
  output.on('close', () => {
    log.end();
    failed = !line;
    if (failed) send({ error: printed.slice(-LOG_CHARACTERS_MAX).trim() || `${binary} ended` });
    if (!failed || attached.size > 0) end();
  });
}

/** @param {object} message */
function send(message) {
  line = `${JSON.stringify(message)}\n`;
  for (const socket of attached) socket.write(line);
}

function waitForUse() {
  clearTimeout(unused);
  if (attached.size === 0) unused = setTimeout(end, UNUSED_MILLIS_MAX);
}

/** Removes the socket before the connections end, so that no process connects to a hub that ends. */
function end() {
  clearTimeout(unused);
  rmSync(`${place}.toml`, { force: true });
  server.close(() => process.exit());
  for (const socket of attached) socket.destroySoon();
}
