// examples/notifications: the program as it is run, with the sessions of two users.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { POLLING, inEachBrowser, newPerson } from '../lib/browser.mjs';
import { built } from '../lib/program.mjs';
import { start } from '../lib/service.mjs';
import { Stream } from '../lib/stream.mjs';

const SOURCE = fileURLToPath(new URL('../../examples/notifications/src/main.rs', import.meta.url));
const inEach = inEachBrowser();
const SERVES = /http:\/\/127\.0\.0\.1:\d+/;

async function shop(t) {
  const { port, end } = await start(t, (port) => [built('notifications'), [], { env: { ...process.env, PORT: port } }], SERVES);
  return { origin: `http://127.0.0.1:${port}`, end };
}

/** Logs in; resolves with the cookie. */
async function logIn(origin, user) {
  const response = await fetch(`${origin}/login`, { method: 'POST', redirect: 'manual', body: new URLSearchParams({ user }) });
  assert.equal(response.headers.get('location'), '/');
  return response.headers.getSetCookie()[0].split(';')[0];
}

async function post(origin, path, cookie, body) {
  const response = await fetch(origin + path, { method: 'POST', headers: { Cookie: cookie, 'Content-Type': 'text/plain' }, body });
  assert.equal(response.status, 204);
}

const notice = (stream, kind) =>
  stream.received.until(kind, (all) => all.find(({ type, data }) => type === 'tidings' && JSON.parse(data).kind === kind));

test('the example has 120 lines at most', () => {
  assert.ok(readFileSync(SOURCE, 'utf8').trimEnd().split('\n').length <= 120);
});

test('a customer receives what is for them, the last twenty, who is there and who types, until the shop ends', async (t) => {
  const { origin, end } = await shop(t);
  assert.equal((await fetch(`${origin}/stream`, { redirect: 'manual' })).status, 303);
  const [ann, bob] = [await logIn(origin, 'ann'), await logIn(origin, 'bob')];
  for (let number = 1; number <= 22; number++) await post(origin, '/orders', ann, `book ${number}`);
  const open = (cookie, more) => Stream.open(t, `${origin}/stream`, { Accept: 'text/event-stream', Cookie: cookie, ...more });
  const ofAnn = await open(ann);
  const ofBob = await open(bob);
  await ofAnn.receive('Your book 22 was ordered');
  const notifications = () => ofAnn.received.entries.filter(({ type }) => type === 'message');
  assert.deepEqual(notifications().map(({ data }) => data), Array.from({ length: 20 }, (_, index) => `Your book ${index + 3} was ordered`));
  for (const stream of [ofAnn, ofBob]) await stream.receive('["ann","bob"]');

  const page = JSON.parse((await notice(ofAnn, 'hello')).data).connection;
  await post(origin, '/typing', ann, page);
  await ofBob.receive('ann');
  await post(origin, '/typing', bob, 'no page');
  await ofAnn.receive('bob');
  assert.ok(!ofAnn.data.includes('ann'));
  assert.ok(!ofBob.data.some((data) => data.startsWith('Your ')));

  const resumed = await open(ann, { 'Last-Event-ID': notifications().at(-2).id });
  await resumed.receive('Your book 22 was ordered');
  assert.ok(!resumed.data.includes('Your book 21 was ordered'));

  await end('SIGINT');
  await notice(ofBob, 'reconnect');
  await ofBob.ended();
});

test('the pages of the shop show what is for their user', async (t) => {
  const { origin } = await shop(t);
  await inEach(t, async (t, browser, place) => {
    const names = [`ann${place}`, `bob${place}`];
    const customer = async (user) => {
      const page = await newPerson(t, browser);
      await page.goto(`${origin}/login`);
      await page.type('input[name=user]', user);
      await page.keyboard.press('Enter');
      await page.waitForSelector('#presence');
      return page;
    };
    const shows = (page, id, text) => page.waitForFunction((id, text) => document.getElementById(id)?.textContent === text, POLLING, id, text);
    const [ann, bob] = [await customer(names[0]), await customer(names[1])];
    for (const page of [ann, bob]) await shows(page, 'presence', names.join(', '));
    await ann.type('input[name=item]', 'tea');
    await shows(bob, 'typing', `${names[0]} is typing`);
    await ann.keyboard.press('Enter');
    await shows(ann, 'notifications', 'Your tea was ordered');
    await shows(bob, 'notifications', '');
  });
});
