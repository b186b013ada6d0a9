// Tests may record what is published (testing.js). The recording is global, since a bundler may load this module more than once.

const RECORDER = Symbol.for('tidings.recorder');

/**
 * @typedef {object} Recording
 * @property {(event: import('./events.js').NewEvent) => import('./events.js').Receipt} add
 * @property {import('./client.js').Revocation[]} revoked
 */

/** What records now, if something does. @returns {Recording | undefined} */
export function recorder() {
  return /** @type {any} */ (globalThis)[RECORDER];
}

/** @param {Recording | undefined} recording */
export function setRecorder(recording) {
  /** @type {any} */ (globalThis)[RECORDER] = recording;
}
