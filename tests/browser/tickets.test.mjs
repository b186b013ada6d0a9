// A plain EventSource receives private events: with a ticket from any origin, with a cookie on the hub's own site. The page that renews
// its tickets is that of docs/tickets.md.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eavesdrop, everClosed, inBrowsers, messages, messagesUpTo, newPerson, received } from '../lib/browser.mjs';
import { snippet } from '../lib/document.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';
import { Journal } from '../lib/journal.mjs';
import { serve } from '../lib/site.mjs';
import { DOCUMENT, KEY, configuration, publish, renewingPage, ticketMaker } from '../lib/tickets.mjs';

/** Lifetime of the tickets of a test that waits for expiries. */
const SHORT_SECS = 6;

inBrowsers('tickets and cookies', (browser) => {
  /** A page of the application, with this script, and routes of the application. */
  async function application(t, script, routes = {}) {
    return serve(t, { '/': `<!doctype html><title>application</title><script>${script}</script>`, ...routes });
  }

  /** A hub with a store for the pages of an application. */
  async function hubFor(t, site, ...flags) {
    const file = await configuration(t, `allow_origin = ["${site}"]`);
    return Hub.start(t, 'serve', '--config', file, '--store', await folder(t), '--retry-millis', '300', ...flags);
  }

  /** Opens an EventSource in the page; resolves once it is open, or closed for good. */
  async function listen(page, url, init = {}) {
    const open = (url, init) => {
      const source = new EventSource(url, init);
      return new Promise((settled) => {
        source.onopen = () => settled('open');
        source.onerror = () => source.readyState === EventSource.CLOSED && settled('closed');
      });
    };
    return page.evaluate(open, url, init);
  }

  test('a page of another origin receives private events with its ticket, across a crash of the hub', async (t) => {
    const ticket = await ticketMaker(t);
    const site = await application(t, '');
    const hub = await hubFor(t, site);
    const page = await newPerson(t, browser(), eavesdrop);
    await page.goto(site);
    const script = snippet(DOCUMENT, '**The page**', 'js').replace('http://127.0.0.1:8080', hub.origin);
    await page.evaluate(`{ const ticket = ${JSON.stringify(ticket(['user-42']))}; ${script} }`);
    await received(page, { type: 'open' });
    await publish(hub, 'user-43', 'of somebody else');
    await publish(hub, 'user-42', 'before');
    await received(page, { type: 'message', data: 'before' });
    await hub.kill();
    await hub.startAgain();
    await publish(hub, 'user-43', 'of somebody else');
    await publish(hub, 'user-42', 'after');
    assert.deepEqual(await messagesUpTo(page, 'after'), ['before', 'after']);
    assert.equal(await everClosed(page), false);
  });

  test('a page receives nothing with a tampered ticket, with an expired one, or with that of another user', async (t) => {
    const ticket = await ticketMaker(t);
    const site = await application(t, '');
    const hub = await hubFor(t, site);
    const page = await newPerson(t, browser(), eavesdrop);
    await page.goto(site);
    const mine = ticket(['user-42']);
    const stream = (ticket, topics = '') => hub.url(`/stream?since=earliest${topics}&ticket=${ticket}`);
    await publish(hub, 'user-42', 'private');

    const [version, id, contents, mac] = mine.split('.');
    const changed = Buffer.from(Buffer.from(contents, 'base64url').toString().replace('user-42', 'user-43')).toString('base64url');
    assert.equal(await listen(page, stream([version, id, changed, mac].join('.'))), 'closed');
    assert.equal(await listen(page, stream(mine.slice(0, -1))), 'closed');
    assert.equal(await listen(page, stream(ticket(['user-43']), '&topic=user-42')), 'closed');
    assert.equal(await listen(page, hub.url('/stream?since=earliest&topic=user-42')), 'closed');

    // Not closed for good: the page receives that it needs another one.
    const before = Math.floor(Date.now() / 1000) - 7200;
    const expired = ticket(['user-42'], { issued_at: before, expires_at: before + 3600 });
    assert.equal(await listen(page, stream(expired)), 'open');
    await received(page, { type: 'tidings', data: '{"kind":"expired"}' });

    assert.equal(await listen(page, stream(ticket(['user-43']))), 'open');
    await publish(hub, 'user-43', 'the other');
    assert.deepEqual(await messagesUpTo(page, 'the other'), ['the other']);
    assert.equal(await listen(page, stream(mine)), 'open');
    assert.deepEqual(await messagesUpTo(page, 'private'), ['the other', 'private']);
  });

  test('the page of the document renews its ticket over three expiries and one that it slept through, and loses nothing', async (t) => {
    const ticket = await ticketMaker(t);
    const asked = new Journal();
    let isAwake = true;
    const routes = {
      '/ticket': (response) => {
        asked.add({ isAwake });
        if (!isAwake) response.statusCode = 503;
        const now = Math.floor(Date.now() / 1000);
        return isAwake ? ticket(['user-42'], { expires_at: now + SHORT_SECS }) : '';
      },
      '/page.js': () => script,
    };
    let script = '';
    const site = await serve(t, { '/': '<!doctype html><title>application</title><script src="/page.js"></script>', ...routes });
    const hub = await hubFor(t, site);
    script = renewingPage(hub.origin);
    const page = await newPerson(t, browser(), eavesdrop);
    await page.goto(site);
    await received(page, { type: 'open' });

    const given = () => asked.entries.filter((request) => request.isAwake).length;
    const sent = [];
    const publishNext = async () => {
      sent.push(String(sent.length));
      await publish(hub, 'user-42', sent.at(-1));
    };
    // Nothing is published before the first renewal: the page knows from the notices where it is.
    await asked.until('the first renewal', () => given() > 1);
    while (given() < 4) await publishNext();
    // It cannot renew in time: its stream ends, and events are published while it has none.
    isAwake = false;
    await received(page, { type: 'tidings', data: '{"kind":"expired"}' });
    for (let count = 0; count < 10; count += 1) await publishNext();
    isAwake = true;
    await publishNext();
    assert.deepEqual(await messagesUpTo(page, sent.at(-1)), sent);
    assert.equal(await page.evaluate(() => window.received.some(({ data }) => data?.includes('"gap"'))), false);
  });

  test('a page of the same site receives private events with a cookie, across a crash, and no other page does', async (t) => {
    const site = await application(t, '');
    const hub = await hubFor(t, site);
    const page = await newPerson(t, browser(), eavesdrop);
    // The hub's own page: the same origin.
    await page.goto(hub.url('/'));
    const stream = hub.url('/stream?topic=user-42');
    assert.equal(await listen(page, stream), 'closed');
    await page.evaluate((key) => (document.cookie = `mercure_access_token=${key}`), KEY);
    assert.equal(await listen(page, '/stream?topic=user-42'), 'open');
    await publish(hub, 'user-42', 'before');
    await received(page, { type: 'message', data: 'before' });
    await hub.kill();
    await hub.startAgain();
    await publish(hub, 'user-42', 'after');
    assert.deepEqual((await messagesUpTo(page, 'after')).filter((data) => data !== ''), ['before', 'after']);

    // An allowed page sends it only with credentials; cookies do not tell ports apart, so it is of the same site.
    await page.goto(site);
    assert.equal(await listen(page, stream), 'closed');
    assert.equal(await listen(page, stream, { withCredentials: true }), 'open');
    await publish(hub, 'user-42', 'with credentials');
    assert.deepEqual(await messagesUpTo(page, 'with credentials'), ['with credentials']);

    const stranger = await application(t, '');
    await page.goto(stranger);
    assert.equal(await listen(page, stream, { withCredentials: true }), 'closed');
    const write = (url) => fetch(url, { method: 'POST', body: 'forged', mode: 'no-cors', credentials: 'include' }).then(() => 'sent');
    assert.equal(await page.evaluate(write, hub.url('/topics/user-42')), 'sent');
    await page.goto(site);
    assert.equal(await page.evaluate(write, hub.url('/topics/user-42')), 'sent');
    assert.equal(await listen(page, `${stream}&since=earliest`, { withCredentials: true }), 'open');
    assert.equal((await messagesUpTo(page, 'forged')).filter((data) => data === 'forged').length, 1, 'only the allowed page published');
    assert.ok((await messages(page)).includes('with credentials'));
  });
});
