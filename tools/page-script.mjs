// The client for browsers as one script, which the hub serves as `/tidings.js`: checks that the file in the repository is what
// `clients/js` gives, so that building the hub needs no Node. `make lint` runs it; with `--write` it writes the file.

import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { PRIVATE_NAMES, TARGET } from '../clients/js/bundling.mjs';

const ENTRY = fileURLToPath(new URL('../clients/js/src/index.ts', import.meta.url));
const SCRIPT = fileURLToPath(new URL('../crates/tidings-server/src/pages/client.js', import.meta.url));
const INTEGRITY = fileURLToPath(new URL('../crates/tidings-server/src/pages/client.integrity', import.meta.url));
const TESTS = new URL('../tests/', import.meta.url);

const { build } = createRequire(TESTS)('esbuild');
const { outputFiles } = await build({
  entryPoints: [ENTRY],
  banner: { js: '/* @tidings/client, MIT OR Apache-2.0; made by tools/page-script.mjs */' },
  bundle: true,
  charset: 'utf8',
  // A script with `src` and `integrity` exports nothing, so it is a global; it is one also where a module imports the file.
  footer: { js: 'globalThis.tidings=tidings;' },
  format: 'iife',
  globalName: 'tidings',
  legalComments: 'none',
  logLevel: 'error',
  mangleProps: PRIVATE_NAMES,
  minify: true,
  target: TARGET,
  write: false,
});
const script = outputFiles[0].text;
const integrity = `sha384-${createHash('sha384').update(script).digest('base64')}`;

const read = (file) => {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return '';
    throw error;
  }
};
if (process.argv.includes('--write')) {
  writeFileSync(SCRIPT, script);
  writeFileSync(INTEGRITY, integrity);
} else if (read(SCRIPT) !== script || read(INTEGRITY) !== integrity) {
  console.error('tools/page-script.mjs: the script that the hub serves is not the client for browsers: run `node tools/page-script.mjs --write`');
  process.exitCode = 1;
}
