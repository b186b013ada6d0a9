// Real hubs: behind a listening socket that outlives them (crates/tidings-testkit/src/bin), or with their own socket.

import { Journal } from './journal.mjs';
import { Program, built } from './program.mjs';
import { start } from './service.mjs';

/** The line that a hub prints when it serves. */
const SERVES = /http:\/\/127\.0\.0\.1:\d+/;

/** Requests to a hub at an address. */
class Served {
  constructor(port) {
    this.port = port;
    this.origin = `http://127.0.0.1:${port}`;
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
}

/** The built `tidings`, which tests start and stop. */
export class Hub extends Served {
  #holder;
  /** The lines that the hub prints, over all its runs. */
  output;

  /** Starts `tidings` with these arguments for the duration of the test `t`. */
  static async start(t, ...args) {
    const output = new Journal();
    const observe = (line) => line.startsWith('hub ') && (output.add(line.slice(4)), true);
    const holder = new Program(t, 'tidings-hold', args, observe);
    const hub = new Hub(await listening(holder));
    hub.#holder = holder;
    hub.output = output;
    await hub.startAgain();
    return hub;
  }

  /** Starts the hub behind the same socket, after `kill` or `stop`. */
  async startAgain() {
    const started = await this.#holder.tell('start');
    this.pid = Number(started.split(' ').at(-1));
  }

  /** Upgrades the hub (SIGUSR2), and waits until the new process serves. */
  async upgrade() {
    const upgraded = await this.#holder.tell('upgrade');
    this.pid = Number(upgraded.split(' ').at(-1));
  }

  /** Kills the hub like a crash. The socket continues to accept; connections wait. */
  kill() {
    return this.#holder.tell('kill');
  }

  /** Stops the hub with SIGTERM, like an operator, and waits until it has ended. */
  stop() {
    return this.#holder.tell('stop');
  }
}

/** A hub with a listening socket of its own: when it is gone, connections are refused. */
export class Node extends Served {
  #run;
  #running;

  /** Starts `tidings serve` with further arguments on a free port, for the duration of the test `t`. */
  static async start(t, ...args) {
    const run = (port) => [built('tidings'), ['serve', '--listen', `127.0.0.1:${port}`, ...args]];
    const running = await start(t, run, SERVES);
    const node = new Node(running.port);
    node.#run = () => start(t, () => run(node.port), SERVES);
    node.#running = running;
    return node;
  }

  /** Restarts it on the same port, after `kill` or `stop`. */
  async startAgain() {
    this.#running = await this.#run();
  }

  /** Kills it like a crash. */
  kill() {
    return this.#running.end('SIGKILL');
  }

  /** Stops it like an operator, and waits until it has ended. */
  stop() {
    return this.#running.end('SIGTERM');
  }

  /** Whether events are accepted and delivered. */
  async isReady() {
    return (await fetch(this.url('/readyz'))).ok;
  }

  /** The number of its streams. */
  async subscribers() {
    const figures = await (await fetch(this.url('/metrics'))).text();
    return Number(figures.match(/^tidings_subscribers (\d+)$/m)[1]);
  }
}

/** Generations of a hub over one log, as with a log that outlives the process. */
export class Generations extends Served {
  #program;

  /** The first generation, for the duration of the test `t`. */
  static async start(t, drainSecs) {
    const program = new Program(t, 'tidings-generations', [String(drainSecs)]);
    const generations = new Generations(await listening(program));
    generations.#program = program;
    return generations;
  }

  /** Replaces the generation that serves by a new one, and waits until the old one is gone. */
  upgrade() {
    return this.#program.tell('succeed');
  }
}

async function listening(program) {
  return Number((await program.answer()).split(':').at(-1));
}
