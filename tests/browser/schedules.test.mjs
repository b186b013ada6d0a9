// Eight shared tabs through random accidents: no event is lost or doubled in any tab, and no gap is reported, as the hub keeps its log.
//
// TIDINGS_SEED repeats a run; TIDINGS_ACCIDENTS is their number; TIDINGS_SCHEDULES runs so many schedules in each browser, with the seeds
// that follow; TIDINGS_SLEEP_MS is how long the computer sleeps.

import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { test } from 'node:test';
import { inBrowsers, newPerson, processes, signalAll } from '../lib/browser.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';
import { Proxy } from '../lib/proxy.mjs';
import { random } from '../lib/random.mjs';
import { serve } from '../lib/site.mjs';
import { KEY, configuration, ticketMaker } from '../lib/tickets.mjs';
import { clientFiles, faults, leader, live, openTab, page, upTo, waitFor } from '../lib/tabs.mjs';

const SEED = Number(process.env.TIDINGS_SEED ?? Date.now() % 1_000_000);
const ACCIDENTS = Number(process.env.TIDINGS_ACCIDENTS ?? 8);
const SCHEDULES = Number(process.env.TIDINGS_SCHEDULES ?? 1);
const TABS = 8;
const HEARTBEAT_SECS = 1;
/** Just longer than tabs bear silence. */
const SLEEP_MS = Number(process.env.TIDINGS_SLEEP_MS ?? 2000 * HEARTBEAT_SECS + 600);
/** Long enough for some accidents, short enough that tickets expire during others. */
const TICKET_SECS = 6;
/** Events between two accidents, and the interval of publications: they only set the load. */
const EVENTS = 10;
const PACE_MS = 20;
/** How long a publication may take before it is repeated: a request may hang in `fetch` when the hub is killed as it begins. */
const ATTEMPT_MS = 10_000;

/** Publishes 1, 2, 3… until it is stopped, each until it is acknowledged: repeats have the same key, and are recognised. */
function publisher(hub) {
  let isStopped = false;
  let last = 0;
  const publish = async (number) => {
    const headers = { Authorization: `Bearer ${KEY}`, 'Idempotency-Key': `number-${number}` };
    for (;;) {
      const signal = AbortSignal.timeout(ATTEMPT_MS);
      const response = await fetch(hub.url('/topics/news'), { method: 'POST', body: String(number), headers, signal }).catch(() => null);
      if (response?.ok) return;
      if (response && response.status < 500) throw new Error(`publishing was answered ${response.status}: ${await response.text()}`);
      await pause(PACE_MS);
    }
  };
  const done = (async () => {
    while (!isStopped) {
      await publish(last + 1);
      last += 1;
      await pause(PACE_MS);
    }
  })();
  done.catch(() => {});
  return {
    last: () => last,
    async more(count) {
      const goal = last + count;
      while (last < goal) await Promise.race([pause(PACE_MS), done]);
    },
    async stop() {
      isStopped = true;
      await done;
      return last;
    },
  };
}

inBrowsers('random accidents', (browser, name) => {
  for (let seed = SEED; seed < SEED + SCHEDULES; seed += 1) {
    test(`of ${TABS} tabs lose and double nothing (seed ${seed}, ${ACCIDENTS} accidents)`, (t) => schedule(t, browser(), name, seed));
  }
});

async function schedule(t, browser, name, seed) {
  const make = await ticketMaker(t);
  const files = clientFiles();
  const ticket = () => make(['news'], { expires_at: Math.floor(Date.now() / 1000) + TICKET_SECS });
  const site = await serve(t, { ...files, '/': () => files.page, '/ticket': ticket, '/elsewhere': '<!doctype html><title>elsewhere</title>' });
  const config = await configuration(t, `allow_origin = ["${site}"]\nanonymous = false`);
  const flags = ['--store', await folder(t), '--retry-millis', '200', '--heartbeat-secs', String(HEARTBEAT_SECS)];
  const hub = await Hub.start(t, 'serve', '--config', config, ...flags);
  const proxy = await Proxy.start(t, hub.port);
  files.page = page(proxy.origin, { ticket: '/ticket' });
  const context = (await newPerson(t, browser)).browserContext();
  let tabs = [];
  for (let count = 0; count < TABS; count += 1) tabs.push(await openTab(t, context, site));
  const published = publisher(hub);
  const draw = random(seed);

  /** The tab that holds the connection half of the time, since most can go wrong there. */
  const anyTab = async () => (draw(2) ? leader(tabs) : tabs[draw(tabs.length)]);
  const accidents = {
    async close() {
      const closed = await anyTab();
      tabs = tabs.filter((tab) => tab !== closed);
      await closed.close();
      tabs.push(await openTab(t, context, site));
    },
    async navigate() {
      const tab = await anyTab();
      await tab.goto(`${site}/elsewhere`);
      await published.more(EVENTS);
      await tab.goBack();
      await live(tab);
      const missed = published.last();
      await waitFor(tab, (missed) => window.kept.arrivals.at(-1)?.[0] >= missed, missed);
    },
    async restart() {
      await hub.kill();
      await hub.startAgain();
    },
    cut: () => proxy.cut(),
    async silence() {
      proxy.pause();
      // Past the watchdog: the tabs report it themselves.
      await waitFor(await leader(tabs), () => window.hub.status === 'offline');
      proxy.resume();
    },
    async sleep() {
      const pids = processes(browser.process().pid);
      signalAll(pids, 'SIGSTOP');
      await pause(SLEEP_MS);
      signalAll(pids, 'SIGCONT');
    },
    async expire() {
      await pause(TICKET_SECS * 1000);
    },
    // Firefox cannot be asked to.
    ...(name === 'chromium' && {
      async freeze() {
        const tab = await anyTab();
        const session = await tab.createCDPSession();
        await session.send('Page.setWebLifecycleState', { state: 'frozen' });
        await published.more(EVENTS);
        await session.send('Page.setWebLifecycleState', { state: 'active' });
        await session.detach();
      },
    }),
  };

  const happened = [];
  let remaining = [];
  for (let count = 0; count < ACCIDENTS; count += 1) {
    // All kinds in a random order, then all again.
    if (!remaining.length) remaining = Object.keys(accidents);
    const [accident] = remaining.splice(draw(remaining.length), 1);
    happened.push(accident);
    await accidents[accident]();
    await published.more(EVENTS);
  }
  const last = await published.stop();
  for (const tab of tabs) {
    const kept = await upTo(tab, last);
    assert.deepEqual({ ...faults(kept, last), gaps: kept.gaps }, { lost: [], doubled: [], gaps: [] }, happened.join(', '));
  }
  t.diagnostic(`${last} events; ${happened.join(', ')}`);
}
