// Where the hub is, and the credential for it: `http://:KEY@127.0.0.1:8080`.

import { TidingsError } from './error.js';

const FORM = 'write http://:KEY@127.0.0.1:8080, with the secret of a key of the hub as the password, or http://127.0.0.1:8080 for a hub without keys';

/**
 * A hub, and what this application may use of it.
 *
 * @typedef {object} Hub
 * @property {string} base the address without its credential and without a slash at the end
 * @property {string | undefined} token the secret of a key, or another credential
 * @property {TicketSecret | undefined} ticketSecret makes tickets without the hub
 */

/** @typedef {{ id: string, secret: string }} TicketSecret */

/**
 * @param {{ url: string, token?: string, ticketSecret?: string }} given
 * @returns {Hub}
 */
export function hubAt({ url, token, ticketSecret }) {
  const { base, password } = parseUrl(url);
  if (password !== undefined && token !== undefined) {
    throw new TidingsError(`there are two credentials: one in the URL of the hub at ${base}, and a token (TIDINGS_TOKEN); give one`);
  }
  return { base, token: password ?? token, ticketSecret: ticketSecret === undefined ? undefined : parseTicketSecret(ticketSecret) };
}

/** @param {string} text */
function parseUrl(text) {
  const url = tryUrl(text);
  // The text itself is not shown: it contains a secret.
  if (!url) throw new TidingsError(`the URL of the hub (TIDINGS_URL) is not a URL: ${FORM}`);
  if (!['http:', 'https:'].includes(url.protocol)) {
    throw new TidingsError(`the URL of the hub (TIDINGS_URL) begins with ${url.protocol}: ${FORM}`);
  }
  if (url.username) {
    throw new TidingsError(`the URL of the hub at ${url.host} (TIDINGS_URL) has a user name, and a key has none: ${FORM}`);
  }
  if (url.search || url.hash) {
    throw new TidingsError(`the URL of the hub at ${url.host} (TIDINGS_URL) has a query or a fragment: ${FORM}`);
  }
  const base = url.origin + url.pathname.replace(/\/+$/, '');
  return { base, password: url.password ? decode(url.password) : undefined };
}

/** @param {string} text */
function tryUrl(text) {
  try {
    return new URL(text);
  } catch {
    return undefined;
  }
}

/** @param {string} password */
function decode(password) {
  try {
    return decodeURIComponent(password);
  } catch {
    throw new TidingsError('the key in the URL of the hub (TIDINGS_URL) is not percent-encoded correctly: a "%" in it is written %25');
  }
}

/**
 * @param {string} text
 * @returns {TicketSecret}
 */
function parseTicketSecret(text) {
  const colon = text.indexOf(':');
  if (colon < 1 || colon === text.length - 1) {
    throw new TidingsError('the ticket secret (TIDINGS_TICKET_SECRET) is not ID:SECRET, the id and the secret of a [[ticket_secret]] of the hub');
  }
  return { id: text.slice(0, colon), secret: text.slice(colon + 1) };
}
