// docs/origin.md names tests for every row of the 2012 answer. These tests must exist.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));

/** All that is written in files of these folders that may hold tests. */
function sources(...folders) {
  const skipped = new Set(['node_modules', '.cache', 'target']);
  const read = (folder) =>
    readdirSync(folder, { withFileTypes: true }).map((entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return skipped.has(entry.name) ? '' : read(path);
      return /\.(rs|test\.mjs)$/.test(entry.name) ? readFileSync(path, 'utf8') : '';
    }).join('\n');
  return folders.map((folder) => read(join(REPOSITORY, folder))).join('\n');
}

test('each of the 25 rows names tests that exist', () => {
  const page = readFileSync(join(REPOSITORY, 'docs/origin.md'), 'utf8');
  const rows = page.split('\n').filter((line) => /^\| \d+ \|/.test(line));
  assert.equal(rows.length, 25);
  const tests = sources('crates', 'examples', 'tests');
  const makefile = readFileSync(join(REPOSITORY, 'Makefile'), 'utf8');
  for (const row of rows) {
    const names = [...row.split(' | ').at(-1).matchAll(/`([^`]+)`/g)].map((match) => match[1]);
    assert.ok(names.length > 0, `no test in: ${row}`);
    for (const name of names) {
      const isThere =
        name.startsWith('make ') ? makefile.includes(`\n${name.slice(5)}:`)
        : name.includes('/') ? existsSync(join(REPOSITORY, name))
        : tests.includes(`fn ${name}(`) || tests.includes(`test('${name}'`);
      assert.ok(isThere, `there is no ${name}`);
    }
  }
});
