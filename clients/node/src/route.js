// The application's own route for streams: its answer names the topics, and the hub in front of it makes a stream of that
// (docs/auth.md). A development server without a hub in front passes the stream of the hub on by itself.

import { authorization, reason } from './attempts.js';
import { defaultClient } from './default-client.js';
import { isDevelopment } from './environment.js';
import { TidingsError } from './error.js';
import { topicsOf } from './events.js';
import { checkOptions } from './options.js';
import { recorder } from './recorder.js';
import { EXPIRES_SECS_MAX, makeTicket } from './tickets.js';

/** The header that a hub sets when it asks the application. */
const ASKED_BY_HUB = 'tidings-version';
/** Headers of the hub's stream that the browser needs. */
const PASSED_ON = ['content-type', 'cache-control', 'x-accel-buffering'];
const OPTIONS = ['patterns', 'label', 'since', 'expires', 'format', 'hello'];
const NO_HUB =
  'this route names the topics of a stream, and no hub asked for them. Put the hub in front: start the application by `tidings run -- COMMAND`, or the hub with `--authorize URL`';

/**
 * How the stream is, besides its topics.
 *
 * @typedef {object} StreamOptions
 * @property {string[]} [patterns] URL Patterns, as in `/rooms/:room`
 * @property {string} [label] a name for the stream, such as the user, to revoke it by
 * @property {string} [since] where a new stream begins, such as `-50`
 * @property {number} [expires] seconds after which the browser reconnects and this route is asked again
 * @property {'json'} [format]
 * @property {boolean} [hello]
 */

/**
 * The headers of a request: an object of the web standard, or the names of Node in lower case.
 *
 * @typedef {{ get(name: string): string | null } | Record<string, string | string[] | undefined>} RequestHeaders
 */

/**
 * What a route answers.
 *
 * @param {RequestHeaders} headers
 * @param {(string | StreamOptions)[]} wanted
 * @param {AbortSignal | undefined} signal ends a stream that is passed on, when the browser leaves
 * @returns {Promise<Response>}
 */
export async function answer(headers, wanted, signal) {
  const { topics, options } = read(wanted);
  if (header(headers, ASKED_BY_HUB) || recorder()) {
    return new Response(null, { headers: { 'Tidings-Subscribe': query(topics, options).toString() } });
  }
  if (!isDevelopment()) {
    console.error(`tidings: ${NO_HUB}`);
    return new Response(`${NO_HUB}.\n`, { status: 500 });
  }
  return passOn(header(headers, 'last-event-id'), topics, options, signal);
}

/** @param {RequestHeaders} headers @param {string} name @returns {string | undefined} */
function header(headers, name) {
  if (typeof headers.get === 'function') return headers.get(name) ?? undefined;
  return /** @type {Record<string, string | undefined>} */ (headers)[name];
}

/** @param {(string | StreamOptions)[]} wanted @returns {{ topics: string[], options: StreamOptions }} */
function read(wanted) {
  const last = wanted.at(-1);
  const hasOptions = typeof last === 'object' && last !== null;
  const options = /** @type {StreamOptions} */ (hasOptions ? last : {});
  const given = hasOptions ? wanted.slice(0, -1) : wanted;
  checkOptions('a stream', options, OPTIONS);
  if (given.length === 0 && !options.patterns?.length) {
    throw new TidingsError('the stream has no topic: stream(request, "chat", `user-${user.id}`)');
  }
  return { topics: given.length === 0 ? [] : topicsOf(given), options };
}

/** @param {string[]} topics @param {StreamOptions} options */
function query(topics, { patterns = [], ...options }) {
  const pairs = [...topics.map((topic) => ['topic', topic]), ...patterns.map((pattern) => ['pattern', pattern])];
  const more = Object.entries(options).filter(([, value]) => value !== undefined);
  return new URLSearchParams([...pairs, ...more.map(([name, value]) => [name, String(value)])]);
}

/**
 * @param {string | undefined} lastId
 * @param {string[]} topics
 * @param {StreamOptions} options
 * @param {AbortSignal | undefined} signal
 */
async function passOn(lastId, topics, { label, expires, patterns = [], ...rest }, signal) {
  const hub = await defaultClient().hub();
  // A ticket has a label and a lifetime, as the answer to a hub in front has; a key has neither.
  const lifetime = expires === undefined ? undefined : Math.min(expires, EXPIRES_SECS_MAX);
  const token = hub.ticketSecret ? makeTicket(hub.ticketSecret, topics, { patterns, label, expires: lifetime }) : hub.token;
  const headers = new Headers({ ...authorization({ ...hub, token }), Accept: 'text/event-stream' });
  if (lastId !== undefined) headers.set('Last-Event-ID', lastId);
  try {
    const body = query(topics, { patterns, ...rest });
    const response = await fetch(`${hub.base}/stream`, { method: 'POST', headers, body, signal, redirect: 'manual' });
    const passed = PASSED_ON.map((name) => [name, response.headers.get(name)]).filter(([, value]) => value !== null);
    return new Response(response.body, { status: response.status, headers: /** @type {[string, string][]} */ (passed) });
  } catch (error) {
    const text = `The hub at ${hub.base} cannot be reached: ${reason(error)}.\n`;
    return new Response(text, { status: 502, headers: { 'Retry-After': '1' } });
  }
}
