// Tabs of a simulated browser, and a simulated hub that loses events: every tab gets a callback for each gap that the hub reported on its
// way, once and in its place, and all events that the hub still had.
//
// TIDINGS_SEED is the first seed; TIDINGS_SIMULATIONS is how many schedules are run, with the seeds that follow.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Past } from '../../../tests/lib/gaps.mjs';
import { random } from '../../../tests/lib/random.mjs';
import { World } from './world.mjs';

const SEED = Number(process.env.TIDINGS_SEED ?? Date.now() % 1_000_000);
const SIMULATIONS = Number(process.env.TIDINGS_SIMULATIONS ?? 30);
const TOPICS = ['news', 'side'];
const TABS = 4;
const ACTIONS = 60;
/** The longest time between two actions, in milliseconds. */
const PAUSE_MAX = 30;
/** How long a document takes to load: longer than messages between tabs. */
const LOADING_MILLIS = 10;
/** Until everything has been tried again, and has arrived. */
const PATIENCE_MILLIS = 10_000;

class Schedule {
  #past = new Past();
  #tabs = [];
  #count = 0;
  /** The last number of each topic. */
  #last = {};
  #draw;
  #world;

  constructor(seed) {
    this.#draw = random(seed);
    this.#world = new World(this.#draw);
    this.#past.begin(this.#world.hub.newest());
    for (let count = 0; count < TABS; count += 1) this.#open('now');
  }

  /** Resolves with what is wrong. */
  async run() {
    const kinds = Object.keys(this.#actions);
    await this.#world.pass(PATIENCE_MILLIS);
    for (let count = 0; count < ACTIONS; count += 1) {
      await this.#actions[kinds[this.#draw(kinds.length)]]();
      await this.#world.pass(this.#draw(PAUSE_MAX));
      this.#publish(TOPICS[this.#draw(TOPICS.length)]);
    }
    this.#world.isOnline = true;
    for (const tab of this.#tabs) this.#world.tell(tab, 'pageshow');
    await this.#world.pass(PATIENCE_MILLIS);
    TOPICS.forEach((topic) => this.#publish(topic));
    await this.#world.pass(PATIENCE_MILLIS);
    return [...this.#world.errors, ...this.#tabs.flatMap((tab, place) => this.#faults(tab).map((fault) => `tab ${place}: ${fault}`))];
  }

  #actions = {
    publish: () => {
      for (let count = this.#draw(6); count; count -= 1) this.#publish(TOPICS[this.#draw(TOPICS.length)]);
    },
    restart: () => {
      this.#world.hub.restart();
      this.#past.begin(this.#world.hub.newest());
      this.#world.cut();
    },
    deletion: () => {
      const topic = TOPICS[this.#draw(TOPICS.length)];
      this.#world.hub.remove((event) => event.topic === topic);
      this.#past.delete(topic);
    },
    retention: () => this.#world.hub.keep(this.#draw(5)),
    cut: () => this.#world.cut(),
    network: () => {
      this.#world.isOnline = !this.#world.isOnline;
      if (!this.#world.isOnline) this.#world.cut();
    },
    replace: () => {
      this.#end(this.#anyTab());
      this.#open(this.#draw(2) ? 'now' : 'earliest');
    },
    reload: async () => {
      const tab = this.#anyTab();
      this.#end(tab);
      await this.#world.pass(LOADING_MILLIS);
      this.#open('now', tab.kept);
    },
    leave: () => this.#world.tell(this.#anyTab(), 'pagehide'),
    enter: () => this.#world.tell(this.#anyTab(), 'pageshow'),
  };

  /** A tab that continues each topic where it was, or begins at `since`. */
  #open(since, kept = { entries: [], last: {} }) {
    const tab = this.#world.open((hub) => {
      for (const topic of TOPICS) {
        const keep = (id, entry) => {
          kept.entries.push({ topic, id, ...entry });
          kept.last[topic] = id;
        };
        hub.on(topic, (number, { id }) => keep(id, { number }), { since: kept.last[topic] ? `id:${kept.last[topic]}` : since });
        hub.onGap(topic, (gap) => keep(gap.id, { gap }));
      }
    });
    this.#tabs.push(Object.assign(tab, { since, kept }));
  }

  #end(tab) {
    this.#world.end(tab);
    this.#tabs = this.#tabs.filter((other) => other !== tab);
  }

  /** The one that has been open for longest half of the time: it may hold the connection. */
  #anyTab() {
    return this.#tabs[this.#draw(2) ? 0 : this.#draw(TABS)];
  }

  #publish(topic) {
    this.#count += 1;
    this.#last[topic] = this.#count;
    this.#past.add(topic, this.#count, this.#world.hub.publish(topic, this.#count));
  }

  #faults({ since, kept, histories }) {
    const found = TOPICS.flatMap((topic) => {
      const entries = kept.entries.filter((entry) => entry.topic === topic);
      const last = entries.findLast(({ number }) => number)?.number;
      const faults = this.#past.faults(topic, entries, this.#world.hub.notices);
      return last === this.#last[topic] ? faults : [...faults, `event ${this.#last[topic]} is missing after ${last}`];
    });
    if (since === 'earliest' && histories < TOPICS.length) found.push('it never got its history');
    return found;
  }
}

test(`${SIMULATIONS} schedules of simulated losses and accidents (from seed ${SEED}) lose, double and misplace no event and no gap`, async () => {
  for (let seed = SEED; seed < SEED + SIMULATIONS; seed += 1) {
    assert.deepEqual(await new Schedule(seed).run(), [], `seed ${seed}`);
  }
});
