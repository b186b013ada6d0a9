// Tickets, made without the hub: docs/tickets.md, "In any language".

import { Buffer } from 'node:buffer';
import { createHmac, randomUUID } from 'node:crypto';
import { TidingsError } from './error.js';
import { checkOptions } from './options.js';

/** Lifetime of a ticket that says nothing else. */
const EXPIRES_SECS_DEFAULT = 3600;
/** The longest lifetime that a hub accepts. */
export const EXPIRES_SECS_MAX = 86_400;
const LABEL_BYTES_MAX = 256;
const OPTIONS = ['patterns', 'label', 'expires', 'streamsMax', 'address'];

/**
 * What a ticket allows, besides its topics.
 *
 * @typedef {object} TicketOptions
 * @property {string[]} [patterns] URL Patterns that it allows, as in `/rooms/:room`
 * @property {string} [label] the name by which its streams are revoked, such as the user
 * @property {number} [expires] its lifetime in seconds: an hour by default, a day at most
 * @property {number} [streamsMax] how many streams may be open with it at the same time
 * @property {string} [address] the only address of a client that may use it
 */

/**
 * @param {import('./address.js').TicketSecret} secret
 * @param {string[]} topics
 * @param {TicketOptions} options
 */
export function makeTicket(secret, topics, options) {
  const { patterns = [], label, expires = EXPIRES_SECS_DEFAULT, streamsMax, address } = options;
  checkTicket(topics, options);
  const now = Math.floor(Date.now() / 1000);
  // JSON leaves out what is undefined.
  const contents = {
    id: randomUUID(),
    issued_at: now,
    expires_at: now + expires,
    topics: topics.length > 0 ? topics : undefined,
    patterns: patterns.length > 0 ? patterns : undefined,
    label,
    streams_max: streamsMax,
    address,
  };
  return signTicket(secret, JSON.stringify(contents));
}

/**
 * The ticket with these contents, signed.
 *
 * @param {import('./address.js').TicketSecret} secret
 * @param {string} contents a JSON object
 */
export function signTicket({ id, secret }, contents) {
  const message = `tt1.${id}.${Buffer.from(contents).toString('base64url')}`;
  return `${message}.${createHmac('sha256', secret).update(message).digest('base64url')}`;
}

/** @param {string[]} topics @param {TicketOptions} options */
export function checkTicket(topics, options) {
  checkOptions('a ticket', options, OPTIONS);
  const { patterns = [], label, expires = EXPIRES_SECS_DEFAULT, streamsMax } = options;
  if (topics.length + patterns.length === 0) {
    throw new TidingsError('a ticket needs a topic or a pattern: ticket("chat"), or ticket(["chat", "user-42"])');
  }
  if (!Number.isInteger(expires) || expires < 1 || expires > EXPIRES_SECS_MAX) {
    throw new TidingsError(`expires is ${expires}: give whole seconds from 1 to ${EXPIRES_SECS_MAX}, which is a day`);
  }
  if (label !== undefined && (typeof label !== 'string' || label === '' || Buffer.byteLength(label) > LABEL_BYTES_MAX)) {
    throw new TidingsError(`label is ${JSON.stringify(label)}: give 1 to ${LABEL_BYTES_MAX} bytes of text, such as "user-42"`);
  }
  if (streamsMax !== undefined && (!Number.isInteger(streamsMax) || streamsMax < 1)) {
    throw new TidingsError(`streamsMax is ${streamsMax}: give a whole number, 1 at least`);
  }
}
