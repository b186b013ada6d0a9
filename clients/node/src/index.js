// Server push for web applications: publish an event, and every browser that subscribed receives it.
//
//     import { publish, stream } from 'tidings';
//
//     await publish(`user-${order.user}`, { paid: order.id }, { private: true });
//     export const GET = (request) => stream(request, 'chat', `user-${userOf(request)}`);
//
// The functions use the hub of TIDINGS_URL; in development, without it, they start one. A `Client` is another hub.

import { defaultClient } from './default-client.js';
import { answer } from './route.js';

export { Client } from './client.js';
export { TidingsError } from './error.js';

/** @typedef {import('./background.js').Drop} Drop */
/** @typedef {import('./client.js').ClientOptions} ClientOptions */
/** @typedef {import('./client.js').Revocation} Revocation */
/** @typedef {import('./events.js').NewEvent} NewEvent */
/** @typedef {import('./events.js').PublishOptions} PublishOptions */
/** @typedef {import('./events.js').Receipt} Receipt */
/** @typedef {import('./route.js').StreamOptions} StreamOptions */
/** @typedef {import('./subscription.js').Gap} Gap */
/** @typedef {import('./subscription.js').Item} Item */
/** @typedef {import('./subscription.js').ReceivedEvent} ReceivedEvent */
/** @typedef {import('./subscription.js').SubscribeOptions} SubscribeOptions */
/** @typedef {import('./tickets.js').TicketOptions} TicketOptions */

/** See {@link Client.publish}. @type {import('./client.js').Client['publish']} */
export const publish = (topic, data, options) => defaultClient().publish(topic, data, options);

/** See {@link Client.publishMany}. @type {import('./client.js').Client['publishMany']} */
export const publishMany = (events, options) => defaultClient().publishMany(events, options);

/** See {@link Client.publishLater}. @type {import('./client.js').Client['publishLater']} */
export const publishLater = (topic, data, options) => defaultClient().publishLater(topic, data, options);

/** See {@link Client.flush}. @type {import('./client.js').Client['flush']} */
export const flush = (timeoutMillis) => defaultClient().flush(timeoutMillis);

/** See {@link Client.subscribe}. @type {import('./client.js').Client['subscribe']} */
export const subscribe = (topics, options) => defaultClient().subscribe(topics, options);

/** See {@link Client.ticket}. @type {import('./client.js').Client['ticket']} */
export const ticket = (topics, options) => defaultClient().ticket(topics, options);

/** See {@link Client.revoke}. @type {import('./client.js').Client['revoke']} */
export const revoke = (what) => defaultClient().revoke(what);

/**
 * The answer of a route that decides which topics its user receives, for handlers that take a `Request` and return a `Response`: Next,
 * Hono (`context.req.raw`), Deno, Bun; and Fastify, whose request has its headers as an object.
 *
 * @param {{ headers: import('./route.js').RequestHeaders, signal?: AbortSignal }} request
 * @param {...(string | import('./route.js').StreamOptions)} wanted topics, and options at the end
 * @returns {Promise<Response>}
 */
export function stream({ headers, signal }, ...wanted) {
  return answer(headers, wanted, signal);
}
