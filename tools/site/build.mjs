// Builds the documentation site: `make site`.
//
//     node tools/site/build.mjs [FOLDER]        into FOLDER, by default site/

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { REPOSITORY, writePages } from './pages.mjs';

const MKDOCS = join(REPOSITORY, 'tests/.cache/site/bin/mkdocs');
const CONFIGURATION = fileURLToPath(new URL('mkdocs.yml', import.meta.url));

const folder = resolve(process.argv[2] ?? join(REPOSITORY, 'site'));
const pages = mkdtempSync(join(tmpdir(), 'tidings-pages-'));
try {
  writePages(pages);
  const env = { ...process.env, TIDINGS_PAGES: pages, NO_MKDOCS_2_WARNING: 'true' };
  // Not with --quiet, which also hides warnings from --strict.
  const args = ['build', '--strict', '--config-file', CONFIGURATION, '--site-dir', folder];
  const { status, error, stderr } = spawnSync(MKDOCS, args, { env, encoding: 'utf8' });
  if (status === 0) console.log(`${folder}/index.html`);
  else console.error(error ? `${error.message}: run tests/setup site` : stderr.replaceAll(/^INFO .*\n/gm, ''));
  process.exitCode = status === 0 ? 0 : 1;
} finally {
  rmSync(pages, { recursive: true });
}
