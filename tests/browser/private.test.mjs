// A plain EventSource receives the private events of its user over HTTPS, in every way that the documents name, whatever happens between
// it and the hub.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { Authority } from '../lib/authority.mjs';
import { BROWSERS, POLLING, everClosed, gaps, messagesUpTo, opened, received } from '../lib/browser.mjs';
import { Deployment } from '../lib/deployment.mjs';
import { PATIENCE_MS } from '../lib/journal.mjs';
import { Publisher } from '../lib/publisher.mjs';
import { putToSleep } from '../lib/sleep.mjs';
import { renewingPage, renewingPageWithCookie } from '../lib/tickets.mjs';
import { launchTrusting } from '../lib/trust.mjs';

/** Lifetime of every credential and stream. */
const EXPIRES_SECS = 3;
/** The interval of publications, and of looks at what has changed. */
const PACE_MS = 50;

/** Where the page is, and its script. */
const WAYS = {
  'the route of the application': ({ app, origin }) => [app, `new EventSource('${origin}/events', { withCredentials: true })`],
  'a cookie on the origin of the hub': ({ app, origin }) => {
    const renewal = `'${app}/renew?as=token', { credentials: 'include', `;
    const page = renewingPageWithCookie(origin).replace("'/renew', { ", renewal).replace('hello: true', "hello: true, topic: 'user-42'");
    return [`${origin}/healthz`, page];
  },
  'a cookie of the same site': ({ app, origin }) => [app, renewingPageWithCookie(origin)],
  'a ticket on another site': ({ other, origin }) => [other, renewingPage(origin)],
};

for (const [version, flags] of Object.entries({ 'HTTP/2': [], 'HTTP/1.1': ['--http2', 'false'] })) {
  test(`over ${version}, Chromium and Firefox receive private events in every way: nothing is lost, twice or of others`, async (t) => {
    const authority = await Authority.create(t);
    const deployment = await Deployment.start(t, authority, { expiresSecs: EXPIRES_SECS, flags });
    const browsers = await Promise.all(BROWSERS.map((name) => launchTrusting(t, name, authority)));
    const pages = await Promise.all(
      browsers.flatMap((browser, place) =>
        Object.entries(WAYS).map(async ([way, of]) => {
          const [address, script] = of(deployment);
          const page = await deployment.page(t, browser, 42, new URL(address).origin === deployment.other ? deployment.other : deployment.app);
          await page.goto(address);
          const protocol = await page.evaluate(() => performance.getEntriesByType('navigation')[0].nextHopProtocol);
          if (address.startsWith(deployment.origin)) assert.equal(protocol, version === 'HTTP/2' ? 'h2' : 'http/1.1');
          await page.evaluate(`(() => { ${script} })()`);
          return { name: `${BROWSERS[place]}, ${way}`, page };
        }),
      ),
    );
    const everywhere = (check, when = 'the beginning') => {
      const failed = (name) => (error) => assert.fail(`${name}, after ${when}: ${error}`);
      return Promise.all(pages.map(({ name, page }, place) => check(page, place).catch(failed(name))));
    };

    await everywhere((page) => opened(page, 1));
    const publisher = new Publisher(async (data) => {
      await deployment.publish('user-43', `${data} of another user`);
      await deployment.publish('user-42', data);
    }, PACE_MS);
    /** Every page connects once more, and then has everything that was published by then. */
    const survives = async (what, step) => {
      const before = await everywhere((page) => opened(page, 0));
      await step();
      const returned = everywhere((page, place) => opened(page, before[place] + 1), what);
      await Promise.race([returned, publisher.failed]);
      const { last } = publisher;
      await everywhere((page) => hasReached(page, last), what);
    };

    await Promise.race([everywhere((page) => messagesUpTo(page, '1')), publisher.failed]);
    await survives('a reconnect', async () => {
      // Firefox closes an EventSource for good whose connection is reset while it reconnects.
      await streamsAre(pages.length, deployment);
      deployment.proxy.cut();
    });
    await survives('a crash', async () => {
      await deployment.hub.kill();
      await deployment.hub.startAgain();
    });
    await survives('an upgrade', () => deployment.hub.upgrade());
    for (let expiry = 1; expiry <= 3; expiry += 1) await survives(`expiry ${expiry}`, () => {});
    for (const connections of ['stay', 'are cut']) {
      await survives(`a sleep in which connections ${connections}`, async () => {
        const awake = browsers.map((browser) => putToSleep(t, browser));
        // The browsers sleep until everything that they have has expired.
        await streamsAre(0, deployment);
        if (connections === 'are cut') deployment.proxy.cut();
        for (const wake of awake) wake();
      });
    }

    const last = await publisher.stop();
    const all = Array.from({ length: last }, (_, place) => String(place + 1));
    await everywhere(async (page) => {
      assert.deepEqual(await messagesUpTo(page, String(last)), all);
      assert.equal(await everClosed(page), false);
      assert.deepEqual(await gaps(page), []);
    }, 'everything');
    t.diagnostic(`${last} events`);
  });
}

for (const name of BROWSERS) {
  test(`in ${name} an EventSource reconnects by itself with a cookie that was renewed before its stream expired`, async (t) => {
    const authority = await Authority.create(t);
    const deployment = await Deployment.start(t, authority, { expiresSecs: 4 });
    const page = await deployment.page(t, await launchTrusting(t, name, authority), 42);
    await page.goto(`${deployment.app}/renew`);
    await page.evaluate((url) => new EventSource(url, { withCredentials: true }), `${deployment.origin}/stream`);
    await opened(page, 1);
    deployment.application.expiresSecs = 3600;
    await page.evaluate(() => fetch('/renew', { method: 'POST' }));
    await received(page, { type: 'tidings', data: '{"kind":"expired"}' });
    await opened(page, 2);
    await deployment.publish('user-42', 'after the expiry');
    assert.deepEqual(await messagesUpTo(page, 'after the expiry'), ['after the expiry']);
  });
}

/** Waits until the newest message of the page has this number, or a later one. */
function hasReached(page, number) {
  const reached = (number) => Number(window.received.findLast(({ type }) => type === 'message')?.data) >= number;
  return page.waitForFunction(reached, POLLING, number);
}

/** Waits until so many streams are open. */
async function streamsAre(count, deployment) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const open = await deployment.streams();
    if (open === count) return;
    assert.ok(Date.now() < deadline, `${open} streams are open, not ${count}`);
    await pause(PACE_MS);
  }
}
