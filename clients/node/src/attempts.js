// Requests to the hub within a time, repeated where that can help. A repetition is safe: publications have an idempotency key, and
// making a ticket or revoking twice does no harm. Ephemeral events have none, and are not repeated where they may have arrived.

import { TidingsError, refusal } from './error.js';

/** Answers that a repetition can change. */
const TRANSIENT = new Set([408, 425, 429, 502, 503, 504]);
const FIRST_DELAY_MILLIS = 50;
const DELAY_MILLIS_MAX = 2000;

/**
 * @typedef {object} HubRequest
 * @property {string} what what it does, for errors
 * @property {string} path
 * @property {Record<string, string>} [headers]
 * @property {string | Uint8Array} body
 * @property {boolean} [isSentOnce] it is not repeated if it may have been published
 */

/**
 * Sends a POST, and again until it is answered with success, refused for good, or the time is over; resolves with the text of the answer.
 *
 * @param {import('./address.js').Hub} hub
 * @param {HubRequest} request
 * @param {number} timeoutMillis the limit for all attempts together
 */
export async function post(hub, request, timeoutMillis) {
  const deadline = performance.now() + timeoutMillis;
  /** @type {import('./error.js').Outcome} */
  let outcome = 'not-published';
  for (let attempt = 0; ; attempt += 1) {
    const answer = await once(hub, request, deadline - performance.now());
    if (!(answer instanceof TidingsError)) return answer;
    // What one attempt may have published, another that was refused has not taken back.
    if (answer.outcome === 'unknown') outcome = 'unknown';
    else answer.outcome = outcome;
    const isRefused = answer.status !== undefined && !TRANSIENT.has(answer.status);
    const isFinal = isRefused || (request.isSentOnce && answer.outcome === 'unknown');
    const delay = Math.max(backoffMillis(attempt), answer.retryAfterMillis ?? 0);
    if (isFinal || performance.now() + delay >= deadline) throw answer;
    await new Promise((resolve) => setTimeout(resolve, delay));
  }
}

/** A random time that doubles with every attempt, so that many clients do not come back at once. @param {number} attempt */
function backoffMillis(attempt) {
  return Math.min(DELAY_MILLIS_MAX, FIRST_DELAY_MILLIS * 2 ** attempt) * (0.5 + Math.random() / 2);
}

/**
 * @param {import('./address.js').Hub} hub
 * @param {HubRequest} request
 * @param {number} millis
 * @returns {Promise<string | TidingsError>}
 */
async function once(hub, { what, path, headers, body }, millis) {
  const signal = AbortSignal.timeout(Math.max(1, Math.ceil(millis)));
  try {
    const response = await fetch(hub.base + path, {
      method: 'POST',
      headers: { ...authorization(hub), ...headers },
      body: /** @type {BodyInit} */ (body),
      signal,
      redirect: 'manual',
    });
    return response.ok ? await response.text() : await refusal(what, response);
  } catch (cause) {
    const why = signal.aborted ? 'it did not answer in time' : reason(cause);
    const hint = 'is it running, and is TIDINGS_URL its address?';
    const outcome = couldNotConnect(cause) ? 'not-published' : 'unknown';
    return new TidingsError(`${what} failed, because the hub at ${hub.base} cannot be reached: ${why}; ${hint}`, { cause, outcome });
  }
}

/** The header with the credential. @param {import('./address.js').Hub} hub @returns {Record<string, string>} */
export function authorization({ token }) {
  return token === undefined ? {} : { Authorization: `Bearer ${token}` };
}

/** What fetch reports only as the cause of its error. @param {unknown} error */
export function reason(error) {
  const { cause, message } = /** @type {Error & { cause?: Error & { code?: string } }} */ (error);
  return cause?.message || cause?.code || message || String(error);
}

/** @param {unknown} error */
function couldNotConnect(error) {
  const { cause, code } = /** @type {{ cause?: { code?: string }, code?: string }} */ (error);
  return ['ECONNREFUSED', 'ENOTFOUND', 'ConnectionRefused'].includes(cause?.code ?? code ?? '');
}
