// WebKit as Debian packages it (WebKitGTK), driven over WebDriver, in a display of its own.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { atEnd } from './ending.mjs';
import { PATIENCE_MS } from './journal.mjs';

const POLLING_MS = 50;

/** Starts a program that ends with the test `t`. */
function run(t, program, args, more) {
  const started = spawn(program, args, { stdio: ['ignore', 'pipe', 'ignore'], ...more });
  const ended = once(started, 'exit');
  atEnd(t, () => started.kill() && ended);
  return started;
}

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** A tab of the browser. Commands go to one tab at a time, so they must not overlap. */
class Tab {
  #call;
  #handle;

  constructor(call, handle) {
    this.#call = call;
    this.#handle = handle;
  }

  async #command(method, path, body) {
    await this.#call('POST', '/window', { handle: this.#handle });
    return this.#call(method, path, body);
  }

  goto(url) {
    return this.#command('POST', '/url', { url });
  }

  goBack() {
    return this.#command('POST', '/back', {});
  }

  close() {
    return this.#command('DELETE', '/window');
  }

  /** The result of a function in the page. */
  evaluate(find, ...args) {
    return this.#command('POST', '/execute/sync', { script: `return (${find})(...arguments)`, args });
  }

  /** Waits until a function in the page is true. */
  async waitForFunction(find, _, ...args) {
    const end = performance.now() + PATIENCE_MS;
    while (!(await this.evaluate(find, ...args))) {
      if (performance.now() > end) throw new Error(`waited ${PATIENCE_MS} ms for ${find}`);
      await pause(POLLING_MS);
    }
  }
}

/** A browser with an empty profile for the duration of the test `t`; returns a function that opens a tab. */
export async function launchWebKit(t) {
  const screen = run(t, 'Xvfb', ['-displayfd', '1', '-screen', '0', '800x600x24', '-nolisten', 'tcp']);
  const [display] = await once(screen.stdout, 'data');
  const port = await freePort();
  // No sandbox: in a container and in CI the tests run as root.
  const env = { ...process.env, DISPLAY: `:${String(display).trim()}`, WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS: '1', WEBKIT_DISABLE_COMPOSITING_MODE: '1' };
  run(t, 'WebKitWebDriver', [`--port=${port}`], { env });

  async function call(method, path, body) {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method, body: body && JSON.stringify(body) });
    const { value } = await response.json();
    if (!response.ok) throw new Error(`${method} ${path} was answered ${JSON.stringify(value)}`);
    return value;
  }

  const end = performance.now() + PATIENCE_MS;
  while (!(await call('GET', '/status').catch(() => undefined))?.ready) {
    if (performance.now() > end) throw new Error(`WebKitWebDriver was not ready within ${PATIENCE_MS} ms`);
    await pause(POLLING_MS);
  }
  const { sessionId } = await call('POST', '/session', { capabilities: { alwaysMatch: {} } });
  const session = (method, path, body) => call(method, `/session/${sessionId}${path}`, body);
  atEnd(t, () => session('DELETE', ''));
  let first = await session('GET', '/window');
  return async () => {
    const handle = first ?? (await session('POST', '/window/new', { type: 'tab' })).handle;
    first = undefined;
    return new Tab(session, handle);
  };
}
