// A browser that is simulated and has a time of its own: what happens depends on a seed alone, and takes no time. It has timers, locks,
// channels, requests and events of pages, as far as the client uses them, for tabs that may end at any moment.

import { connect } from '../dist/index.js';
import { SimulatedHub } from './simulated-hub.mjs';

/** How long messages and responses are on their way at most, in milliseconds. */
const DELAY_MAX = 8;
/** What the hub asks clients to wait before they return. */
const RETRY_MILLIS = 20;

export class World {
  hub = new SimulatedHub(() => this.#readings.forEach((reading) => reading.wake?.()));
  isOnline = true;
  /** What nobody caught. */
  errors = [];
  #draw;
  #now = 0;
  #tasks = [];
  /** The tab whose task runs. */
  #running;
  #channels = new Set();
  #locks = [];
  #readings = new Set();

  /** Replaces what the client finds in a browser, in this process. */
  constructor(draw) {
    this.#draw = draw;
    globalThis.setTimeout = (run, delay) => this.#after(delay, run);
    globalThis.setInterval = (run, delay) => this.#repeat(run, delay);
    globalThis.clearTimeout = (task) => task && (task.isCleared = true);
    globalThis.BroadcastChannel = this.#channelClass();
    Object.defineProperty(globalThis, 'navigator', { value: { locks: { request: (...lock) => this.#lock(...lock) } }, configurable: true });
    Date.now = () => this.#now;
    Math.random = () => draw(1000) / 1000;
  }

  /** Opens a tab with a connection to the hub, which `use` is given. Its `histories` counts those that it read from `earliest`. */
  open(use) {
    const tab = { isEnded: false, events: {}, histories: 0 };
    globalThis.addEventListener = (type, react) => (tab.events[type] = react);
    this.#running = tab;
    tab.hub = connect('http://hub/', { tabs: 'shared', source: () => ({ read: (reading) => this.#read(reading) }), onError() {} });
    use(tab.hub);
    return tab;
  }

  /** The browser tells a tab something: `pagehide`, `pageshow`, `online`. */
  tell(tab, type) {
    this.#after(0, tab.events[type], tab);
  }

  /** Ends a tab, which does not notice it. */
  end(tab) {
    tab.isEnded = true;
    this.#channels.forEach((channel) => channel.tab === tab && channel.close());
    this.#readings.forEach((reading) => reading.tab === tab && this.#readings.delete(reading));
    this.#unlock((lock) => lock.tab === tab);
  }

  /** Resets all connections. */
  cut() {
    for (const reading of this.#readings) reading.fail();
  }

  /** Runs everything that happens in this time. */
  async pass(millis) {
    const end = this.#now + millis;
    for (;;) {
      const task = this.#tasks[0];
      if (!task || task.time > end) break;
      this.#tasks.shift();
      this.#now = task.time;
      if (task.isCleared || task.tab?.isEnded) continue;
      this.#running = task.tab;
      try {
        task.run();
      } catch (error) {
        this.errors.push(error);
      }
      await new Promise(setImmediate);
    }
    this.#now = end;
  }

  #after(delay, run, tab = this.#running) {
    const task = { time: this.#now + delay, run, tab, isCleared: false };
    const next = this.#tasks.findIndex(({ time }) => time > task.time);
    this.#tasks.splice(next < 0 ? this.#tasks.length : next, 0, task);
    return task;
  }

  #repeat(run, delay) {
    const interval = { isCleared: false };
    const again = () => {
      if (interval.isCleared) return;
      this.#after(delay, again);
      run();
    };
    this.#after(delay, again);
    return interval;
  }

  #later(run, tab = this.#running) {
    return this.#after(this.#draw(DELAY_MAX), run, tab);
  }

  #channelClass() {
    const world = this;
    return class {
      tab = world.#running;
      #lastAt = 0;

      constructor(name) {
        this.name = name;
        world.#channels.add(this);
      }

      postMessage(message) {
        for (const channel of world.#channels) if (channel !== this && channel.name === this.name) channel.#take(structuredClone(message));
      }

      close() {
        world.#channels.delete(this);
      }

      /** Messages stay in their order. */
      #take(data) {
        this.#lastAt = Math.max(this.#lastAt, world.#now + world.#draw(DELAY_MAX));
        world.#after(this.#lastAt - world.#now, () => world.#channels.has(this) && this.onmessage({ data }), this.tab);
      }
    };
  }

  /** There is one name of a lock only. */
  #lock(name, { signal }, hold) {
    const lock = { tab: this.#running, hold, isHeld: false };
    this.#locks.push(lock);
    const refused = new Promise((_, reject) => (lock.refuse = reject));
    signal.addEventListener('abort', () => {
      if (lock.isHeld) return;
      this.#unlock((other) => other === lock);
      lock.refuse(new Error('aborted'));
    });
    this.#grant();
    return refused;
  }

  #unlock(isMeant) {
    this.#locks = this.#locks.filter((lock) => !isMeant(lock));
    this.#grant();
  }

  #grant() {
    const [lock] = this.#locks;
    if (!lock || lock.isHeld) return;
    lock.isHeld = true;
    this.#later(() => lock.hold().then(() => this.#unlock((other) => other === lock)), lock.tab);
  }

  /** One response. What the hub sends arrives step by step; an open stream ends with the connection only. */
  #read({ keys, since, until, take, signal, onRetry, onBytes }) {
    const topics = [...keys].map((key) => new URLSearchParams(key).get('topic'));
    const reading = { tab: this.#running, isEnded: false };
    this.#readings.add(reading);
    return new Promise((resolve, reject) => {
      const end = (settle, value) => {
        reading.isEnded = true;
        signal.removeEventListener('abort', abort);
        this.#readings.delete(reading);
        settle(value);
      };
      const later = (run) => this.#later(() => reading.isEnded || run(), reading.tab);
      reading.fail = () => later(() => end(reject, new TypeError('The network failed')));
      const abort = () => end(reject, new Error('aborted'));
      signal.addEventListener('abort', abort);
      later(() => {
        if (!this.isOnline) return reading.fail();
        onRetry?.(RETRY_MILLIS);
        const answer = until ? this.hub.history(topics, since, until) : this.hub.stream(topics);
        if (!answer) return end(reject, Object.assign(new Error('until is not known'), { status: 400 }));
        if (since === 'earliest') reading.tab.histories += 1;
        const deliver = () => {
          onBytes?.();
          const { value, done } = answer.next();
          if (done) return end(resolve);
          if (!value) return (reading.wake = () => later(deliver));
          delete reading.wake;
          take(value);
          later(deliver);
        };
        deliver();
      });
    });
  }
}
