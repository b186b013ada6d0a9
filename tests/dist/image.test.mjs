// The image of dist/, unpacked and run in namespaces as a container engine would: its own process, mount and network namespaces, a root
// that is read-only, the user of the image, and the program as process 1.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
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

/** Mounts devices and processes as every engine does, the configuration of the test, and the root read-only, and becomes the program as the user of the image. */
const START = `
  ip link set lo up
  mkdir -p "$root/dev" "$root/proc"
  mount --bind "$root" "$root"
  mount --rbind /dev "$root/dev"
  mount -t proc proc "$root/proc"
  mount --bind "$etc" "$root/etc/tidings"
  mount -o remount,bind,ro "$root"
  mount -o remount,bind,ro "$root/etc/tidings"
  exec env -i $variables "$(command -v chroot)" --userspec="$user" "$root" "$@"
`;

/**
 * What an image `FROM tidings` adds: an application in scripts of a shell, the application of 2012. `/cgi-bin/post` publishes what it is
 * sent, and `/cgi-bin/stream` becomes a stream. busybox, of Debian, is linked statically.
 */
const APPLICATION = {
  start: 'exec /app/busybox httpd -f -p "127.0.0.1:$PORT" -h /app/www',
  'www/index.html': 'the page of the application',
  'www/cgi-bin/stream': 'printf "Tidings-Subscribe: topic=chat\\r\\n\\r\\n"',
  'www/cgi-bin/post': [
    'message=$(/app/busybox cat)',
    'hub=${TIDINGS_URL#http://:}',
    '/app/busybox wget -q -O /dev/null --header "Authorization: Bearer ${hub%%@*}" --post-data "$message" "http://${hub#*@}/topics/chat" &&',
    '  printf "\\r\\n"',
  ].join('\n'),
};

function addApplication(root, directory) {
  execFileSync('apt-get', ['download', '-qq', '-o', 'APT::Sandbox::User=root', 'busybox-static'], { cwd: directory, stdio: ['ignore', 'ignore', 'inherit'] });
  const [name] = readdirSync(directory).filter((name) => name.endsWith('.deb'));
  execFileSync('dpkg-deb', ['--extract', join(directory, name), join(directory, 'busybox')]);
  mkdirSync(join(root, 'app/www/cgi-bin'), { recursive: true });
  execFileSync('cp', [join(directory, 'busybox/bin/busybox'), join(root, 'app/busybox')]);
  for (const [path, text] of Object.entries(APPLICATION)) {
    writeFileSync(join(root, 'app', path), path.includes('cgi-bin') ? `#!/app/busybox sh\n${text}\n` : `${text}\n`);
    chmodSync(join(root, 'app', path), 0o755);
  }
}

/** Runs a command of the image. Resolves with the running container once a line of its log has this word. */
async function start(t, image, etc, command, word = 'listening') {
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
      if (line.includes(word)) resolve();
    }).on('close', () => reject(new Error(`the container ended:\n${log.join('\n')}`)));
  });
  await listening;
  return { pid: children()[0], exited, log };
}

/** Runs a command in the network of a container, or in all its namespaces as the user of the image. */
const inNetwork = ({ pid }, command, args) => execFileSync('nsenter', ['--target', pid, '--net', command, ...args], { encoding: 'utf8', timeout: PATIENCE_MS });
function inside(image, { pid }, args, env = {}) {
  const [uid, gid] = image.config.config.User.split(':');
  const enter = ['--target', pid, '--mount', '--pid', '--net', '--root', '--setuid', uid, '--setgid', gid];
  return execFileSync('nsenter', [...enter, ...args], { encoding: 'utf8', timeout: PATIENCE_MS, env });
}

/** Opens a stream, publishes `hello` when it is open, and resolves when that has arrived. */
async function receive(t, container, path, publish) {
  const stream = spawn('nsenter', ['--target', container.pid, '--net', 'curl', '-fsSN', `http://127.0.0.1:8080${path}`]);
  atEnd(t, () => stream.kill('SIGKILL'));
  const received = [];
  const lines = createInterface({ input: stream.stdout });
  await new Promise((resolve, reject) => {
    lines.on('line', (line) => {
      received.push(line);
      // The hub begins every stream with a comment, so the subscription exists.
      if (received.length === 1) publish();
      if (line === 'data: hello') resolve();
    }).on('close', () => reject(new Error(`the stream ended:\n${received.join('\n')}`)));
  });
  return { received, lines };
}

/** The fields of /proc/PID/status. */
const statusOf = (pid) => Object.fromEntries(readFileSync(`/proc/${pid}/status`, 'utf8').split('\n').map((line) => line.split(':\t')));

test('the image serves as process 1 without root and without writing, and drains on SIGTERM', { skip }, async (t) => {
  const directory = await folder(t);
  const { root, ...config } = unpack(directory);
  const image = { root, config };
  const etc = join(directory, 'etc');
  mkdirSync(etc);
  writeFileSync(join(etc, 'tidings.toml'), CONFIGURATION, { mode: 0o644 });
  const { Entrypoint, Cmd, Healthcheck } = config.config;
  const container = await start(t, image, etc, [...Entrypoint, ...Cmd]);

  const status = statusOf(container.pid);
  assert.match(status.NSpid, /\t1$/, 'the program is process 1');
  assert.equal(status.Uid.split('\t')[0], '65532');
  const mounts = readFileSync(`/proc/${container.pid}/mountinfo`, 'utf8').split('\n');
  assert.match(mounts.find((line) => line.split(' ')[4] === root || line.split(' ')[4] === '/'), / ro[, ]/, 'the root is read-only');

  inside(image, container, Healthcheck.Test.slice(1));

  const { received, lines } = await receive(t, container, '/stream?topic=chat', () => {
    inNetwork(container, 'curl', ['-fsS', '-H', `Authorization: Bearer ${KEY}`, '-d', 'hello', 'http://127.0.0.1:8080/topics/chat']);
  });

  const ended = once(lines, 'close');
  process.kill(container.pid, 'SIGTERM');
  await ended;
  assert.ok(received.some((line) => line.includes('"kind":"reconnect"')), `the stream ended without a notice:\n${received.join('\n')}`);
  const [code, signal] = await container.exited;
  assert.deepEqual([code, signal], [0, null], container.log.join('\n'));
});

test('an image with an application runs both with `tidings run` as process 1, and ends both on SIGTERM', { skip }, async (t) => {
  const directory = await folder(t);
  const { root, ...config } = unpack(directory);
  addApplication(root, directory);
  const etc = join(directory, 'etc');
  mkdirSync(etc);
  const administration = 'TIDINGS_ADMIN_LISTEN=127.0.0.1:9090';
  config.config.Env.push(administration);
  const { Entrypoint, Healthcheck } = config.config;
  const command = [...Entrypoint, 'run', '--', '/app/busybox', 'sh', '/app/start'];
  const container = await start(t, { root, config }, etc, command, 'the application accepts connections');

  assert.match(statusOf(container.pid).NSpid, /\t1$/, 'the hub is process 1');
  const [application] = readFileSync(`/proc/${container.pid}/task/${container.pid}/children`, 'utf8').split(' ').map(Number);
  assert.equal(statusOf(application).Uid.split('\t')[0], '65532');
  inside({ root, config }, container, Healthcheck.Test.slice(1), Object.fromEntries([administration.split('=')]));

  const curl = (...args) => inNetwork(container, 'curl', ['-fsS', ...args]);
  assert.match(curl('http://127.0.0.1:8080/index.html'), /the page of the application/);
  const { received, lines } = await receive(t, container, '/cgi-bin/stream', () => curl('-d', 'hello', 'http://127.0.0.1:8080/cgi-bin/post'));

  const ended = once(lines, 'close');
  process.kill(container.pid, 'SIGTERM');
  await ended;
  assert.ok(received.some((line) => line.includes('"kind":"reconnect"')), `the stream ended without a notice:\n${received.join('\n')}`);
  const [code, signal] = await container.exited;
  assert.deepEqual([code, signal], [0, null], container.log.join('\n'));
});
