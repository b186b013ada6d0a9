// Checks the npm package of the client for browsers: what it contains, whether its types are found, and how large it is. `make lint` runs
// it, and first compiles the client.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { TARGET } from '../clients/js/bundling.mjs';

const CLIENT = fileURLToPath(new URL('../clients/js', import.meta.url));
const TESTS = new URL('../tests/', import.meta.url);
const tool = (name) => fileURLToPath(new URL(`node_modules/.bin/${name}`, TESTS));

/** The largest size of each entry point with all that it imports, minified and compressed with gzip, in bytes. */
const BYTES_MAX = { index: 3000, plain: 950, state: 650, validate: 300, react: 400 };

/** What a page loads of an entry point, without what it has already. */
async function bytes(name) {
  const { build } = createRequire(TESTS)('esbuild');
  const { outputFiles } = await build({
    entryPoints: [join(CLIENT, 'dist', `${name}.js`)],
    bundle: true,
    external: ['react'],
    format: 'esm',
    logLevel: 'error',
    minify: true,
    target: TARGET,
    write: false,
  });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

let isTooLarge = false;
for (const [name, bytesMax] of Object.entries(BYTES_MAX)) {
  const size = await bytes(name);
  console.log(`@tidings/client, ${name}: ${size} bytes of at most ${bytesMax}`);
  if (size > bytesMax) {
    console.error(`tools/client-package.mjs: ${name} is too large: make it smaller, or raise BYTES_MAX and say why`);
    isTooLarge = true;
  }
}

const work = mkdtempSync(join(tmpdir(), 'tidings-client-'));
try {
  const packed = execFileSync('npm', ['pack', '--silent', '--pack-destination', work], { cwd: CLIENT, encoding: 'utf8' });
  const file = join(work, packed.trim().split('\n').pop());
  execFileSync(tool('publint'), ['--strict', file], { stdio: 'inherit' });
  // It is for bundlers and browsers, and has no CommonJS.
  execFileSync(tool('attw'), [file, '--profile', 'esm-only', '--no-emoji', '--quiet'], { stdio: 'inherit' });
} finally {
  rmSync(work, { recursive: true });
}
process.exitCode = isTooLarge ? 1 : 0;
