// Commands as people type them name port 8080, and hosts. They get a network of their own to have them in, mounts that are
// seen by nobody else, and processes of their own that all end with them.

import { execFile, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { dirname } from 'node:path';
import { built } from './program.mjs';
import { atEnd } from './ending.mjs';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));
const PATIENCE_MS = 300_000;
const ENTER = ['--net', '--mount', '--pid', '--fork', '--kill-child'];
const AS_ROOT = process.getuid() === 0 ? [] : ['--user', '--map-root-user'];

/** Whether this system lets us make networks. */
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
