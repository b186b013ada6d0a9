// The applications of tests/adopt in fresh environments: their frameworks come from the public registries, the packages from dist/, and
// the commands are those that a user types.

import { execFile } from 'node:child_process';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ORDERS, applyChanges, pushesToItsUser } from '../lib/adoption.mjs';
import { inEachBrowser } from '../lib/browser.mjs';
import { folder } from '../lib/folder.mjs';
import { compile } from '../lib/node-package.mjs';
import { start } from '../lib/service.mjs';
import { DIST } from './machine.mjs';
import { registry } from './registry.mjs';

const execute = promisify(execFile);
const INSTALL_MS = 300_000;
const inEach = inEachBrowser();
const adopted = (path) => fileURLToPath(new URL(`../adopt/${path}`, import.meta.url));

/** An environment of Python with these packages, in their versions of tests/requirements.txt. */
async function venv(directory, env, packages) {
  const pins = readFileSync(fileURLToPath(new URL('../requirements.txt', import.meta.url)), 'utf8').split('\n');
  const wanted = packages.map((name) => pins.find((line) => line.startsWith(`${name}==`)));
  await shell(directory, env, `python3 -m venv .venv && .venv/bin/pip install ${wanted.join(' ')}`);
}

/** A project of Node with these packages, in their versions of tests/adopt/package.json. */
async function project(directory, env, packages) {
  const { dependencies } = JSON.parse(readFileSync(adopted('package.json'), 'utf8'));
  const wanted = Object.fromEntries(packages.map((name) => [name, dependencies[name]]));
  writeFileSync(join(directory, 'package.json'), JSON.stringify({ name: 'shop', private: true, type: 'module', dependencies: wanted }));
  await shell(directory, env, 'npm install');
}

/** What pip and npm need to find the packages of dist/ as if they were released. */
const released = {
  pip: () => ({ PIP_NO_INDEX: '1', PIP_FIND_LINKS: DIST }),
  npm: async (t) => ({ npm_config_registry: await registry(t) }),
};

/**
 * The applications: what their author has installed, the commands of the change, how the application is run as before, the paths that
 * are compiled when they are requested, and the number of the first order. An application in another language is one more entry.
 */
const APPLICATIONS = {
  flask: {
    install: (directory, env) => venv(directory, env, ['Flask']),
    change: [['pip', 'pip install tidings']],
    run: () => 'python app.py',
    isReady: /Running on/,
  },
  django: {
    install: async (directory, env) => {
      await venv(directory, env, ['Django']);
      await shell(directory, env, 'python manage.py migrate');
    },
    change: [['pip', 'pip install tidings']],
    run: (port) => `python manage.py runserver ${port}`,
    isReady: /Starting development server/,
    first: 1,
  },
  express: {
    install: (directory, env) => project(directory, env, ['express', 'express-session']),
    change: [['npm', 'npm install tidings']],
    run: () => 'node app.mjs',
    isReady: /^http:/,
  },
  next: {
    install: (directory, env) => project(directory, env, ['next', 'react', 'react-dom']),
    change: [['npm', 'npm install tidings']],
    run: (port) => `npx next dev --hostname 127.0.0.1 --port ${port}`,
    isReady: /Ready in/,
    compiled: ['/login', '/', '/orders/0/ship', '/stream'],
  },
};

/** Runs a command line as it is typed. */
function shell(directory, env, command) {
  return execute('sh', ['-euc', command], { cwd: directory, env, timeout: INSTALL_MS });
}

/** An environment without anything of ours, in which the programs of the application's own environment are found first. */
async function environment(t, directory) {
  const unwanted = /^(TIDINGS_|PYTHONPATH$|VIRTUAL_ENV$|NODE_ENV$|NODE_PATH$|NODE_TEST_CONTEXT$|PORT$)/;
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !unwanted.test(name)));
  const PATH = `${join(directory, '.venv/bin')}${delimiter}${process.env.PATH}`;
  return { ...env, PATH, XDG_RUNTIME_DIR: await folder(t), PYTHONUNBUFFERED: '1', NEXT_TELEMETRY_DISABLED: '1', npm_config_audit: 'false' };
}

for (const [name, { install, change, run, isReady, compiled = [], first = 0 }] of Object.entries(APPLICATIONS)) {
  test(`in a fresh environment, the ${name} application pushes to its user after ${change.map(([, command]) => `\`${command}\``).join(', ')} and a few lines`, async (t) => {
    const directory = await folder(t);
    cpSync(adopted(name), directory, { recursive: true });
    const env = await environment(t, directory);
    await install(directory, env);

    const begin = performance.now();
    for (const [source, command] of change) await shell(directory, { ...env, ...(await released[source](t)) }, command);
    const seconds = ((performance.now() - begin) / 1000).toFixed(1);
    const lines = await applyChanges(join(directory, 'changes.diff'), directory);
    t.diagnostic(`${name}: ${lines} changed lines, ${change.length} command (${seconds} s)`);

    const options = { cwd: directory, detached: true };
    const command = (port) => ['sh', ['-c', `exec ${run(port)}`], { ...options, env: { ...env, PORT: String(port) } }];
    const { port } = await start(t, command, isReady);
    const origin = `http://127.0.0.1:${port}`;
    await compile(origin, compiled);
    await inEach(t, (t, browser, place) => pushesToItsUser(t, browser, origin, first + ORDERS * place));
  });
}
