// A third-party client in a process of its own, which prints what it receives (tests/clients).

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { atEnd } from './ending.mjs';
import { Journal, lines } from './journal.mjs';

export const PYTHON = fileURLToPath(new URL('../.cache/python/bin/python', import.meta.url));

/** What tests/setup has built of tests/clients/rust. */
const RUST = fileURLToPath(new URL('../.cache/clients/debug/', import.meta.url));

/** The command that runs a client on a URL: a script, or `rust/NAME`. */
export function command(client) {
  if (client.startsWith('rust/')) return [join(RUST, client.slice('rust/'.length))];
  const script = fileURLToPath(new URL(`../clients/${client}`, import.meta.url));
  return script.endsWith('.py') ? [PYTHON, script] : [process.execPath, script];
}

export class Client {
  #process;
  /** What the client printed: `{ open: true }`, and events as `{ type, id, data }`. */
  received = new Journal();

  /** Runs the client on `url`, with further arguments, for the duration of the test `t`. */
  constructor(t, client, url, ...more) {
    const [program, ...args] = command(client);
    this.#process = spawn(program, [...args, url, ...more], { stdio: ['ignore', 'pipe', 'pipe'] });
    atEnd(t, () => this.end());
    lines(this.#process.stdout, (line) => this.received.add(JSON.parse(line)));
    // Shown when a wait for this client fails: some report every cut.
    lines(this.#process.stderr, (line) => this.received.add({ stderr: line }));
    this.#process.on('error', (error) => this.received.add({ failed: String(error) }));
    this.#process.on('exit', (code, signal) => this.received.add({ ended: code ?? signal }));
  }

  /** The events received so far. */
  get events() {
    return this.received.entries.filter((entry) => entry.type);
  }

  opened() {
    return this.received.until('the client to connect', (all) => all.some((entry) => entry.open));
  }

  /** Resolves with all events received, as soon as one has this data. */
  async upTo(data) {
    await this.received.until(`an event with the data ${JSON.stringify(data)}`, (all) =>
      all.some((entry) => entry.data === data || 'ended' in entry || 'failed' in entry),
    );
    return this.events;
  }

  async end() {
    if (this.#process.pid === undefined || this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = once(this.#process, 'exit');
    this.#process.kill();
    await ended;
  }
}
