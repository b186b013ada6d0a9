// Where the program `tidings` is: $TIDINGS_BIN, the package of this platform, or a directory of PATH.

import { accessSync, constants, realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

/** The package that holds the program for this machine; npm installs the one that fits. */
export const PLATFORM_PACKAGE = `@tidings/${process.platform}-${process.arch}`;
const PROGRAM = process.platform === 'win32' ? 'tidings.exe' : 'tidings';

/** The program of the package of this platform, if that is installed. @returns {string | undefined} */
export function packagedBinary() {
  try {
    // Bundlers know `createRequire(import.meta.url)`, and would try to parse the program.
    return createRequire(fileURLToPath(import.meta.url)).resolve(`${PLATFORM_PACKAGE}/bin/${PROGRAM}`);
  } catch {
    return undefined;
  }
}

/** @param {Record<string, string | undefined>} [env] @returns {string | undefined} */
export function findBinary(env = process.env) {
  return env.TIDINGS_BIN || packagedBinary() || onPath(env.PATH ?? '');
}

/** @param {string} path @returns {string | undefined} */
function onPath(path) {
  const candidates = path.split(delimiter).filter(Boolean).map((directory) => join(directory, PROGRAM));
  return candidates.find((file) => isExecutable(file));
}

/** @param {string} file */
function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    // npm puts a link to bin/tidings.js into PATH, which can start nothing without the package of the platform.
    return !realpathSync(file).endsWith('.js');
  } catch {
    return false;
  }
}
