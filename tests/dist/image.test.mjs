// The image of dist/, unpacked and run in namespaces as a container engine would: its own process, mount and network namespaces, a root
// that is read-only, the user of the image, and the program as process 1.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';

import { atEnd } from '../lib/ending.mjs';
import { folder } from '../lib/folder.mjs';
import { DIST, obstacle } from './machine.mjs';

const PATIENCE_MS = 30_000;
const KEY = 'tk_a-key-for-the-container-of-a-test';
const CONFIGURATION = `[[key]]\nname = "app"\nsecret = "${KEY}"\npublish = ["*"]\nsubscribe = ["*"]\n`;
const skip = obstacle();

/** Unpacks the image into a directory and returns its configuration. Each blob must be what its digest says. */
function unpack(directory) {
  const name = readdirSync(DIST).find((name) => /-oci-.*\.tar$/.test(name));
  assert.ok(name, 'dist/ holds no image: run `make dist`');
  const layout = join(directory, 'layout');
  const root = join(directory, 'root');
  [layout, root].forEach((path) => mkdirSync(path));
  execFileSync('tar', ['-xf', join(DIST, name), '-C', layout]);
  const path = ({ digest }) => join(layout, 'blobs', digest.replace(':', '/'));
  const blob = (descriptor) => {
    const bytes = readFileSync(path(descriptor));
    assert.equal(`sha256:${createHash('sha256').update(bytes).digest('hex')}`, descriptor.digest);
    assert.equal(bytes.length, descriptor.size);
    return JSON.parse(bytes);
  };
  const { manifests } = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8'));
  const manifest = blob(manifests[0]);
  for (const layer of manifest.layers) execFileSync('tar', ['-xzf', path(layer), '-C', root, '--same-owner']);
  return { root, ...blob(manifest.config) };
}

/** Mounts the root read-only with the configuration of the test, and becomes the program as the user of the image. */
const START = `
  ip link set lo up
  mount --bind "$root" "$root"
  mount --bind "$etc" "$root/etc/tidings"
  mount -o remount,bind,ro "$root"
  mount -o remount,bind,ro "$root/etc/tidings"
  exec env -i $variables "$(command -v chroot)" --userspec="$user" "$root" "$@"
`;

/** Runs a command of the image. Resolves with the running container once the hub listens. */
async function start(t, image, etc, command) {
  const args = ['--mount', '--pid', '--net', '--fork', '--kill-child', 'sh', '-euc', START, 'sh', ...command];
  const { User: user, Env: variables } = image.config.config;
  const env = { PATH: process.env.PATH, root: image.root, etc, user, variables: variables.join(' ') };
  const process1 = spawn('unshare', args, { env, stdio: ['ignore', 'inherit', 'pipe'] });
  // The program has another user than its parent, so it does not end with it.
  const children = () => readFileSync(`/proc/${process1.pid}/task/${process1.pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
  atEnd(t, () => {
    if (process1.exitCode === null && process1.signalCode === null) children().forEach((pid) => process.kill(pid, 'SIGKILL'));
  });
  const exited = once(process1, 'exit');
  const log = [];
  const listening = new Promise((resolve, reject) => {
    createInterface({ input: process1.stderr }).on('line', (line) => {
      log.push(line);
      if (line.includes('listening')) resolve();
    }).on('close', () => reject(new Error(`the container ended:\n${log.join('\n')}`)));
  });
  await listening;
  return { pid: children()[0], exited, log };
}

/** Runs a command in the network of a container, or in all its namespaces as the user of the image. */
const inNetwork = ({ pid }, command, args) => execFileSync('nsenter', ['--target', pid, '--net', command, ...args], { encoding: 'utf8', timeout: PATIENCE_MS });
function inside(image, { pid }, args) {
  const [uid, gid] = image.config.config.User.split(':');
  const enter = ['--target', pid, '--mount', '--pid', '--net', '--root', '--setuid', uid, '--setgid', gid];
  return execFileSync('nsenter', [...enter, ...args], { encoding: 'utf8', timeout: PATIENCE_MS, env: {} });
}

test('the image serves as process 1 without root and without writing, and drains on SIGTERM', { skip }, async (t) => {
  const directory = await folder(t);
  const { root, ...config } = unpack(directory);
  const image = { root, config };
  const etc = join(directory, 'etc');
  mkdirSync(etc);
  writeFileSync(join(etc, 'tidings.toml'), CONFIGURATION, { mode: 0o644 });
  const { Entrypoint, Cmd, Healthcheck } = config.config;
  const container = await start(t, image, etc, [...Entrypoint, ...Cmd]);

  const status = Object.fromEntries(readFileSync(`/proc/${container.pid}/status`, 'utf8').split('\n').map((line) => line.split(':\t')));
  assert.match(status.NSpid, /\t1$/, 'the program is process 1');
  assert.equal(status.Uid.split('\t')[0], '65532');
  const mounts = readFileSync(`/proc/${container.pid}/mountinfo`, 'utf8').split('\n');
  assert.match(mounts.find((line) => line.split(' ')[4] === root || line.split(' ')[4] === '/'), / ro[, ]/, 'the root is read-only');

  inside(image, container, Healthcheck.Test.slice(1));

  const curl = (...args) => inNetwork(container, 'curl', ['-fsS', '-H', `Authorization: Bearer ${KEY}`, ...args]);
  const stream = spawn('nsenter', ['--target', container.pid, '--net', 'curl', '-fsSN', 'http://127.0.0.1:8080/stream?topic=chat']);
  atEnd(t, () => stream.kill('SIGKILL'));
  const received = [];
  const lines = createInterface({ input: stream.stdout });
  const arrived = new Promise((resolve) => {
    lines.on('line', (line) => {
      received.push(line);
      // The hub begins every stream with a comment, so the subscription exists.
      if (received.length === 1) curl('-d', 'hello', 'http://127.0.0.1:8080/topics/chat');
      if (line === 'data: hello') resolve();
    });
  });
  await arrived;

  const ended = once(lines, 'close');
  process.kill(container.pid, 'SIGTERM');
  await ended;
  assert.ok(received.some((line) => line.includes('"kind":"reconnect"')), `the stream ended without a notice:\n${received.join('\n')}`);
  const [code, signal] = await container.exited;
  assert.deepEqual([code, signal], [0, null], container.log.join('\n'));
});
