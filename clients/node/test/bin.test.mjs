// The command `tidings` of the npm package: arguments, output, exit status and signals are those of the program.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { atEnd } from '../../../tests/lib/ending.mjs';
import { Journal, lines } from '../../../tests/lib/journal.mjs';
import { built } from '../../../tests/lib/program.mjs';

const COMMAND = fileURLToPath(new URL('../bin/tidings.js', import.meta.url));

function run(t, args, env = { TIDINGS_BIN: built('tidings') }) {
  const child = spawn(process.execPath, [COMMAND, ...args], { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  // The program as well, should the command have left it behind.
  atEnd(t, () => endGroup(child.pid));
  const printed = new Journal();
  for (const stream of [child.stdout, child.stderr]) lines(stream, (line) => printed.add(line));
  return { child, printed, ended: once(child, 'exit') };
}

function endGroup(pid) {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}

test('arguments, output and exit status pass through', async (t) => {
  const version = run(t, ['--version']);
  assert.deepEqual(await version.ended, [0, null]);
  assert.match(version.printed.entries.join(), /^tidings \d+\.\d+\.\d+/);
  const wrong = run(t, ['serve', '--no-such-flag']);
  assert.deepEqual(await wrong.ended, [2, null]);
  assert.match(wrong.printed.entries.join(), /--no-such-flag/);
});

test('a hub ends by the signal that the command receives', async (t) => {
  const hub = run(t, ['serve', '--listen', '127.0.0.1:0']);
  await hub.printed.until('the hub to serve', (all) => all.some((line) => /http:\/\/127\.0\.0\.1:\d+/.test(line)));
  hub.child.kill('SIGTERM');
  assert.deepEqual(await hub.ended, [0, null]);
});

test('a program that a signal killed is reported as such', async (t) => {
  const child = run(t, ['-c', 'kill -KILL $$'], { TIDINGS_BIN: '/bin/sh' });
  assert.deepEqual(await child.ended, [null, 'SIGKILL']);
});

test('without the package of the platform the command says what to do', async (t) => {
  const missing = run(t, ['--version'], { TIDINGS_BIN: '' });
  assert.deepEqual(await missing.ended, [127, null]);
  assert.match(missing.printed.entries.join(), /@tidings\/linux-\S+, which holds the program.*TIDINGS_BIN/);
  const wrong = run(t, ['--version'], { TIDINGS_BIN: '/no/such/program' });
  assert.deepEqual(await wrong.ended, [126, null]);
});
