// A real hub behind a listening socket that outlives it (crates/tidings-testkit/src/bin/hold.rs).

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { atEnd } from './ending.mjs';
import { Journal, lines } from './journal.mjs';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));

/** The built binary of this name: `make test` builds it. */
export function built(name) {
  const path = join(process.env.CARGO_TARGET_DIR ?? join(REPOSITORY, 'target'), 'debug', name);
  if (!existsSync(path)) throw new Error(`${path} is not there; make build-tests`);
  return path;
}

export class Hub {
  #process;
  #answers = new Journal();
  #told = 0;
  /** What the hub prints, line by line, over all its lives. */
  output = new Journal();

  /** Starts `tidings` with these arguments for the duration of the test `t`. */
  static async start(t, ...args) {
    const hub = new Hub();
    hub.#process = spawn(built('tidings-hold'), args, { stdio: ['pipe', 'pipe', 'inherit'] });
    atEnd(t, () => hub.end());
    hub.#process.on('error', (error) => hub.#answers.add(`failed ${error}`));
    hub.#process.on('exit', () => hub.#answers.add('failed: tidings-hold ended'));
    lines(hub.#process.stdout, (line) => {
      if (line.startsWith('hub ')) hub.output.add(line.slice(4));
      else hub.#answers.add(line);
    });
    const listening = await hub.#answer();
    hub.port = Number(listening.split(':').at(-1));
    hub.origin = `http://127.0.0.1:${hub.port}`;
    await hub.startAgain();
    return hub;
  }

  /** Starts the hub behind the same socket, after `kill` or `stop`. */
  async startAgain() {
    const started = await this.#tell('start');
    this.pid = Number(started.split(' ').at(-1));
  }

  /** Ends the hub as a crash does. The socket goes on accepting; connections wait. */
  kill() {
    return this.#tell('kill');
  }

  /** Ends the hub as an operator does, with SIGTERM, and waits for its own end. */
  stop() {
    return this.#tell('stop');
  }

  url(path) {
    return this.origin + path;
  }

  /** Publishes, and resolves with the hub's reply once the event is in the log. */
  async publish(topic, data, query = {}) {
    const url = this.url(`/topics/${topic}?${new URLSearchParams(query)}`);
    const response = await fetch(url, { method: 'POST', body: data });
    if (!response.ok) throw new Error(`${url} was answered ${response.status}: ${await response.text()}`);
    return response.json();
  }

  /** Ends everything, also after a failure: the holder kills its hub at the end of its input. */
  async end() {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = once(this.#process, 'exit');
    this.#process.stdin.end();
    await ended;
  }

  async #tell(command) {
    this.#process.stdin.write(`${command}\n`);
    return this.#answer();
  }

  async #answer() {
    const wanted = this.#told++;
    const answer = await this.#answers.until('an answer of tidings-hold', (all) => all[wanted], 60_000);
    if (answer.startsWith('failed')) throw new Error(answer);
    return answer;
  }
}
