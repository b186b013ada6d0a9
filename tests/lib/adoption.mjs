// Applications that existed before, and the few lines that push a private event to their users (tests/adopt).

import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import assert from 'node:assert/strict';
import { newPerson } from './browser.mjs';
import { Stream } from './stream.mjs';
import { Visitor } from './visitor.mjs';

const execute = promisify(execFile);

/** How many changed lines an application may need. */
export const CHANGED_LINES_MAX = 6;

/** Applies a diff in a directory, and returns how many lines it changes. */
export async function applyChanges(diff, directory) {
  const changed = readFileSync(diff, 'utf8').split('\n').filter((line) => /^[+-](?![+-]{2} )/.test(line)).length;
  assert.ok(changed > 0 && changed <= CHANGED_LINES_MAX, `${diff} changes ${changed} lines`);
  // The directory is no repository, also where it is inside of one.
  const env = { ...process.env, GIT_CEILING_DIRECTORIES: dirname(directory) };
  await execute('git', ['apply', '--unidiff-zero', diff], { cwd: directory, env });
  return changed;
}

/** A customer or the shop, in a browser of their own. */
class Person {
  constructor(page, origin) {
    this.page = page;
    this.origin = origin;
  }

  /** Logs in by the form, as a user does. */
  async logIn(user) {
    await this.page.goto(`${this.origin}/login`);
    await this.page.type('input[name=user]', user);
    await Promise.all([this.page.waitForFunction(() => location.pathname === '/'), this.page.keyboard.press('Enter')]);
    await this.page.waitForSelector('input[name=item]');
  }

  /** Orders by the form, and waits until the order is shown. */
  async order(item) {
    await this.page.type('input[name=item]', item);
    await this.page.keyboard.press('Enter');
    await this.shows(`${item}: ordered`);
  }

  /** Waits until the list shows this. */
  shows(text) {
    const find = (text) => [...document.querySelectorAll('li')].some((item) => item.textContent.trim() === text);
    return this.page.waitForFunction(find, { polling: 50 }, text);
  }

  ship(number) {
    const send = async (path) => {
      const [, token = ''] = document.cookie.match(/csrftoken=(\w+)/) ?? []; // Django
      return (await fetch(path, { method: 'POST', headers: { 'X-CSRFToken': token } })).status;
    };
    return this.page.evaluate(send, `/orders/${number}/ship`);
  }

  async cookies() {
    const cookies = await this.page.cookies();
    return cookies.map(({ name, value }) => `${name}=${value}`).join('; ');
  }
}

/** A person who has logged in at the application. `scripts` run before those of any page. */
export async function person(t, browser, origin, user, ...scripts) {
  const someone = new Person(await newPerson(t, browser, ...scripts), origin);
  await someone.logIn(user);
  return someone;
}

/** The application as it was, whose next order has this number: an order that was shipped is shown after a reload. */
export async function worksBefore(t, browser, origin, number) {
  const [ann, shop] = [await person(t, browser, origin, 'Ann'), await person(t, browser, origin, 'shop')];
  const book = `book ${number}`;
  await ann.order(book);
  assert.equal(await ann.ship(number), 403);
  assert.equal(await shop.ship(number), 204);
  await ann.page.reload();
  await ann.shows(`${book}: shipped`);
}

/** How many orders the next check makes. */
export const ORDERS = 2;

/** The application with the change, whose next order has this number: an order that was shipped is shown at once, to its customer alone. */
export async function pushesToItsUser(t, browser, origin, number) {
  const [book, pen] = [`book ${number}`, `pen ${number + 1}`];
  const shop = await person(t, browser, origin, 'shop');
  const customers = [];
  for (const user of ['Ann', 'Bob & <Ann>']) customers.push(await person(t, browser, origin, user));
  const [ann, bob] = customers;
  await ann.order(book);
  await bob.order(pen);
  const streams = [];
  for (const customer of customers) {
    streams.push(await Stream.open(t, `${origin}/stream`, { Accept: 'text/event-stream', Cookie: await customer.cookies() }));
    // The page of the order has its own stream, which counts from here on.
    const opened = customer.page.waitForResponse((response) => new URL(response.url()).pathname === '/stream' && response.ok());
    await customer.page.reload();
    await opened;
  }
  assert.equal(await shop.ship(number), 204);
  await ann.shows(`${book}: shipped`);
  await bob.shows(`${pen}: ordered`);
  assert.equal(await shop.ship(number + 1), 204);
  await bob.shows(`${pen}: shipped`);

  const [ofAnn, ofBob] = streams;
  for (const [stream, item] of [[ofAnn, book], [ofBob, pen]]) {
    const shipped = await stream.received.until('the order that was shipped', (all) => all.find(({ data }) => data));
    assert.ok(shipped.data.includes(item), shipped.data);
  }
  assert.notEqual((await fetch(`${origin}/stream`, { redirect: 'manual' })).status, 200);
}

/** The same without a browser, for an application whose forms need no JavaScript. */
export async function pushesToVisitors(t, origin) {
  const [ann, bob, shop] = [await Visitor.logIn(origin, 'Ann'), await Visitor.logIn(origin, 'Bob & <Ann>'), await Visitor.logIn(origin, 'shop')];
  const orders = [[ann, 'a book'], [bob, 'a pen']];
  for (const [customer, item] of orders) await customer.submit('/', { item });
  const streams = [await Stream.open(t, `${origin}/stream`, ann.headers), await Stream.open(t, `${origin}/stream`, bob.headers)];
  for (const number of orders.keys()) assert.equal((await shop.post(`/orders/${number}/ship`)).status, 204);
  for (const [number, [customer, item]] of orders.entries()) {
    // The first event is that of this customer: those of another would have come before, or never.
    const { data } = await streams[number].received.until('the order', (all) => all.find(({ data }) => data));
    assert.deepEqual([JSON.parse(data).item, JSON.parse(data).state], [item, 'shipped']);
    assert.match(await customer.page(), new RegExp(`${item}.*shipped`));
  }
  assert.notEqual((await fetch(`${origin}/stream`, { redirect: 'manual' })).status, 200);
}
