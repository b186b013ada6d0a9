// Refuses options that do not exist: a misspelt `private` would publish a public event, a misspelt `label` could never be revoked.

import { TidingsError } from './error.js';

/** @param {string} what as in `publishing` @param {object} options @param {readonly string[]} allowed */
export function checkOptions(what, options, allowed) {
  const unknown = Object.keys(options).find((name) => !allowed.includes(name));
  if (unknown !== undefined) throw new TidingsError(`there is no option ${JSON.stringify(unknown)}: ${what} takes ${allowed.join(', ')}`);
}
