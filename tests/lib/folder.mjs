// A folder of its own for a test, gone with it.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { atEnd } from './ending.mjs';

/** Resolves with the path of an empty folder. Programs that write there end first: ask for it before they are started. */
export async function folder(t) {
  const path = await mkdtemp(join(tmpdir(), 'tidings-'));
  atEnd(t, () => rm(path, { recursive: true, force: true }));
  return path;
}
