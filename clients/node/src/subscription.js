// A subscription that outlives its connections.

import { authorization } from './attempts.js';
import { TidingsError, refusal } from './error.js';
import { EventParser } from './event-parser.js';
import { topicsOf } from './events.js';
import { checkOptions } from './options.js';

const OPTIONS = ['since', 'patterns', 'signal'];
/** A hub sends a heartbeat every 15 seconds; a stream that is silent for longer is dead. */
const IDLE_MILLIS = 45_000;
/** The shortest wait before the next connection. */
const DELAY_MILLIS_MIN = 100;
/** The random part of a wait doubles with every failure, up to this. */
const JITTER_MILLIS_FIRST = 1000;
const JITTER_MILLIS_MAX = 30_000;
/** A longer wait that a server asks for counts as this. */
const ASKED_MILLIS_MAX = 3_600_000;
/** Refusals that pass. Others end the subscription. */
const TRANSIENT = new Set([408, 425, 429, 500, 502, 503, 504, 507]);

/**
 * @typedef {object} SubscribeOptions
 * @property {string} [since] where it begins: `now` (default), `earliest`, `-50`, `10m`, a time or the id of an event
 * @property {string[]} [patterns] URL Patterns, as in `/rooms/:room`
 * @property {AbortSignal} [signal] ends the iteration, without an error
 */

/**
 * An event that was published.
 *
 * @typedef {{ kind: 'event', topic: string, id: string, type: string, time: Date, data: string }} ReceivedEvent
 */

/**
 * Events that this subscription could have received are gone; it continues with the oldest that remains.
 *
 * @typedef {{ kind: 'gap', reason: 'expired' | 'unknown' | 'other-log', requested?: string, oldest?: string, newest?: string }} Gap
 */

/** @typedef {ReceivedEvent | Gap} Item */

/** @typedef {import('./address.js').Hub} Hub */

/** What one connection leaves to the next. @typedef {{ lastId: string, retryMillis?: number }} Progress */

/**
 * @param {() => Promise<Hub>} findHub
 * @param {string | string[]} topics
 * @param {SubscribeOptions} options
 * @returns {AsyncGenerator<Item, void, void>}
 */
export async function* subscription(findHub, topics, options) {
  checkOptions('subscribing', options, OPTIONS);
  const { since, patterns = [], signal } = options;
  const topic = Array.isArray(topics) && topics.length === 0 ? [] : topicsOf(topics);
  // `hello` is a notice whose id is where the stream begins, should it break before the first event.
  const body = JSON.stringify({ topic, pattern: patterns, since, format: 'json', hello: true });
  /** @type {Progress} */
  const progress = { lastId: '' };
  for (let failures = 0; !signal?.aborted; ) {
    const connection = new Connection(signal);
    let retryAfterMillis;
    try {
      const response = await connection.open(await findHub(), body, progress.lastId);
      if (!response.ok) throw await refusal('subscribing', response);
      failures = 0;
      yield* connection.items(response, progress);
    } catch (error) {
      if (error instanceof TidingsError && !TRANSIENT.has(error.status ?? 0)) throw error;
      failures += 1;
      retryAfterMillis = error instanceof TidingsError ? error.retryAfterMillis : undefined;
    } finally {
      connection.close();
    }
    if (!signal?.aborted) await pause(delayMillis(failures, progress.retryMillis, retryAfterMillis), signal);
  }
}

/** One connection, which is closed when nothing arrives for too long. */
class Connection {
  #abort = new AbortController();
  #signal;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #idle;

  /** @param {AbortSignal | undefined} signal */
  constructor(signal) {
    this.#signal = signal;
    signal?.addEventListener('abort', this.close);
  }

  close = () => {
    clearTimeout(this.#idle);
    this.#signal?.removeEventListener('abort', this.close);
    this.#abort.abort();
  };

  /** @param {Hub} hub @param {string} body @param {string} lastId */
  open(hub, body, lastId) {
    this.#expectBytes();
    /** @type {Record<string, string>} */
    const headers = { ...authorization(hub), Accept: 'text/event-stream', 'Content-Type': 'application/json' };
    if (lastId) headers['Last-Event-ID'] = headerText(lastId);
    return fetch(`${hub.base}/stream`, { method: 'POST', headers, body, signal: this.#abort.signal, redirect: 'manual' });
  }

  /** @param {Response} response @param {Progress} progress @returns {AsyncGenerator<Item, void, void>} */
  async *items(response, progress) {
    const parser = new EventParser(progress.lastId);
    const decoder = new TextDecoder();
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    for (;;) {
      this.#expectBytes();
      const { done, value } = await reader.read();
      // An application may take its time with an item.
      clearTimeout(this.#idle);
      if (done) return;
      for (const event of parser.push(decoder.decode(value, { stream: true }))) {
        // First, so that an item which the application has received does not come again.
        Object.assign(progress, { lastId: event.id, retryMillis: parser.retryMillis });
        const item = itemOf(event);
        if (item) yield item;
        if (this.#abort.signal.aborted) return;
      }
      progress.retryMillis = parser.retryMillis;
    }
  }

  #expectBytes() {
    clearTimeout(this.#idle);
    this.#idle = setTimeout(this.close, IDLE_MILLIS);
  }
}

/** The item of an event. Notices other than gaps concern the connection alone. @param {import('./event-parser.js').ParsedEvent} event @returns {Item | undefined} */
function itemOf({ type, data }) {
  const { kind, time, ...fields } = JSON.parse(data);
  if (type !== 'tidings') return { kind: 'event', ...fields, time: new Date(time) };
  return kind === 'gap' ? { kind, ...fields } : undefined;
}

/** A header carries bytes, and fetch takes each character for one: an id is sent as the bytes of its UTF-8. @param {string} id */
function headerText(id) {
  return String.fromCharCode(...new TextEncoder().encode(id));
}

/**
 * How long to wait. A stream that worked is resumed when the server said; everything else is spread, since a server asks many clients
 * for the same time.
 *
 * @param {number} failures
 * @param {number | undefined} retryMillis
 * @param {number | undefined} retryAfterMillis
 */
function delayMillis(failures, retryMillis = 0, retryAfterMillis = 0) {
  const asked = Math.min(Math.max(retryMillis, retryAfterMillis), ASKED_MILLIS_MAX);
  const jitter = failures === 0 ? 0 : Math.random() * Math.min(JITTER_MILLIS_MAX, JITTER_MILLIS_FIRST * 2 ** (failures - 1));
  return Math.max(DELAY_MILLIS_MIN, asked + jitter);
}

/** @param {number} millis @param {AbortSignal | undefined} signal @returns {Promise<void>} */
function pause(millis, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, millis);
    signal?.addEventListener('abort', end);
  });
}
