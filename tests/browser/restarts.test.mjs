// Restarts under load: a publisher that never pauses, several EventSources in each browser, and hubs that replace one another.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BROWSERS, launch, newPerson } from '../lib/browser.mjs';
import { folder } from '../lib/folder.mjs';
import { Generations, Hub } from '../lib/hub.mjs';
import { PATIENCE_MS } from '../lib/journal.mjs';
import { Publisher } from '../lib/publisher.mjs';
import { serve } from '../lib/site.mjs';

/** Browsers have six connections for each host. */
const STREAMS = 4;
const DRAIN_SECS = 1;
/** The interval of publications; it only sets the load. */
const PACE_MS = 5;

test('20 restarts under load in Chromium and Firefox lose no event of a shared log and close no EventSource', async (t) => {
  const hub = await Generations.start(t, DRAIN_SECS);
  nothingIsLost(t, await restart(t, hub, 20));
});

test('5 upgrades of the real binary with a store lose no event and close no EventSource', async (t) => {
  const store = await folder(t);
  const hub = await Hub.start(t, 'serve', '--store', store, '--retry-millis', '200');
  nothingIsLost(t, await restart(t, hub, 5));
});

function nothingIsLost(t, { last, pages }) {
  for (const { name, streams } of pages) {
    for (const stream of streams) {
      const numbers = stream.arrivals.map(([, number]) => number);
      const first = [...new Set(numbers)];
      assert.deepEqual(missing(first, last), [], `${name}: events were lost`);
      assert.deepEqual(first, first.toSorted((a, b) => a - b), `${name}: events are out of order`);
      assert.deepEqual(withinConnections(stream), [], `${name}: a connection delivered events twice or out of order`);
      assert.equal(stream.gaps, 0, `${name}: a gap was reported`);
      t.diagnostic(`${name}: ${numbers.length - first.length} of ${last} events again after a reconnect`);
    }
  }
}

test('5 upgrades of the real binary close no EventSource, and report what its log in memory loses', async (t) => {
  const hub = await Hub.start(t, 'serve', '--drain-secs', String(DRAIN_SECS), '--retry-millis', '200');
  const { last, pages } = await restart(t, hub, 5);
  for (const { name, streams } of pages) {
    for (const stream of streams) {
      assert.deepEqual(withinConnections(stream), [], `${name}: a connection delivered events twice or out of order`);
      const lost = missing(stream.arrivals.map(([, number]) => number), last);
      assert.ok(lost.length === 0 || stream.gaps > 0, `${name}: ${lost.length} events were lost and no gap was reported`);
    }
  }
});

/**
 * Subscribes in every browser, publishes without a pause, and upgrades the hub this often, each time as soon as all streams are open again.
 * Resolves with the last number and the events of every stream, when all have the last event.
 */
async function restart(t, hub, times) {
  const site = await serve(t, { '/': '<!doctype html><title>restarts</title>' });
  const people = await Promise.all(
    BROWSERS.map(async (name) => {
      const page = await newPerson(t, await launch(t, name));
      await page.goto(site);
      await page.evaluate(subscribe, hub.url('/stream?topic=news'), STREAMS);
      return { name, page };
    }),
  );
  const everywhere = (find, argument) => Promise.all(people.map(({ page }) => waitFor(page, find, argument)));
  await everywhere(areConnected, 1);
  const publisher = new Publisher((data) => hub.publish('news', data), PACE_MS);
  for (let round = 1; round <= times; round += 1) {
    await hub.upgrade();
    // Every stream has been through all restarts.
    await Promise.race([everywhere(areConnected, round + 1), publisher.failed]);
  }
  const last = await publisher.stop();
  await everywhere(haveArrived, last);
  const pages = await Promise.all(
    people.map(async ({ name, page }) => {
      const streams = await page.evaluate(() => window.streams.map(({ arrivals, gaps, closed }) => ({ arrivals, gaps, closed })));
      return { name, streams };
    }),
  );
  for (const { name, streams } of pages) {
    assert.deepEqual(streams.map((stream) => stream.closed), Array(STREAMS).fill(false), `${name}: an EventSource gave up`);
  }
  assert.ok(last > times, `${last} events are too little load`);
  return { last, pages };
}

/** Runs in the page: opens streams and records their events. */
function subscribe(url, count) {
  window.streams = Array.from({ length: count }, () => {
    const source = new EventSource(url);
    const stream = { source, connections: 0, arrivals: [], gaps: 0, closed: false };
    source.onopen = () => (stream.connections += 1);
    source.onmessage = (event) => stream.arrivals.push([stream.connections, Number(event.data)]);
    source.onerror = () => (stream.closed ||= source.readyState === EventSource.CLOSED);
    source.addEventListener('tidings', (event) => (stream.gaps += JSON.parse(event.data).kind === 'gap'));
    return stream;
  });
}

/** Runs in the page: whether every stream is open for this many times. One that is closed will never be, so it ends the wait. */
function areConnected(times) {
  const connected = ({ source, connections }) => source.readyState === EventSource.OPEN && connections >= times;
  return window.streams.every((stream) => stream.closed || connected(stream));
}

/** Runs in the page: whether every stream has this event. */
function haveArrived(last) {
  return window.streams.every(({ closed, arrivals }) => closed || arrivals.at(-1)?.[1] === last);
}

async function waitFor(page, find, argument) {
  try {
    await page.waitForFunction(find, { timeout: 2 * PATIENCE_MS }, argument);
  } catch (error) {
    const seen = await page.evaluate(() =>
      window.streams.map(({ source, connections, arrivals, gaps, closed }) => {
        return { state: source.readyState, connections, arrivals: arrivals.length, last: arrivals.at(-1), gaps, closed };
      }),
    );
    throw new Error(`never saw ${find.name}(${argument}) in ${JSON.stringify(seen)}`, { cause: error });
  }
}

/** Which of 1 to `last` are not among these numbers. */
function missing(numbers, last) {
  const seen = new Set(numbers);
  return Array.from({ length: last }, (_, place) => place + 1).filter((number) => !seen.has(number));
}

/** Arrivals that are not greater than the one before them on the same connection. */
function withinConnections({ arrivals }) {
  return arrivals.filter(([connection, number], place) => {
    const before = arrivals[place - 1];
    return before?.[0] === connection && before[1] >= number;
  });
}
