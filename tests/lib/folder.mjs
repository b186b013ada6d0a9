// A temporary folder for a test, removed with it.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { atEnd } from './ending.mjs';

/** Resolves with the path of an empty folder. Programs that write there end first: create it before they are started. */
export async function folder(t) {
  const path = await mkdtemp(join(tmpdir(), 'tidings-'));
  atEnd(t, () => rm(path, { recursive: true, force: true }));
  return path;
}
