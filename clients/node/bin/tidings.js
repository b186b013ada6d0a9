#!/usr/bin/env node
// Starts the program `tidings` of the package of this platform. Signals and the exit status pass through.

import { spawn } from 'node:child_process';
import process from 'node:process';
import { PLATFORM_PACKAGE, packagedBinary } from '../src/binary.js';

/** Those that end, reload or upgrade a hub. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'];

const program = process.env.TIDINGS_BIN || packagedBinary();
if (!program) {
  console.error(
    `tidings: the package ${PLATFORM_PACKAGE}, which holds the program for this machine, is not installed. Install without --omit=optional; if there is no such package, build the program and set TIDINGS_BIN to its path.`,
  );
  process.exit(127);
}

const args = process.argv.slice(2);
// Node 22.15 can become the program; before that it waits for it.
if ('execve' in process) /** @type {any} */ (process).execve(program, [program, ...args], process.env);

const child = spawn(program, args, { stdio: 'inherit' });
for (const signal of SIGNALS) {
  process.on(signal, () => {
    // A terminal sends these two to the program as well.
    if (process.stdin.isTTY && ['SIGINT', 'SIGQUIT'].includes(signal)) return;
    child.kill(/** @type {NodeJS.Signals} */ (signal));
  });
}
child.on('error', (error) => {
  console.error(`tidings: ${program} cannot be started: ${error.message}`);
  process.exit(126);
});
child.on('exit', (code, signal) => {
  if (!signal) process.exit(code ?? 1);
  for (const name of SIGNALS) process.removeAllListeners(name);
  process.kill(process.pid, signal);
});
