// On a machine without Rust, every package of dist/ installs, runs, is upgraded and uninstalls. `make dist` has built them.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { folder } from '../lib/folder.mjs';
import { DIST, obstacle, run } from './machine.mjs';

const OLD = '0.0.1';
const skip = obstacle();

/** The one file in dist/ of this kind. */
function built(pattern) {
  const names = existsSync(DIST) ? readdirSync(DIST).filter((name) => pattern.test(name)) : [];
  assert.equal(names.length, 1, `dist/ must hold one ${pattern}, and holds ${names.join(', ') || 'none'}: run \`make dist\``);
  return join(DIST, names[0]);
}

const execute = (command, args, cwd) => execFileSync(command, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
const rewrite = (file, from, to) => writeFileSync(file, readFileSync(file, 'utf8').replace(from, to));

// The packages that are upgraded are those of dist/ under an older version.

function oldDeb(work, old) {
  const tree = join(work, 'deb');
  execute('dpkg-deb', ['--raw-extract', built(/\.deb$/), tree]);
  rewrite(join(tree, 'DEBIAN/control'), /^Version: .*$/m, `Version: ${OLD}-1`);
  execute('dpkg-deb', ['--build', '-Znone', tree, join(old, `tidings_${OLD}-1_amd64.deb`)]);
}

function oldNpm(work, old) {
  for (const pattern of [/^tidings-\d.*\.tgz$/, /^tidings-linux-x64-\d.*\.tgz$/]) {
    const tree = join(work, `npm-${pattern.source.length}`);
    mkdirSync(tree);
    execute('tar', ['-xzf', built(pattern), '-C', tree]);
    const manifest = join(tree, 'package/package.json');
    const version = JSON.parse(readFileSync(manifest, 'utf8')).version;
    rewrite(manifest, new RegExp(`"${version.replaceAll('.', '\\.')}"`, 'g'), `"${OLD}"`);
    execute('npm', ['pack', '--ignore-scripts', '--pack-destination', old], join(tree, 'package'));
  }
}

function oldWheel(work, old) {
  const program = `
import pathlib, re, sys, zipfile
new, directory, version = sys.argv[1:]
wheel = zipfile.ZipFile(new)
[data] = {name.split('/')[0] for name in wheel.namelist() if '.dist-info/' in name}
old_data = f'tidings-{version}.dist-info'
with zipfile.ZipFile(pathlib.Path(directory) / f'tidings-{version}-py3-none-any.whl', 'w') as old:
    for entry in wheel.infolist():
        content = wheel.read(entry)
        if entry.filename.endswith('/METADATA'):
            content = re.sub(rb'(?m)^Version: .*$', b'Version: ' + version.encode(), content)
        if entry.filename.endswith('/RECORD'):
            # pip checks no digest of this file, and the digest of METADATA has changed.
            lines = (line.split(b',')[0] + b',,' for line in content.splitlines())
            content = b'\\n'.join(lines).replace(data.removesuffix('.dist-info').encode(), f'tidings-{version}'.encode()) + b'\\n'
        entry.filename = entry.filename.replace(data.removesuffix('.dist-info'), f'tidings-{version}')
        old.writestr(entry, content)
`;
  execute('python3', ['-c', program, built(/\.whl$/), old, OLD], work);
}

for (const [name, makeOld] of [['archive', () => {}], ['wheel', oldWheel], ['npm', oldNpm], ['deb', oldDeb]]) {
  test(`the ${name} installs, runs, upgrades and uninstalls without Rust`, { skip }, async (t) => {
    const work = await folder(t);
    const [old, machine] = ['old', 'machine'].map((name) => join(work, name));
    [old, machine].forEach((path) => mkdirSync(path));
    makeOld(work, old);
    for (const line of run(`${name}.sh`, machine, old).trim().split('\n')) t.diagnostic(line);
  });
}

test('the checksums are those of the packages', () => {
  execute('sha256sum', ['--check', '--strict', 'SHA256SUMS'], DIST);
  const listed = readFileSync(join(DIST, 'SHA256SUMS'), 'utf8').trim().split('\n').map((line) => line.split(/ [ *]/)[1]);
  assert.deepEqual(readdirSync(DIST).filter((name) => name !== 'SHA256SUMS').sort(), listed.sort());
});

test('the components of the program are listed', () => {
  const components = JSON.parse(readFileSync(built(/\.cdx\.json$/), 'utf8')).components.map(({ name }) => name);
  for (const name of ['tidings-server', 'tokio', 'rustls']) assert.ok(components.includes(name), `${name} is not listed`);
});
