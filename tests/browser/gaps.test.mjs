// Shared tabs of a hub that loses events while accidents happen to them: every tab gets a callback for each gap that the hub reported on
// its way, once and in its place, and all events that the hub still had.
//
// TIDINGS_SEED repeats a random run; TIDINGS_ACCIDENTS is their number; TIDINGS_GAP_SCHEDULES runs so many random schedules in each
// browser, with the seeds that follow.

import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { test } from 'node:test';
import { inBrowsers, newPerson } from '../lib/browser.mjs';
import { Past, reports } from '../lib/gaps.mjs';
import { Hub } from '../lib/hub.mjs';
import { Proxy } from '../lib/proxy.mjs';
import { random } from '../lib/random.mjs';
import { serve } from '../lib/site.mjs';
import { clientFiles, leader, live, openTab, waitFor } from '../lib/tabs.mjs';

const SEED = Number(process.env.TIDINGS_SEED ?? Date.now() % 1_000_000);
const ACCIDENTS = Number(process.env.TIDINGS_ACCIDENTS ?? 8);
const SCHEDULES = Number(process.env.TIDINGS_GAP_SCHEDULES ?? 0);
const TABS = 8;
const TOPICS = ['news', 'side'];
/** What the hub keeps: more than is published in most accidents. */
const KEPT = 150;
/** What a tab requests that opens late, in some accidents. */
const HISTORY = '-5';
/** Events between two steps of an accident, and the interval of publications: they only set the load. */
const EVENTS = 10;
const PACE_MS = 20;

/** A page that continues each topic where it was, after a reload as well; without anything to continue it begins at `since`. */
function page(hub, since) {
  return `<!doctype html><title>tab</title><script type="module">
    import { connect } from '/client/index.js';
    const topics = ${JSON.stringify(TOPICS)};
    const kept = JSON.parse(sessionStorage.kept ?? '{"entries":[],"last":{}}');
    window.kept = kept;
    addEventListener('pagehide', () => (sessionStorage.kept = JSON.stringify(kept)));
    window.errors = [];
    window.gaps = () => kept.entries.filter(({ gap }) => gap).length;
    window.hub = connect('${hub}', { tabs: 'shared', onError: (error) => window.errors.push(error.message) });
    const live = new Set();
    for (const topic of topics) {
      const keep = (id, entry) => {
        kept.entries.push({ topic, id, ...entry });
        kept.last[topic] = id;
      };
      const since = kept.last[topic] ? 'id:' + kept.last[topic] : '${since}';
      const onLive = () => (window.isLive = live.add(topic).size === topics.length);
      window.hub.on(topic, (number, { id }) => keep(id, { number }), { since, onLive });
      window.hub.onGap(topic, (gap) => {
        keep(gap.id, { gap });
        if (window.leavesAtGap) location.assign('/elsewhere');
      });
    }
  </script>`;
}

/** Publishes 1, 2, 3… on the topics in turn until it is stopped. */
class Load {
  #hub;
  #past;
  #turn = Promise.resolve();
  #isStopped = false;
  #running;
  /** The last number of each topic. */
  last = {};
  count = 0;

  constructor(hub, past) {
    this.#hub = hub;
    this.#past = past;
    this.#running = this.#run();
    this.#running.catch(() => {});
  }

  /** Runs `action` while nothing is being published, so that it is known what happened first. */
  alone(action) {
    const done = this.#turn.then(action);
    this.#turn = done.catch(() => {});
    return done;
  }

  async publish() {
    const number = this.count + 1;
    const topic = TOPICS[number % TOPICS.length];
    const { id } = await this.#hub.publish(topic, String(number));
    this.#past.add(topic, number, id);
    this.last[topic] = number;
    this.count = number;
  }

  /** Resolves after some more events. */
  async more() {
    const goal = this.count + EVENTS;
    while (this.count < goal) await Promise.race([pause(PACE_MS), this.#running]);
  }

  stop() {
    this.#isStopped = true;
    return this.#running;
  }

  async #run() {
    while (!this.#isStopped) {
      await this.alone(() => this.publish());
      await pause(PACE_MS);
    }
  }
}

/** A hub that keeps its log in memory, tabs that reach it through a proxy, and what can happen to all of them. */
class Scene {
  tabs = [];
  load;
  #past = new Past();
  #happened = [];
  #name;
  #draw;
  #site;
  #hub;
  #proxy;
  /** Opens a tab at a path of the site. */
  #open;

  static async start(t, browser, name, tabs, seed) {
    const scene = new Scene();
    scene.#name = name;
    scene.#draw = random(seed);
    const files = clientFiles();
    const pages = { '/': () => files.page, '/late': () => files.late, '/elsewhere': '<!doctype html><title>elsewhere</title>' };
    scene.#site = await serve(t, { ...files, ...pages });
    const flags = ['--retain-count', String(KEPT), '--retry-millis', '200', '--heartbeat-secs', '1'];
    scene.#hub = await Hub.start(t, 'serve', '--allow-origin', scene.#site, ...flags);
    scene.#proxy = await Proxy.start(t, scene.#hub.port);
    files.page = page(scene.#proxy.origin, 'now');
    files.late = page(scene.#proxy.origin, HISTORY);
    const context = (await newPerson(t, browser)).browserContext();
    scene.#open = (path) => openTab(t, context, scene.#site + path);
    await scene.#begin();
    scene.load = new Load(scene.#hub, scene.#past);
    for (let count = 0; count < tabs; count += 1) scene.tabs.push(await scene.#open('/'));
    return scene;
  }

  /** A log has begun. */
  async #begin() {
    const response = await fetch(this.#hub.url(`/topics/${TOPICS[0]}`), { headers: { Accept: 'application/json' } });
    this.#past.begin(response.headers.get('tidings-cursor'));
  }

  /** How the hub loses events. A deletion, and retention, concern tabs only that have not received the events. */
  #losses = {
    restart: () =>
      this.load.alone(async () => {
        await this.#hub.kill();
        await this.#hub.startAgain();
        await this.#begin();
      }),
    retention: () =>
      this.load.alone(async () => {
        for (let count = 0; count <= KEPT; count += 1) await this.load.publish();
      }),
    deletion: () =>
      this.load.alone(async () => {
        const topic = this.#any(TOPICS);
        const response = await fetch(this.#hub.url(`/topics/${topic}`), { method: 'DELETE' });
        assert.equal(response.status, 204);
        this.#past.delete(topic);
      }),
  };

  /** A loss, by default any, after events that a tab that is away has not received, and before others. */
  async #lose(loss = this.#any(Object.keys(this.#losses))) {
    this.#happened.push(loss);
    await this.load.more();
    await this.#losses[loss]();
    await this.load.more();
  }

  /** The network is away during a loss, and whatever else happens; ends when the tab that then holds the connection has a gap. */
  async #loseOffline(loss, meanwhile = () => {}) {
    const before = new Map();
    for (const tab of this.tabs) before.set(tab, await tab.evaluate(() => window.gaps()));
    this.#proxy.pause();
    this.#proxy.cut();
    await this.#lose(loss);
    await meanwhile();
    this.#proxy.resume();
    const holder = await leader(this.tabs);
    await waitFor(holder, (count) => window.gaps() > count, before.get(holder) ?? 0);
  }

  #any(list) {
    return list[this.#draw(list.length)];
  }

  /** The tab that holds the connection half of the time, since most can go wrong there. */
  async #anyTab() {
    return this.#draw(2) ? leader(this.tabs) : this.#any(this.tabs);
  }

  async #close(tab) {
    this.tabs = this.tabs.filter((other) => other !== tab);
    await tab.close();
  }

  #accidents = {
    network: (loss) => this.#loseOffline(loss),
    /** The tab that takes over meets the gap. */
    handover: async (loss) => {
      await this.#loseOffline(loss, async () => this.#close(await leader(this.tabs)));
      this.tabs.push(await this.#open('/'));
    },
    /** The hub loses its log while another tab takes over. */
    crash: async () => {
      const holder = await leader(this.tabs);
      await Promise.all([this.#losses.restart(), this.#close(holder)]);
      this.tabs.push(await this.#open('/'));
    },
    /** The tab that has received the gap leaves at once, and returns when another has gone on. */
    leave: async (loss) => {
      const holder = await leader(this.tabs);
      await holder.evaluate(() => (window.leavesAtGap = true));
      this.#proxy.pause();
      this.#proxy.cut();
      await this.#lose(loss);
      const left = holder.waitForNavigation();
      this.#proxy.resume();
      await left;
      await leader(this.tabs.filter((tab) => tab !== holder));
      await this.load.more();
      await holder.goBack();
      await live(holder);
      await holder.evaluate(() => (window.leavesAtGap = false));
    },
    /** A tab opens while the gap is still to come, with history or without. */
    late: async (loss) => {
      await this.#close(await this.#anyTab());
      const path = this.#any(['/', '/late']);
      let opening;
      await this.#loseOffline(loss, () => {
        opening = this.#open(path);
        opening.catch(() => {});
      });
      this.tabs.push(await opening);
    },
    /** A tab that is on another page misses what the others receive. */
    away: async (loss) => {
      const tab = await this.#anyTab();
      await tab.goto(`${this.#site}/elsewhere`);
      await this.#lose(loss);
      await tab.goBack();
      await live(tab);
    },
    cut: () => this.#proxy.cut(),
    // Firefox cannot be asked to.
    freeze: async (loss) => {
      const tab = await this.#anyTab();
      const session = await tab.createCDPSession();
      await session.send('Page.setWebLifecycleState', { state: 'frozen' });
      await this.#lose(loss);
      await session.send('Page.setWebLifecycleState', { state: 'active' });
      await session.detach();
    },
  };

  async happen(accident, loss) {
    this.#happened.push(accident);
    await this.#accidents[accident](loss);
    await this.load.more();
  }

  /** Accidents with any losses: all kinds that this browser knows in a random order, then all again. */
  async happenAtRandom(count) {
    let remaining = [];
    for (; count; count -= 1) {
      if (!remaining.length) remaining = Object.keys(this.#accidents).filter((kind) => kind !== 'freeze' || this.#name === 'chromium');
      await this.happen(...remaining.splice(this.#draw(remaining.length), 1));
    }
  }

  /** Ends the load. Every tab gets the rest, and nothing is wrong with what it received; resolves with the number of gaps of each. */
  async verify(t) {
    await this.load.stop();
    const { last, count } = this.load;
    const has = (last) => last.every(([topic, number]) => window.kept.entries.some((entry) => entry.topic === topic && entry.number === number));
    for (const tab of this.tabs) await waitFor(tab, has, Object.entries(last));
    const reported = reports(this.#proxy);
    const happened = this.#happened.join(', ');
    const gaps = [];
    for (const tab of this.tabs) {
      const { entries } = await tab.evaluate(() => window.kept);
      const received = TOPICS.map((topic) => entries.filter((entry) => entry.topic === topic));
      assert.deepEqual(TOPICS.flatMap((topic, place) => this.#past.faults(topic, received[place], reported)), [], happened);
      gaps.push(Math.min(...received.map((entries) => entries.filter(({ gap }) => gap).length)));
    }
    t.diagnostic(`${count} events, ${reported.length} reports of gaps, callbacks for each tab: ${gaps.join(' ')}; ${happened}`);
    return gaps;
  }
}

inBrowsers('gaps', (browser, name) => {
  test('reach every tab once and in their place, whichever tab meets them', async (t) => {
    const scene = await Scene.start(t, browser(), name, 3, SEED);
    await scene.happen('handover', 'restart');
    await scene.happen('leave', 'deletion');
    await scene.happen('late', 'retention');
    await scene.happen('away', 'deletion');
    const gaps = await scene.verify(t);
    assert.ok(Math.max(...gaps) >= 3, `too few gaps: ${gaps}`);
  });

  for (let seed = SEED; seed < SEED + SCHEDULES; seed += 1) {
    test(`in random accidents reach every tab once and in their place (seed ${seed}, ${ACCIDENTS} accidents)`, async (t) => {
      const scene = await Scene.start(t, browser(), name, TABS, seed);
      await scene.happenAtRandom(ACCIDENTS);
      await scene.verify(t);
    });
  }
});

test('what is wrong with the gaps of a subscriber is found', () => {
  const past = new Past();
  past.begin('#a.0');
  for (const number of [1, 2, 3]) past.add('news', number, `#a.${number}`);
  past.begin('#b.0');
  for (const number of [4, 5]) past.add('news', number, `#b.${number}`);
  const gap = { id: '#b.0', reason: 'other-log', requested: '#a.2', oldest: '#b.4', newest: '#b.5' };
  const [one, two, four, five] = [[1, '#a.1'], [2, '#a.2'], [4, '#b.4'], [5, '#b.5']].map(([number, id]) => ({ number, id }));
  const faults = (...entries) => past.faults('news', entries, [gap]);
  assert.deepEqual(faults(one, two, { gap }, four, five), []);
  for (const [what, entries, found] of [
    ['missing', [one, two, four, five], [/events 3 before 4 are missing/, /another log/]],
    ['late', [one, two, four, { gap }, five], [/events 3 before 4 are missing/, /another log/, /came after what follows it/]],
    ['early', [one, { gap }, two, four, five], [/event 2 came twice, or too late/]],
    ['called back twice', [one, two, { gap }, { gap }, four, five], [/callback number 2/, /came after what follows it/]],
    ['not reported', [one, two, { gap: { ...gap, requested: '#a.3' } }, four, five], [/reported 0 times/, /events 3 before 4/]],
    ['no reason for what is missing after it', [one, two, { gap }, five], [/events 4 before 5 are missing/]],
  ]) {
    const actual = faults(...entries);
    assert.ok(actual.length >= found.length && found.every((expected) => actual.some((fault) => expected.test(fault))), `${what}: ${actual.join('; ')}`);
  }
});
