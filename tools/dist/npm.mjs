// npm.mjs VERSION TARGET BINARY: packs the npm packages into dist/: `tidings` with the library, `@tidings/PLATFORM` with the program, and
// `@tidings/client` for browsers.
//
// npm installs only the platform package whose `os`, `cpu` and `libc` fit, as `tidings` names all of them as optional.

import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';

/** The platform packages, by the Rust target that they hold. */
export const PLATFORMS = {
  'x86_64-unknown-linux-gnu': { name: 'linux-x64', os: ['linux'], cpu: ['x64'], libc: ['glibc'] },
  'aarch64-unknown-linux-gnu': { name: 'linux-arm64', os: ['linux'], cpu: ['arm64'], libc: ['glibc'] },
  'x86_64-apple-darwin': { name: 'darwin-x64', os: ['darwin'], cpu: ['x64'] },
  'aarch64-apple-darwin': { name: 'darwin-arm64', os: ['darwin'], cpu: ['arm64'] },
  'x86_64-pc-windows-msvc': { name: 'win32-x64', os: ['win32'], cpu: ['x64'] },
};
const LIBRARY = resolve('clients/node');
const CLIENT = resolve('clients/js');
const LICENCES = ['LICENSE-APACHE', 'LICENSE-MIT'];

const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';

/** Packs a directory and returns the path of the package. */
function pack(directory, destination, ...options) {
  const args = ['pack', '--silent', '--pack-destination', resolve(destination), ...options];
  const name = execFileSync(npm, args, { cwd: directory, encoding: 'utf8', shell: npm.endsWith('.cmd') }).trim().split('\n').pop();
  return join(resolve(destination), basename(name));
}

/** The program of one platform. */
function packPlatform(work, version, target, binary) {
  const { name, ...fits } = PLATFORMS[target];
  const directory = join(work, name);
  mkdirSync(join(directory, 'bin'), { recursive: true });
  copyFileSync(binary, join(directory, 'bin', basename(binary)));
  for (const licence of LICENCES) copyFileSync(licence, join(directory, licence));
  const manifest = {
    name: `@tidings/${name}`,
    version,
    description: `The program of the npm package tidings for ${target}`,
    license: 'MIT OR Apache-2.0',
    preferUnplugged: true,
    files: ['bin', ...LICENCES],
    ...fits,
  };
  writeFileSync(join(directory, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  writeFileSync(join(directory, 'README.md'), `# ${manifest.name}\n\n${manifest.description}. Install tidings, not this package.\n`);
  pack(directory, 'dist', '--ignore-scripts');
}

/** A library, as `npm pack` of its directory builds it, with the version of this release, and with what else its manifest needs. */
function packLibrary(work, version, library, more = {}) {
  const built = pack(library, work);
  execFileSync('tar', ['-xzf', built, '-C', work]);
  const directory = join(work, 'package');
  for (const licence of LICENCES) copyFileSync(licence, join(directory, licence));
  const manifest = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'));
  manifest.version = version;
  manifest.files.push(...LICENCES);
  delete manifest.scripts;
  Object.assign(manifest, more);
  writeFileSync(join(directory, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  pack(directory, 'dist', '--ignore-scripts');
  rmSync(directory, { recursive: true });
}

const [version, target, binary] = process.argv.slice(2);
if (!PLATFORMS[target]) throw new Error(`npm.mjs: there is no npm package for ${target}: add it to PLATFORMS`);
const work = mkdtempSync(join(tmpdir(), 'tidings-npm-'));
try {
  packPlatform(work, version, target, binary);
  const optionalDependencies = Object.fromEntries(Object.values(PLATFORMS).map(({ name }) => [`@tidings/${name}`, version]));
  packLibrary(work, version, LIBRARY, { optionalDependencies });
  packLibrary(work, version, CLIENT);
} finally {
  rmSync(work, { recursive: true });
}
