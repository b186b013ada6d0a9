// README.md says truly which client of others is tested where.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const read = (path) => readFileSync(here(path), 'utf8');

const ROWS = read('README.md')
  .split('\n')
  .filter((line) => /^\| (?!client|-)/.test(line))
  .map((line) => line.split('|').slice(1, -1).map((cell) => cell.trim()))
  .map(([client, version, where]) => ({
    client,
    registry: client.split(' ')[0],
    name: /`([^`]+)`/.exec(client)?.[1],
    version,
    tests: [...where.matchAll(/\]\(([^)]+\.mjs)\)/g)].map((link) => link[1]),
  }));

/** What the tests of this repository install, by registry: `name@version`. */
const PINNED = {
  npm: Object.entries(JSON.parse(read('../package.json')).devDependencies).map(([name, version]) =>
    // A second version of a package has a name of its own here.
    version.startsWith('npm:') ? version.slice('npm:'.length) : `${name}@${version}`,
  ),
  PyPI: `${read('../requirements.txt')}\n${read('../requirements-apart.txt')}`.split('\n').map((line) => line.replace('==', '@')),
  'crates.io': [...read('rust/Cargo.toml').matchAll(/^(\S+) = "([\d.]+)"$/gm)].map(([, name, version]) => `${name}@${version}`),
};

/** The scripts that a test runs: a client is named in them, or in the test itself. */
const SCRIPTS = ['node', 'python', 'rust/src'].flatMap((folder) => readdirSync(here(folder)).map((name) => `${folder}/${name}`));

test('every client of the table has a test that names it, in the version that is installed', () => {
  assert.ok(ROWS.length > 20);
  for (const { client, registry, name, version, tests } of ROWS) {
    assert.ok(tests.length > 0, `${client}: no test is named`);
    for (const path of tests) assert.ok(existsSync(here(path)), `${client}: ${path} is not there`);
    if (!name) continue;
    assert.ok(PINNED[registry]?.includes(`${name}@${version}`), `${client}: this version is not installed`);
    assert.ok(tests.every((path) => read(path).includes(name)), `${client}: ${tests} does not name it`);
  }
});

test('every script of a client belongs to a test', () => {
  const tests = readdirSync(here('.')).filter((name) => name.endsWith('.test.mjs') && name !== 'table.test.mjs').map(read).join('\n');
  for (const script of SCRIPTS.filter((script) => !/\/report\.|\/__/.test(script))) {
    const named = script === 'rust/src/main.rs' ? 'rust/mercure-crate-publisher' : script;
    assert.ok(tests.includes(named), `${script} is in no test`);
  }
});
