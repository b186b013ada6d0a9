// A program that a test controls: each command is a line, and is answered with a line.

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
  if (!existsSync(path)) throw new Error(`${path} is not there: cargo build -p tidings-testkit -p tidings-cli`);
  return path;
}

export class Program {
  #name;
  #process;
  #answers = new Journal();
  #answered = 0;

  /** Runs the binary for the duration of the test `t`. `observe` is truthy for lines that are not answers. */
  constructor(t, name, args, observe = () => false) {
    this.#name = name;
    this.#process = spawn(built(name), args, { stdio: ['pipe', 'pipe', 'inherit'] });
    atEnd(t, () => this.#end());
    this.#process.on('error', (error) => this.#answers.add(`failed ${error}`));
    this.#process.on('exit', () => this.#answers.add(`failed: ${name} ended`));
    lines(this.#process.stdout, (line) => observe(line) || this.#answers.add(line));
  }

  /** Sends a command and resolves with its answer. */
  tell(command) {
    this.#process.stdin.write(`${command}\n`);
    return this.answer();
  }

  /** The next answer; the first one needs no command. */
  async answer() {
    const wanted = this.#answered++;
    const answer = await this.#answers.until(`an answer of ${this.#name}`, (all) => all[wanted], 60_000);
    if (answer.startsWith('failed')) throw new Error(answer);
    return answer;
  }

  /** Ends it, also after a failure: it ends, with all its processes, at the end of its input. */
  async #end() {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = once(this.#process, 'exit');
    this.#process.stdin.end();
    await ended;
  }
}
