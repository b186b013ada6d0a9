// Compiles the client into `dist`: the modules, and their types. `make test` and `npm pack` run it.
//
// Names that end with `_` are members that no application sees. They are shortened here, the same in all modules, since no bundler can
// know that it may. What tabs send each other keeps its names: two tabs may run different versions.

import { execFileSync } from 'node:child_process';
import { readdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PRIVATE_NAMES, TARGET } from './bundling.mjs';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const TESTS = new URL('../../tests/', import.meta.url);

const { build } = createRequire(TESTS)('esbuild');
rmSync(join(HERE, 'dist'), { recursive: true, force: true });
execFileSync(fileURLToPath(new URL('node_modules/.bin/tsc', TESTS)), ['-p', HERE, '--emitDeclarationOnly'], { stdio: 'inherit' });
const options = {
  entryPoints: readdirSync(join(HERE, 'src')).map((name) => join(HERE, 'src', name)),
  format: 'esm',
  logLevel: 'error',
  mangleProps: PRIVATE_NAMES,
  outdir: join(HERE, 'dist'),
  target: TARGET,
};
// esbuild agrees on names among the modules of a bundle only, so one that is not written decides on them.
const { mangleCache } = await build({ ...options, bundle: true, external: ['react'], mangleCache: {}, write: false });
await build({ ...options, mangleCache });
