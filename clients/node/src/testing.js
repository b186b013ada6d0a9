// For the tests of an application: what it publishes is recorded, and no hub is needed.

import { TidingsError } from './error.js';
import { line, text, topicsOf } from './events.js';
import { recorder, setRecorder } from './recorder.js';

/**
 * An event as it would have been published.
 *
 * @typedef {object} RecordedEvent
 * @property {string} topic the first of its topics
 * @property {string[]} topics
 * @property {string} data the text that subscribers receive
 * @property {any} json the data as a value, if it is JSON
 * @property {string} type
 * @property {boolean} private
 * @property {boolean} ephemeral
 * @property {string | undefined} id
 */

/** Records until it is ended. */
export class Recorder {
  /** Everything that was published, in its order. @type {RecordedEvent[]} */
  published = [];
  /** Everything that was revoked. @type {import('./client.js').Revocation[]} */
  revoked = [];

  /** What was published on one topic. @param {string} topic */
  on(topic) {
    return this.published.filter(({ topics }) => topics.includes(topic));
  }

  /** Forgets what was recorded. */
  clear() {
    this.published.length = this.revoked.length = 0;
  }

  /** Ends the recording. */
  end() {
    if (recorder() === this) setRecorder(undefined);
  }

  [/** @type {any} */ (Symbol).dispose ?? Symbol.for('tidings.dispose')]() {
    this.end();
  }

  /** @param {import('./events.js').NewEvent} event @returns {import('./events.js').Receipt} */
  add(event) {
    // What a hub would not receive fails here as well.
    line(event);
    const topics = topicsOf(event.topic);
    const data = text(event.data);
    const { type = 'message', private: isPrivate = false, ephemeral = false, id } = event;
    this.published.push({ topic: topics[0], topics, data, json: valueOf(data), type, private: isPrivate, ephemeral, id });
    return { id: ephemeral ? null : (id ?? `#recorded-${this.published.length}`) };
  }
}

/** @param {string} data */
function valueOf(data) {
  try {
    return JSON.parse(data);
  } catch {
    return undefined;
  }
}

/**
 * Begins to record what every client publishes:
 *
 *     const recorded = record();
 *     await placeOrder();
 *     assert.deepEqual(recorded.on('user-42')[0].json, { paid: 17 });
 *     recorded.end();
 */
export function record() {
  if (recorder()) throw new TidingsError('what is published is recorded already: call end() of that recording first');
  const recording = new Recorder();
  setRecorder(recording);
  return recording;
}
