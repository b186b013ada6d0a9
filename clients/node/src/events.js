// What is published: one event, or a batch of lines.

import { TidingsError } from './error.js';
import { checkOptions } from './options.js';

/**
 * @typedef {object} PublishOptions
 * @property {string} [type] the type, for which pages listen with `addEventListener`; without it `onmessage` receives the event
 * @property {string} [id] an id of your own
 * @property {boolean} [private] only subscribers that were granted the topic receive it
 * @property {number} [retry] milliseconds that browsers wait before they reconnect
 * @property {string} [except] the name of a connection that does not receive it
 * @property {boolean} [ephemeral] subscribers that are connected now receive it, and it is not stored: for typing, cursors, progress
 * @property {string} [idempotencyKey] names the publication: under the same key it is published once
 */

/**
 * One event of a batch.
 *
 * @typedef {Omit<PublishOptions, 'idempotencyKey'> & { topic: string | string[], data: unknown }} NewEvent
 */

/**
 * The answer to a publication. An ephemeral event has no id.
 *
 * @typedef {{ id: string | null, duplicate?: boolean }} Receipt
 */

/** @type {readonly string[]} */
const FIELDS = ['type', 'id', 'private', 'retry', 'except', 'ephemeral'];
const DECODER = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The data as the text that is published: text and bytes as they are, everything else as JSON. @param {unknown} data */
export function text(data) {
  if (typeof data === 'string') return data;
  if (data instanceof Uint8Array) {
    try {
      return DECODER.decode(data);
    } catch (cause) {
      throw new TidingsError('the data are bytes that are not text in UTF-8: an event carries text, so encode them, as in base64', { cause });
    }
  }
  const json = toJson(data);
  if (json === undefined) throw new TidingsError(`the data is ${describe(data)}, which JSON cannot express: give text, bytes or a JSON value`);
  return json;
}

/** @param {unknown} data */
function toJson(data) {
  try {
    return JSON.stringify(data);
  } catch (cause) {
    throw new TidingsError(`the data cannot be written as JSON: ${/** @type {Error} */ (cause).message}`, { cause });
  }
}

/** @param {unknown} value */
function describe(value) {
  return value === undefined ? 'undefined' : `a ${typeof value}`;
}

/** @param {unknown} topic @returns {string[]} */
export function topicsOf(topic) {
  const topics = Array.isArray(topic) ? topic : [topic];
  const wrong = topics.find((name) => typeof name !== 'string' || name === '');
  if (topics.length === 0 || wrong !== undefined || topics.includes(undefined)) {
    throw new TidingsError(`the topic is ${JSON.stringify(topic)}: give a text that is not empty, such as "chat", or a list of them`);
  }
  return topics;
}

/** @param {object} options @param {string[]} [more] */
export function checkPublishOptions(options, more = []) {
  checkOptions('publishing', options, [...FIELDS, ...more]);
}

/**
 * An event as a line of a batch.
 *
 * @param {NewEvent} event
 */
export function line(event) {
  const { topic, data, ...options } = event;
  checkPublishOptions(options);
  return JSON.stringify({ topics: topicsOf(topic), data: text(data), ...options });
}

/**
 * The path and query that publish an event on one topic.
 *
 * @param {string} topic
 * @param {PublishOptions} options
 */
export function pathOf(topic, options) {
  const query = new URLSearchParams();
  for (const name of FIELDS) {
    const value = options[/** @type {keyof PublishOptions} */ (name)];
    if (value !== undefined) query.set(name, String(value));
  }
  return `/topics/${encodeURIComponent(topic)}${query.size ?? [...query].length ? `?${query}` : ''}`;
}
