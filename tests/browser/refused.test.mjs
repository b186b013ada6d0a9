// What a plain EventSource receives over HTTPS with a credential that is not its user's, or not valid: nothing private, and an answer as it
// is documented.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Authority } from '../lib/authority.mjs';
import { BROWSERS, POLLING, messages, messagesUpTo, received } from '../lib/browser.mjs';
import { Deployment, ofCredential } from '../lib/deployment.mjs';
import { ticketMaker } from '../lib/tickets.mjs';
import { token } from '../lib/tokens.mjs';
import { launchTrusting } from '../lib/trust.mjs';

/** For good: the browser does not reconnect. */
const closed = (status) => ({ status, isClosed: true, data: [] });
/** The stream ends with this notice, and the browser would ask again later. */
const notified = (kind) => ({ status: 200, isClosed: false, data: [JSON.stringify({ kind })] });
/** A stream, which begins with this event. */
const receives = (data) => ({ status: 200, isClosed: false, data: [data] });

/** Opens an EventSource in the page, and closes it after the first event or error; resolves with the status and what was received. */
async function attempt(page, url, init = { withCredentials: true }) {
  const answer = page.waitForResponse((response) => response.url() === url);
  const outcome = page.evaluate(
    (url, init) =>
      new Promise((settled) => {
        const source = new EventSource(url, init);
        const data = [];
        const settle = () => {
          settled({ isClosed: source.readyState === EventSource.CLOSED, data });
          source.close();
        };
        source.addEventListener('tidings', (event) => data.push(event.data));
        source.onmessage = (event) => {
          data.push(event.data);
          settle();
        };
        source.onerror = settle;
      }),
    url,
    init,
  );
  return { status: (await answer).status(), ...(await outcome) };
}

/** Tickets of docs/tickets.md and tokens of docs/tokens.md: `make(topics, more)`, and the name of their expiry and id. */
async function kinds(t) {
  const ticket = await ticketMaker(t);
  return {
    ticket: { make: ticket, expiry: 'expires_at', id: 'id' },
    token: { make: (topics, claims) => token(topics, { exp: seconds() + 60, ...claims }), expiry: 'exp', id: 'jti' },
  };
}

function seconds() {
  return Math.floor(Date.now() / 1000);
}

/** The credential with other contents and the signature of the original ones. */
function forged(credential, change) {
  const parts = credential.split('.');
  const contents = JSON.parse(Buffer.from(parts.at(-2), 'base64url'));
  parts[parts.length - 2] = Buffer.from(change(JSON.stringify(contents))).toString('base64url');
  return parts.join('.');
}

/** The credential with another character at the beginning of its signature. */
function resigned(credential) {
  const place = credential.lastIndexOf('.') + 1;
  return credential.slice(0, place) + (credential[place] === 'A' ? 'B' : 'A') + credential.slice(place + 1);
}

for (const name of BROWSERS) {
  test(`credentials over HTTPS in ${name}`, async (t) => {
    const authority = await Authority.create(t);
    const browser = await launchTrusting(t, name, authority);
    await t.test('a page receives nothing private with the credential of another user, an expired, revoked or tampered one', async (t) => {
      const deployment = await Deployment.start(t, authority);
      const { app, other, origin, application } = deployment;
      await deployment.publish('user-42', 'for 42');
      await deployment.publish('user-43', 'for 43');
      const page = await deployment.page(t, browser, 43);

      const stream = (query) => `${origin}/stream?${new URLSearchParams({ since: 'earliest', ...query })}`;
      const set = (cookie) => page.goto(`${app}/set?${new URLSearchParams({ cookie })}`);
      /** Where a credential may be: puts it there, and goes to a page that uses it. */
      const places = {
        'a ticket on another site': {
          kind: 'ticket',
          async use(ticket, query) {
            await page.goto(other);
            return attempt(page, stream({ ...query, ...(ticket && { ticket }) }));
          },
        },
        'a cookie of the same site': {
          kind: 'ticket',
          async use(ticket, query) {
            await set(ticket ? ofCredential(ticket) : `${ofCredential('')}; Max-Age=0`);
            await page.goto(app);
            return attempt(page, stream(query));
          },
        },
        'a cookie on the origin of the hub': {
          kind: 'token',
          async use(token, query) {
            await set(token ? ofCredential(token) : `${ofCredential('')}; Max-Age=0`);
            await page.goto(`${origin}/healthz`);
            return attempt(page, stream({ topic: 'user-42', ...query }), {});
          },
        },
      };
      const all = await kinds(t);
      const past = seconds() - 90;
      for (const [place, { kind, use }] of Object.entries(places)) {
        const { make, expiry, id } = all[kind];
        const [mine, others] = [make(['user-43'], {}), make(['user-42'], {})];
        const revoked = make(['user-42'], { [id]: `revoked: ${place}` });
        await deployment.revoke({ id: `revoked: ${place}` });
        const expired = make(['user-42'], { issued_at: past - 10, [expiry]: past });
        const cases = {
          none: [undefined, { topic: 'user-42' }, closed(401)],
          'of another user, for the topic': [mine, { topic: 'user-42' }, closed(403)],
          'of another user': [mine, kind === 'token' ? { topic: 'user-43' } : {}, receives('for 43')],
          expired: [expired, {}, notified('expired')],
          revoked: [revoked, {}, notified('revoked')],
          'with another topic': [forged(mine, (contents) => contents.replace('user-43', 'user-42')), {}, closed(401)],
          'with a later expiry': [forged(expired, (contents) => contents.replace(String(past), String(past + 150))), {}, closed(401)],
          'with another signature': [resigned(others), {}, closed(401)],
          'without a signature': [others.slice(0, others.lastIndexOf('.') + 1), {}, closed(401)],
          'of the user': [others, {}, receives('for 42')],
        };
        for (const [which, [credential, query, expected]] of Object.entries(cases)) {
          assert.deepEqual(await use(credential, query), expected, `${place}: ${which}`);
        }
      }

      const events = `${origin}/events`;
      const [session] = application.sessions.keys();
      await page.goto(app);
      assert.deepEqual(await attempt(page, events), receives('for 43'));
      const others = all.ticket.make(['user-42']);
      assert.deepEqual(await attempt(page, `${events}?topic=user-42&ticket=${others}`), receives('for 43'), 'the query allows nothing');
      await set(`session=${session.slice(0, -1)}`);
      await page.goto(app);
      assert.deepEqual(await attempt(page, events), closed(403), 'a session that the application does not know');
      assert.deepEqual(await attempt(page, `${events}?topic=user-42&ticket=${others}`), closed(403), 'no session');
    });

    await t.test('streams of a user who is revoked end, and receive nothing more', async (t) => {
      const deployment = await Deployment.start(t, authority);
      const { app, other, origin, application } = deployment;
      const open = async (at, url) => {
        const page = await deployment.page(t, browser, 42, at);
        await page.goto(`${at}/renew`);
        await page.goto(at);
        await page.evaluate((url) => new EventSource(url, { withCredentials: true }), url);
        return page;
      };
      const ticket = application.credential('42', 'ticket');
      const pages = {
        route: await open(app, `${origin}/events`),
        cookie: await open(app, `${origin}/stream?since=earliest`),
        ticket: await open(other, `${origin}/stream?since=earliest&ticket=${ticket}`),
      };
      await deployment.publish('user-42', 'before');
      for (const page of Object.values(pages)) await messagesUpTo(page, 'before');

      application.sessions.clear();
      await deployment.revoke({ label: 'user-42' });
      for (const page of Object.values(pages)) await received(page, { type: 'tidings', data: '{"kind":"revoked"}' });
      await deployment.publish('user-42', 'after');
      // The application is asked again, and refuses; a ticket is refused by the hub, and the page asks again minutes later.
      await received(pages.route, { type: 'error', state: 2 });
      const isNotifiedAgain = () => window.received.filter(({ data }) => data === '{"kind":"revoked"}').length >= 2;
      for (const page of [pages.cookie, pages.ticket]) await page.waitForFunction(isNotifiedAgain, POLLING);

      const again = await open(app, `${origin}/events`);
      assert.deepEqual(await messagesUpTo(again, 'after'), ['before', 'after']);
      for (const [way, page] of Object.entries(pages)) assert.deepEqual(await messages(page), ['before'], way);
    });

    await t.test('cookies do not reach the hub from a page of another site, and a ticket does', async (t) => {
      const deployment = await Deployment.start(t, authority);
      const { app, other, origin, application } = deployment;
      await deployment.publish('user-42', 'for 42');
      const page = await deployment.page(t, browser, 42);
      const streams = [`${origin}/stream?since=earliest&topic=user-42`, `${origin}/events`];
      const cookie = ofCredential(application.credential('42', 'ticket'));
      for (const sent of [cookie, cookie.replace('SameSite=Lax', 'SameSite=None')]) {
        await page.goto(`${app}/set?${new URLSearchParams({ cookie: sent })}`);
        await page.goto(app);
        for (const url of streams) assert.deepEqual(await attempt(page, url), receives('for 42'), `${url}, ${sent}`);
        await page.goto(other);
        assert.deepEqual(await attempt(page, streams[0]), closed(401), sent);
        assert.deepEqual(await attempt(page, streams[1]), closed(403), sent);
      }
      const ticket = application.credential('42', 'ticket');
      assert.deepEqual(await attempt(page, `${streams[0]}&ticket=${ticket}`), receives('for 42'));
    });
  });
}
