// A hub as an application uses it: publish, make tickets, revoke, subscribe.

import { randomUUID } from 'node:crypto';
import { hubAt } from './address.js';
import { post } from './attempts.js';
import { BackgroundQueue } from './background.js';
import { isDevelopment, variable } from './environment.js';
import { TidingsError } from './error.js';
import { checkPublishOptions, line, pathOf, text, topicsOf } from './events.js';
import { recorder } from './recorder.js';
import { subscription } from './subscription.js';
import { checkTicket, makeTicket } from './tickets.js';

/** How long a request of an application may take by default, all attempts together. */
const TIMEOUT_MILLIS_DEFAULT = 2000;
/** Signs tickets while a test records; no hub accepts them. */
const RECORDED_SECRET = { id: 'test', secret: 'of tickets that no hub accepts' };

/**
 * @typedef {object} ClientOptions
 * @property {string} [url] `http://:KEY@127.0.0.1:8080`; by default TIDINGS_URL, and in development a hub that is started
 * @property {string} [token] the secret of a key, if it is not in the URL; by default TIDINGS_TOKEN
 * @property {string} [ticketSecret] `ID:SECRET`, to make tickets without asking the hub; by default TIDINGS_TICKET_SECRET
 * @property {number} [timeoutMillis] how long a request may take, all attempts together
 * @property {import('./background.js').BackgroundOptions} [background] the queue of `publishLater`
 */

/**
 * What is revoked: one of these, and for how long it is refused.
 *
 * @typedef {object} Revocation
 * @property {string} [label]
 * @property {string} [ticket]
 * @property {string} [jti]
 * @property {string} [issuer]
 * @property {string} [id]
 * @property {string} [connection]
 * @property {number} [expires] for how many seconds a ticket or token is refused, a day by default
 */

export class Client {
  #options;
  #timeoutMillis;
  #background;
  /** @type {Promise<import('./address.js').Hub> | undefined} */
  #hub;

  /** @param {ClientOptions} [options] */
  constructor(options = {}) {
    const { timeoutMillis = TIMEOUT_MILLIS_DEFAULT, background } = options;
    if (!(timeoutMillis > 0)) throw new TidingsError(`timeoutMillis is ${timeoutMillis}: give milliseconds, more than 0`);
    this.#options = options;
    this.#timeoutMillis = timeoutMillis;
    this.#background = new BackgroundQueue((event, timeout) => this.#publish(event.topic, event.data, event.options, timeout), background);
  }

  /**
   * Publishes an event, and resolves when it is in the log of the hub. Text and bytes are published as they are, everything else as JSON.
   *
   * @param {string | string[]} topic several topics are those of one event
   * @param {unknown} data
   * @param {import('./events.js').PublishOptions} [options]
   * @returns {Promise<import('./events.js').Receipt>}
   */
  publish(topic, data, options = {}) {
    return this.#publish(topic, data, options, this.#timeoutMillis);
  }

  /**
   * Publishes all of these events or none, in their order. A repetition under the same key is answered with the receipt of the first
   * event alone.
   *
   * @param {Iterable<import('./events.js').NewEvent>} events
   * @param {{ idempotencyKey?: string }} [options]
   * @returns {Promise<import('./events.js').Receipt[]>}
   */
  async publishMany(events, options = {}) {
    const all = [...events];
    const lines = all.map(line);
    if (lines.length === 0) return [];
    const recording = recorder();
    if (recording) return all.map((event) => recording.add(event));
    const key = keyOf(options.idempotencyKey, all.every(({ ephemeral }) => ephemeral));
    return this.#publishLines(lines, `publishing ${lines.length} events`, key, this.#timeoutMillis);
  }

  /**
   * Publishes an event in the background: it never delays or fails what the application does. A bounded queue keeps events in order
   * while the hub cannot be reached; what is dropped is reported to `onDrop`.
   *
   * @param {string | string[]} topic
   * @param {unknown} data
   * @param {import('./events.js').PublishOptions} [options]
   */
  publishLater(topic, data, options = {}) {
    this.#background.add({ topic, data, options: { ...options, idempotencyKey: keyOf(options.idempotencyKey, options.ephemeral) } });
  }

  /**
   * Waits until everything that `publishLater` was given is published or dropped; at most for this time.
   *
   * @param {number} [timeoutMillis]
   * @returns {Promise<boolean>} whether nothing is left
   */
  flush(timeoutMillis = TIMEOUT_MILLIS_DEFAULT) {
    return this.#background.flush(timeoutMillis);
  }

  /** How many events `publishLater` has dropped. */
  get dropped() {
    return this.#background.dropped;
  }

  /**
   * The events on these topics, as they are published. The subscription outlives its connections: it resumes after the last event, and
   * where the hub no longer has an event it could have received, there is an item of the kind `gap`.
   *
   * @param {string | string[]} topics
   * @param {import('./subscription.js').SubscribeOptions} [options]
   * @returns {AsyncGenerator<import('./subscription.js').Item, void, void>}
   */
  subscribe(topics, options = {}) {
    return subscription(() => this.hub(), topics, options);
  }

  /**
   * A ticket, with which a plain EventSource may receive these topics: `new EventSource('https://hub/stream?ticket=…')`.
   *
   * @param {string | string[]} topics
   * @param {import('./tickets.js').TicketOptions} [options]
   * @returns {Promise<string>}
   */
  async ticket(topics, options = {}) {
    const list = Array.isArray(topics) && topics.length === 0 ? [] : topicsOf(topics);
    if (recorder()) return makeTicket(RECORDED_SECRET, list, options);
    const hub = await this.hub();
    if (hub.ticketSecret) return makeTicket(hub.ticketSecret, list, options);
    checkTicket(list, options);
    const { patterns, label, expires, streamsMax, address } = options;
    const body = JSON.stringify({ topic: list, pattern: patterns, label, expires, streams_max: streamsMax, address });
    const request = { what: 'making a ticket', path: '/tickets', headers: { 'Content-Type': 'application/json' }, body };
    return (await post(hub, request, this.#timeoutMillis)).trim();
  }

  /**
   * Ends streams before their credential expires, such as those of a user who logs out: `revoke({ label: 'user-42' })`.
   *
   * @param {Revocation} what
   */
  async revoke(what) {
    const { expires, ...selected } = what;
    const recording = recorder();
    if (recording) return void recording.revoked.push(what);
    const body = JSON.stringify({ ...selected, expires_secs: expires });
    await post(await this.hub(), { what: `revoking ${JSON.stringify(selected)}`, path: '/revoke', body }, this.#timeoutMillis);
  }

  /**
   * Where the hub is. In development, without TIDINGS_URL, this starts one.
   *
   * @returns {Promise<import('./address.js').Hub>}
   */
  hub() {
    this.#hub ??= this.#find().catch((error) => {
      this.#hub = undefined;
      throw error;
    });
    return this.#hub;
  }

  async #find() {
    const { url = variable('TIDINGS_URL'), token = variable('TIDINGS_TOKEN'), ticketSecret = variable('TIDINGS_TICKET_SECRET') } = this.#options;
    if (url !== undefined) return hubAt({ url, token, ticketSecret });
    if (!isDevelopment()) {
      throw new TidingsError('there is no hub: set TIDINGS_URL to http://:KEY@HOST:PORT, or start the application by `tidings run -- COMMAND`, which sets it');
    }
    const { attach } = await import('./development.js');
    const { hub, ended } = await attach();
    // The next use starts another one.
    ended.then(() => (this.#hub = undefined));
    return hubAt(hub);
  }

  /**
   * @param {string | string[]} topic
   * @param {unknown} data
   * @param {import('./events.js').PublishOptions} options
   * @param {number} timeoutMillis
   * @returns {Promise<import('./events.js').Receipt>}
   */
  async #publish(topic, data, options, timeoutMillis) {
    checkPublishOptions(options, ['idempotencyKey']);
    const { idempotencyKey, ...fields } = options;
    const topics = topicsOf(topic);
    const body = text(data);
    const recording = recorder();
    if (recording) return recording.add({ topic, data, ...fields });
    const key = keyOf(idempotencyKey, fields.ephemeral);
    const what = `publishing on ${topics.map((name) => JSON.stringify(name)).join(', ')}`;
    // No URL can contain the topics `.` and `..`.
    if (topics.length > 1 || /^\.\.?$/.test(topics[0])) {
      const [receipt] = await this.#publishLines([line({ topic: topics, data: body, ...fields })], what, key, timeoutMillis);
      return receipt;
    }
    const request = { what, path: pathOf(topics[0], fields), body, ...underKey('text/plain; charset=utf-8', key) };
    return JSON.parse(await post(await this.hub(), request, timeoutMillis));
  }

  /**
   * @param {string[]} lines
   * @param {string} what
   * @param {string | undefined} key
   * @param {number} timeoutMillis
   * @returns {Promise<import('./events.js').Receipt[]>}
   */
  async #publishLines(lines, what, key, timeoutMillis) {
    const request = { what, path: '/topics', body: lines.join('\n'), ...underKey('application/x-ndjson', key) };
    return JSON.parse(await post(await this.hub(), request, timeoutMillis)).events;
  }
}

/**
 * The idempotency key of a publication. Ephemeral events alone have none: a hub that does not store them cannot recognise a repetition.
 *
 * @param {string | undefined} given
 * @param {boolean | undefined} isEphemeral
 */
function keyOf(given, isEphemeral) {
  return given ?? (isEphemeral ? undefined : randomUUID());
}

/** @param {string} type @param {string | undefined} key */
function underKey(type, key) {
  const headers = { 'Content-Type': type };
  return key === undefined ? { headers, isSentOnce: true } : { headers: { ...headers, 'Idempotency-Key': key } };
}
