// State that is loaded while it changes a thousand times a second: after each pause it is that of the server, also after a gap.
//
// TIDINGS_STATES is how many states each test loads.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { atEnd } from '../../../tests/lib/ending.mjs';
import { Hub } from '../../../tests/lib/hub.mjs';
import { Journal } from '../../../tests/lib/journal.mjs';
import { Proxy } from '../../../tests/lib/proxy.mjs';
import { connect } from '../dist/index.js';
import { state } from '../dist/state.js';

const KEYS = 20;
/** Writes of one burst, and the time that it takes at least: a thousand a second. */
const BATCHES = 12;
const BATCH = 25;
const BATCH_MILLIS = 25;
/** How many states are loaded during a burst, and how many of them are kept up to date during the next one. */
const LOADS = 5;
const KEPT = 2;
const ROUNDS = Math.ceil(Number(process.env.TIDINGS_STATES ?? 30) / LOADS);

/** An application that counts by key, and publishes each new count; every write gets the next number. */
class Application {
  counts = {};
  writes = 0;

  constructor(hub) {
    this.hub = hub;
  }

  async write(count) {
    const lines = Array.from({ length: count }, () => {
      const key = `k${Math.floor(Math.random() * KEYS)}`;
      this.counts[key] = (this.counts[key] ?? 0) + 1;
      this.writes += 1;
      return JSON.stringify({ topic: 'counts', data: JSON.stringify({ key, count: this.counts[key], write: this.writes }) });
    });
    const request = { method: 'POST', body: lines.join('\n'), headers: { 'Content-Type': 'application/x-ndjson' } };
    // A hub that is killed interrupts it. An event that is published twice changes nothing.
    for (;;) {
      const response = await fetch(this.hub.url('/topics'), request).catch(() => undefined);
      if (!response) continue;
      assert.ok(response.ok, await response.text());
      return;
    }
  }

  /** Writes, and calls these functions meanwhile, at random moments. */
  async burst(...meanwhile) {
    const moments = meanwhile.map((run) => [Math.floor(Math.random() * BATCHES), run]);
    for (let batch = 0; batch < BATCHES; batch += 1) {
      const runs = moments.filter(([moment]) => moment === batch).map(([, run]) => run());
      await Promise.all([...runs, this.write(BATCH), pause(BATCH_MILLIS)]);
    }
  }

  /** Its answer to the page, with the cursor that was read first, or without one. */
  async load(withCursor) {
    const summary = await fetch(this.hub.url('/topics/counts'), { headers: { Accept: 'application/json' } });
    const { cursor } = await summary.json();
    const body = JSON.stringify({ counts: this.counts, write: this.writes });
    return new Response(body, { headers: withCursor ? { 'Tidings-Cursor': cursor } : {} });
  }
}

const apply = ({ counts, write }, event) => ({ counts: { ...counts, [event.key]: Math.max(event.count, counts[event.key] ?? 0) }, write: Math.max(write, event.write) });

for (const withCursor of [true, false]) {
  test(`${ROUNDS * LOADS} states that are loaded during 1,000 writes a second ${withCursor ? 'with' : 'without'} a cursor equal that of the server after each pause`, async (t) => {
    const hub = await Hub.start(t, 'serve', '--retry-millis', '100');
    const proxy = await Proxy.start(t, hub.port);
    const application = new Application(hub);
    const journal = new Journal();
    let errors = [];
    /** How many gaps the hub has sent, and how many the client has reported. */
    let [sent, gaps] = [0, 0];
    const onError = (error) => errors.push(String(error));
    const opened = connect(proxy.origin, { onError });
    atEnd(t, () => opened.close());
    opened.onGap('counts', () => (gaps += 1));
    let states = [];
    const load = () => {
      const added = state(opened, 'counts', { load: () => application.load(withCursor), apply, onError });
      added.subscribe(() => journal.add(added.get().write));
      states.push(added);
    };
    const restart = async () => {
      await hub.kill();
      await hub.startAgain();
    };
    for (let round = 0; round < ROUNDS; round += 1) {
      const known = gaps;
      const accident = [() => {}, () => proxy.cut(), restart][round % 3];
      await application.burst(accident, ...Array(LOADS).fill(load));
      await journal.until('all writes', () => states.every((one) => one.get()?.write === application.writes));
      for (const one of states) assert.deepEqual(one.get().counts, application.counts);
      sent += proxy.passed.entries.map(({ text }) => text).join('').split('"kind":"gap"').length - 1;
      proxy.passed.entries = [];
      assert.ok(gaps <= sent, `${gaps} gaps of ${sent}`);
      // The hub has no store: it loses events when it restarts, and only then.
      if (accident === restart) assert.ok(gaps > known);
      else assert.deepEqual(errors, []);
      if (round < 2) assert.equal(gaps, 0);
      for (const one of states.slice(0, -KEPT)) one.close();
      states = states.slice(-KEPT);
      journal.entries = [];
      errors = [];
    }
  });
}

test('state is loaded again after a gap, and loading is tried again when it fails', async (t) => {
  const hub = await Hub.start(t, 'serve', '--retry-millis', '100');
  const journal = new Journal();
  const opened = connect(hub.origin);
  atEnd(t, () => opened.close());
  const loaded = [];
  const load = () => {
    loaded.push(loaded.length);
    if (loaded.length === 1) throw new Error('the server is away');
    return { loads: loaded.length };
  };
  const one = state(opened, 'counts', { load, apply: (value) => value, onError: (error) => journal.add(error.message) });
  assert.equal(one.get(), undefined);
  one.subscribe(() => journal.add(one.get().loads));
  await journal.until('the second attempt', (all) => all.includes(2));
  await hub.publish('counts', '{}');
  await hub.kill();
  await hub.startAgain();
  await journal.until('another state', (all) => all.includes(3));
  assert.equal(journal.entries[0], 'the server is away');
  one.close();
});
