// Publishing that never delays or fails the application: a bounded queue in memory, emptied in order.

import { TidingsError } from './error.js';

const EVENTS_MAX_DEFAULT = 1000;
/** How long an event is tried. */
const TIMEOUT_MILLIS_DEFAULT = 30_000;
/** The default report of drops is at most this often. */
const REPORT_MILLIS = 10_000;

/**
 * @typedef {object} BackgroundOptions
 * @property {number} [eventsMax] how many events wait at most; one more is dropped, 1000 by default
 * @property {number} [timeoutMillis] how long one event is tried, 30 seconds by default
 * @property {(drop: Drop) => void} [onDrop] is called for each event that is dropped; without it the console is, once in ten seconds
 */

/** @typedef {{ topic: string | string[], data: unknown, options: import('./events.js').PublishOptions }} Queued */

/** @typedef {{ topic: string | string[], data: unknown, error: TidingsError }} Drop */

export class BackgroundQueue {
  #publish;
  #options;
  /** @type {Queued[]} */
  #queue = [];
  /** @type {Promise<void> | undefined} */
  #working;
  #reported = { at: -Infinity, dropped: 0 };
  dropped = 0;

  /**
   * @param {(event: Queued, timeoutMillis: number) => Promise<unknown>} publish
   * @param {BackgroundOptions} [options]
   */
  constructor(publish, options = {}) {
    this.#publish = publish;
    this.#options = { eventsMax: EVENTS_MAX_DEFAULT, timeoutMillis: TIMEOUT_MILLIS_DEFAULT, onDrop: this.#warn.bind(this), ...options };
  }

  /** @param {Queued} event */
  add(event) {
    const { eventsMax } = this.#options;
    if (this.#queue.length >= eventsMax) {
      return this.#drop(event, new TidingsError(`${eventsMax} events wait for the hub already (background.eventsMax)`));
    }
    this.#queue.push(event);
    this.#working ??= this.#work();
  }

  /** @param {number} timeoutMillis */
  async flush(timeoutMillis) {
    if (!this.#working) return true;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const timeout = new Promise((resolve) => (timer = setTimeout(resolve, timeoutMillis)));
    await Promise.race([this.#working, timeout]);
    clearTimeout(timer);
    return this.#working === undefined;
  }

  async #work() {
    // The event that is being published counts as waiting, so it leaves the queue last.
    for (; this.#queue.length > 0; this.#queue.shift()) {
      const [event] = this.#queue;
      await this.#publish(event, this.#options.timeoutMillis).catch((error) => this.#drop(event, error));
    }
    this.#working = undefined;
  }

  /** @param {Queued} event @param {TidingsError} error */
  #drop({ topic, data }, error) {
    this.dropped += 1;
    try {
      this.#options.onDrop({ topic, data, error });
    } catch (failure) {
      console.error('tidings: onDrop failed:', failure);
    }
  }

  /** @param {Drop} drop */
  #warn({ error }) {
    const now = performance.now();
    if (now - this.#reported.at < REPORT_MILLIS) return;
    const count = this.dropped - this.#reported.dropped;
    this.#reported = { at: now, dropped: this.dropped };
    console.warn(`tidings: dropped ${count} ${count === 1 ? 'event' : 'events'} since the last report: ${error.message}`);
  }
}
