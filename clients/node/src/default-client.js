// The client of the functions that take none. It is global, since a bundler may load this module more than once.

import { Client } from './client.js';

const DEFAULT = Symbol.for('tidings.client');

/** @returns {Client} */
export function defaultClient() {
  const shared = /** @type {any} */ (globalThis);
  shared[DEFAULT] ??= new Client();
  return shared[DEFAULT];
}
