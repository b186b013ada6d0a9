// Tabs of one browser that use the client for browsers (clients/js), and what each of them received.

import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { POLLING } from './browser.mjs';
import { atEnd } from './ending.mjs';
import { PATIENCE_MS } from './journal.mjs';

const BUILT = new URL('../../clients/js/dist/', import.meta.url);

/** The modules of the client, as files of a site: `make test` builds them. */
export function clientFiles() {
  const names = readdirSync(fileURLToPath(BUILT)).filter((name) => name.endsWith('.js'));
  return Object.fromEntries(names.map((name) => [`/client/${name}`, readFileSync(new URL(name, BUILT), 'utf8')]));
}

/**
 * A page that subscribes to `news`. What it received outlives its document: after a reload it continues after the last id. Without
 * `isShared` it has a connection of its own.
 */
export function page(hub, { isShared = true, ticket = '' } = {}) {
  return `<!doctype html><title>tab</title><script type="module">
    import { connect } from '/client/index.js';
    const kept = JSON.parse(sessionStorage.kept ?? '{"arrivals":[],"gaps":[],"statuses":[]}');
    window.kept = kept;
    addEventListener('pagehide', () => (sessionStorage.kept = JSON.stringify(kept)));
    window.errors = [];
    const ticket = ${ticket ? `() => fetch('${ticket}').then((response) => response.text())` : 'undefined'};
    window.hub = connect('${hub}', { tabs: '${isShared ? 'shared' : 'separate'}', ticket, onError: (error) => window.errors.push(error.message) });
    const take = (number, { id, replayed }) => {
      kept.arrivals.push([number, replayed]);
      kept.last = id;
    };
    window.hub.on('news', take, { since: kept.last && 'id:' + kept.last, onLive: () => (window.isLive = true) });
    window.hub.onGap('news', (gap) => kept.gaps.push(gap));
    window.hub.onStatus((status) => kept.statuses.push(status));
  </script>`;
}

/** Opens a tab of this browser, and waits until it is subscribed. */
export async function openTab(t, context, url) {
  const tab = await context.newPage();
  atEnd(t, () => tab.isClosed() || tab.close());
  tab.setDefaultTimeout(PATIENCE_MS);
  await tab.goto(url);
  await live(tab);
  return tab;
}

/** Waits until the tab is subscribed. */
export async function live(tab) {
  await waitFor(tab, () => window.isLive);
}

/** Waits until the tab has received this number; resolves with everything that it received. */
export async function upTo(tab, last) {
  await waitFor(tab, (last) => window.kept.arrivals.at(-1)?.[0] === last, last);
  return tab.evaluate(() => window.kept);
}

/** Waits until this is true in the tab; the error says what is there. */
export async function waitFor(tab, find, argument) {
  try {
    await tab.waitForFunction(find, POLLING, argument);
  } catch (error) {
    const seen = await tab.evaluate(() => ({ ...window.kept, errors: window.errors, status: window.hub?.status })).catch(String);
    if (seen.arrivals) seen.arrivals = seen.arrivals.slice(-20);
    throw new Error(`never saw ${find}(${argument}) in ${JSON.stringify(seen)}`, { cause: error });
  }
}

/** Waits until this is true of the hub, which notices by itself that a connection is gone. */
export async function eventually(probe) {
  const end = performance.now() + PATIENCE_MS;
  while (!(await probe())) if (performance.now() > end) throw new Error(`never saw ${probe}`);
}

/** Whether this tab holds the connection. */
export function isLeading(tab) {
  return tab.evaluate(() =>
    navigator.locks.request(`mine ${Math.random()}`, async ({ name }) => {
      const { held } = await navigator.locks.query();
      const mine = held.find((lock) => lock.name === name).clientId;
      return held.some((lock) => lock.name.startsWith('tidings') && lock.clientId === mine);
    }),
  );
}

/** The tab that holds the connection. */
export async function leader(tabs) {
  let found;
  await eventually(async () => {
    for (const tab of tabs) if (await isLeading(tab)) return (found = tab);
    return false;
  });
  return found;
}

/** What is wrong with the numbers of a tab: those that it did not get between its first and the last one, and those that it got twice or too late. */
export function faults({ arrivals }, last, first = arrivals[0]?.[0] ?? last + 1) {
  const numbers = arrivals.map(([number]) => number);
  const seen = new Set(numbers);
  const lost = Array.from({ length: last - first + 1 }, (_, index) => first + index).filter((number) => !seen.has(number));
  const doubled = numbers.filter((number, index) => index > 0 && number <= numbers[index - 1]);
  return { lost, doubled };
}
