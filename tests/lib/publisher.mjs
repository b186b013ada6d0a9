// A publisher that never stops for long, whatever happens to the hub.

import { setTimeout as pause } from 'node:timers/promises';

/** Publishes 1, 2, 3… as text, each after the previous one was acknowledged, until it is stopped. */
export class Publisher {
  #stopped = false;
  #done;
  /** The last number that was acknowledged. */
  last = 0;

  /** `publish(text)` resolves once the hub has acknowledged the event; then there is a pause of `paceMs`, which only sets the load. */
  constructor(publish, paceMs) {
    this.#done = this.#publish(publish, paceMs);
    /** Never resolves; rejects if a publication was refused or left without an answer. */
    this.failed = this.#done.then(() => new Promise(() => {}));
    this.failed.catch(() => {});
  }

  /** Resolves with the last number that was acknowledged. */
  async stop() {
    this.#stopped = true;
    await this.#done;
    return this.last;
  }

  async #publish(publish, paceMs) {
    while (!this.#stopped) {
      await publish(String(this.last + 1));
      this.last += 1;
      await pause(paceMs);
    }
  }
}
