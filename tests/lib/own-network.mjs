// Commands of the documents use port 8080 and host names. They run in a network, a mount namespace and a process namespace of their
// own, which end with them.

import { execFile, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { dirname } from 'node:path';
import { built } from './program.mjs';
import { atEnd } from './ending.mjs';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));
const PATIENCE_MS = 300_000;
const ENTER = ['--net', '--mount', '--pid', '--fork', '--kill-child'];
const AS_ROOT = process.getuid() === 0 ? [] : ['--user', '--map-root-user'];

/** Whether this system permits network namespaces. */
export function isPermitted() {
  return spawnSync('unshare', [...AS_ROOT, ...ENTER, 'true']).status === 0;
}

/** Runs a script of tests/stories with bash, from the top of the repository; resolves with what it printed. */
export function run(t, script, environment = {}) {
  const story = fileURLToPath(new URL(`../stories/${script}`, import.meta.url));
  const args = [...AS_ROOT, ...ENTER, 'bash', '-euc', 'ip link set lo up; exec bash "$0"', story];
  const env = { ...process.env, PATH: `${dirname(built('tidings'))}:${process.env.PATH}`, ...environment };
  return new Promise((resolve, reject) => {
    const child = execFile('unshare', args, { cwd: REPOSITORY, env, timeout: PATIENCE_MS }, (error, out, err) => {
      if (error) reject(new Error(`${script} failed (${error.code ?? error.signal}):\n${out}\n${err}`));
      else resolve(out);
    });
    atEnd(t, () => child.kill());
  });
}
