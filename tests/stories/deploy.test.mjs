// The files of deploy/, which operators copy: each is started, or checked by the program that it is for.

import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { folder } from '../lib/folder.mjs';
import { isPermitted, run } from '../lib/own-network.mjs';
import { built } from '../lib/program.mjs';
import { start } from '../lib/service.mjs';

const execute = promisify(execFile);
const DEPLOY = fileURLToPath(new URL('../../deploy/', import.meta.url));
const KUBERNETES = fileURLToPath(new URL('../.cache/site/bin/', import.meta.url));
/** The exposure that `systemd-analyze security` may find at most. */
const EXPOSURE_MAX = 2.0;

const has = (program, ...args) => spawnSync(program, args).status === 0;
const unlessForbidden = { skip: isPermitted() ? false : 'SKIPPED: this system permits no network namespaces' };
const withSystemd = { skip: has('systemd-analyze', '--version') ? false : 'SKIPPED: systemd is not installed' };

// Most of the time they wait, each in a network of its own.
suite('with the file of deploy for', { ...unlessForbidden, concurrency: true }, () => {
  for (const proxy of ['nginx', 'nginx-tls', 'haproxy', 'caddy']) {
    test(`${proxy}, nothing is held back, and restarts lose no event`, async (t) => {
      await run(t, 'deployed.sh', { PROXY: proxy });
    });
  }
});

/** The units, with the path of the program as the only difference. */
async function units(t) {
  const directory = await folder(t);
  for (const name of ['tidings.service', 'tidings.socket']) {
    const text = readFileSync(join(DEPLOY, 'systemd', name), 'utf8');
    writeFileSync(join(directory, name), text.replaceAll('/usr/bin/tidings', built('tidings')));
  }
  return directory;
}

test('the units of systemd are valid, and expose the system no more than they must', withSystemd, async (t) => {
  const directory = await units(t);
  const files = ['tidings.service', 'tidings.socket'].map((name) => join(directory, name));
  const { stderr } = await execute('systemd-analyze', ['verify', '--man=no', ...files]);
  assert.equal(stderr, '');
  const { stdout } = await execute('systemd-analyze', ['security', '--offline=yes', '--no-pager', files[0]]);
  const exposure = Number(stdout.match(/Overall exposure level for \S+: (\S+)/)[1]);
  t.diagnostic(`exposure ${exposure}`);
  assert.ok(exposure <= EXPOSURE_MAX, stdout);
});

test('a connection that systemd accepted before the hub runs is answered', withSystemd, async (t) => {
  const directory = await folder(t);
  const file = join(directory, 'tidings.toml');
  writeFileSync(file, `store = "${join(directory, 'events')}"\n`);
  const [, command] = readFileSync(join(DEPLOY, 'systemd/tidings.service'), 'utf8').match(/^ExecStart=\S+ (.*)$/m);
  const args = command.replace('/etc/tidings/tidings.toml', file).split(' ');
  // The user of the service has no name here; it has no permission that this one lacks.
  const service = process.getuid() === 0 ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] : [];
  if (service.length > 0) await execute('chown', ['-R', '65534:65534', directory]);
  const { port } = await start(
    t,
    (port) => ['systemd-socket-activate', ['-l', `127.0.0.1:${port}`, ...service, built('tidings'), ...args]],
    /Listening on/,
  );
  const response = await fetch(`http://127.0.0.1:${port}/topics/chat`, { method: 'POST', body: 'hello' });
  assert.equal(response.status, 200, await response.text());
});

/** Whether the API of Kubernetes would accept these objects, by its schemas. */
async function validate(t, manifest) {
  const file = join(await folder(t), 'manifest.yaml');
  writeFileSync(file, manifest);
  const { stdout } = await execute(join(KUBERNETES, 'kubernetes-validate'), ['--strict', file]);
  return stdout;
}

/** A configuration in a manifest is one that the hub accepts. */
async function check(t, manifest) {
  const [, indented] = manifest.match(/^ {2}tidings\.toml: \|\n((?: {4}.*\n|\s*\n)*)/m);
  const file = join(await folder(t), 'tidings.toml');
  writeFileSync(file, indented.replaceAll(/^ {4}/gm, ''));
  await execute(built('tidings'), ['serve', '--check', '--config', file], { env: { TIDINGS_APP_KEY: 'tk_a-key-that-is-long-enough-for-a-test' } });
}

test('the manifest for Kubernetes is valid, and its configuration too', async (t) => {
  const manifest = readFileSync(join(DEPLOY, 'kubernetes/tidings.yaml'), 'utf8');
  await validate(t, manifest);
  await check(t, manifest);
});

test('the chart renders valid objects', { skip: has('helm', 'version') ? false : 'SKIPPED: helm is not installed' }, async (t) => {
  const chart = join(DEPLOY, 'helm/tidings');
  await execute('helm', ['lint', '--strict', chart]);
  const variants = [[], ['--set', 'replicas=1'], ['--set', 'ingress.enabled=true,ingress.tlsSecret=hub-tls,ingress.className=nginx']];
  for (const more of variants) {
    const { stdout } = await execute('helm', ['template', 'hub', chart, ...more]);
    await validate(t, stdout);
    await check(t, stdout);
  }
});
