// Third-party servers: Redis, nginx, HAProxy, Caddy, Flask. Each has a free port and a folder of its own, and ends with its test.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { PYTHON } from './client.mjs';
import { atEnd } from './ending.mjs';
import { Journal, PATIENCE_MS, lines } from './journal.mjs';

const execute = promisify(execFile);
const EXAMPLE = fileURLToPath(new URL('../../examples/flask', import.meta.url));
// Debian installs nginx and HAProxy in a directory that is not in the PATH of ordinary users.
const PATH = `${process.env.PATH}:/usr/sbin`;
/** A port may be taken between its choice and its use; then another one is tried. */
const ATTEMPTS = 5;
/** How long a program may take until it serves, on a machine that does other things, too. */
const START_MS = 4 * PATIENCE_MS;

/** Starts a program on a free port and waits until it prints a line that matches; once more, with another port, if it ends instead. */
export async function start(t, command, isReady) {
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    const [program, args, options] = command(port);
    const printed = new Journal();
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
    for (const stream of [child.stdout, child.stderr]) lines(stream, (line) => printed.add(line));
    let ended = false;
    child.on('exit', () => {
      ended = true;
      printed.add('(ended)');
    });
    child.on('error', (error) => {
      ended = true;
      printed.add(String(error));
    });
    const end = async (signal = 'SIGTERM') => {
      if (ended) return;
      // A program that starts others, such as a reloader, has a process group of its own, and has ended when nobody can print any more.
      const exit = once(child, options?.detached ? 'close' : 'exit');
      if (options?.detached) process.kill(-child.pid, signal);
      else child.kill(signal);
      await exit;
    };
    atEnd(t, () => end());
    await printed.until(`${program} to be ready`, (all) => ended || all.some((line) => isReady.test(line)), START_MS);
    if (!ended) return { port, printed, end };
    if (attempt === ATTEMPTS) throw new Error(`${program} did not start: ${printed.entries.join('\n')}`);
  }
}

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

function folder(t) {
  const path = mkdtempSync(join(tmpdir(), 'tidings-'));
  atEnd(t, () => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** A real Redis server. */
export class Redis {
  /** An empty one on a free port, for the duration of the test `t`. */
  static async start(t) {
    const dir = folder(t);
    const args = (port) => ['--bind', '127.0.0.1', '--port', String(port), '--save', '', '--dir', dir];
    return new Redis(await start(t, (port) => ['redis-server', args(port)], /Ready to accept connections/));
  }

  constructor({ port, end }) {
    this.port = port;
    this.url = `redis://127.0.0.1:${port}`;
    /** Ends it before the test does. */
    this.end = end;
  }

  /** One command, as `redis-cli` sends it. */
  async cli(...args) {
    const { stdout } = await execute('redis-cli', ['-e', '-p', String(this.port), ...args]);
    return stdout.trim();
  }
}

/** The application of examples/flask; resolves with its origin. */
export async function flask(t, environment) {
  const options = { cwd: EXAMPLE, env: { ...process.env, ...environment, PYTHONDONTWRITEBYTECODE: '1' } };
  const args = (port) => ['-m', 'flask', '--app', 'app', 'run', '--port', String(port)];
  const { port } = await start(t, (port) => [PYTHON, args(port), options], /Running on/);
  return `http://127.0.0.1:${port}`;
}

/** nginx with the configuration of examples/flask in front of these two; resolves with its origin. */
export async function nginxOfFlask(t, application, hub) {
  const written = readFileSync(join(EXAMPLE, 'nginx.conf'), 'utf8');
  const { port } = await nginx(t, (port) =>
    written
      .replace('127.0.0.1:8000', `127.0.0.1:${port}`)
      .replace('http://127.0.0.1:5000', application)
      .replace('http://127.0.0.1:8080', hub),
  );
  return `http://127.0.0.1:${port}`;
}

/** nginx on a free port, with the result of `configure(port)` inside of `http { … }`. */
export function nginx(t, configure) {
  const dir = folder(t);
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${dir}/${name};`);
  const command = (port) => {
    const all = `daemon off; worker_processes 1; pid ${dir}/pid; events {} http { access_log off; ${paths.join(' ')}\n${configure(port)}}`;
    writeFileSync(join(dir, 'nginx.conf'), all);
    return ['nginx', ['-e', 'stderr', '-g', 'error_log stderr notice;', '-c', join(dir, 'nginx.conf')], { env: { ...process.env, PATH } }];
  };
  return start(t, command, /start worker process \d/);
}

/** HAProxy on a free port, with the configuration `configure(port)`. */
export function haproxy(t, configure) {
  const dir = folder(t);
  const command = (port) => {
    writeFileSync(join(dir, 'haproxy.cfg'), configure(port));
    return ['haproxy', ['-W', '-db', '-f', join(dir, 'haproxy.cfg')], { env: { ...process.env, PATH } }];
  };
  return start(t, command, /Loading success/);
}

/** Caddy on a free port, with the Caddyfile `configure(port)`. */
export function caddy(t, configure) {
  const dir = folder(t);
  const command = (port) => {
    writeFileSync(join(dir, 'Caddyfile'), configure(port));
    const env = { ...process.env, PATH, HOME: dir, XDG_CONFIG_HOME: dir, XDG_DATA_HOME: dir };
    return ['caddy', ['run', '--config', join(dir, 'Caddyfile'), '--adapter', 'caddyfile'], { env }];
  };
  return start(t, command, /serving initial configuration/);
}

/** Runs a piece of Python, with the environment of the tests, and resolves with what it printed. */
export async function python(code, environment = {}) {
  const { stdout } = await execute(PYTHON, ['-c', code], { env: { ...process.env, ...environment } });
  return stdout;
}

/** Starts a piece of Python that runs until the test ends; resolves with what it prints, once it has printed `ready`. */
export async function background(t, code, environment = {}) {
  const { printed } = await start(t, () => [PYTHON, ['-u', '-c', code], { env: { ...process.env, ...environment } }], /^ready$/);
  return printed;
}
