// Applications that existed before, and the few lines that push a private event to their users (tests/adopt).

import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import assert from 'node:assert/strict';
import { launch, newPerson } from './browser.mjs';
import { Stream } from './stream.mjs';

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

/** A person who has logged in at the application. */
export async function person(t, browser, origin, user) {
  const someone = new Person(await newPerson(t, browser), origin);
  await someone.logIn(user);
  return someone;
}

/** The application as it was; its orders are numbered from `first` on: an order that was shipped is shown after a reload. */
export async function worksBefore(t, name, origin, first = 0) {
  const browser = await launch(t, name);
  const [ann, shop] = [await person(t, browser, origin, 'Ann'), await person(t, browser, origin, 'shop')];
  await ann.order('a book');
  assert.equal(await ann.ship(first), 403);
  assert.equal(await shop.ship(first), 204);
  await ann.page.reload();
  await ann.shows('a book: shipped');
}

/** The application with the change: an order that was shipped is shown at once, to its customer alone. */
export async function pushesToItsUser(t, name, origin, first = 0) {
  const browser = await launch(t, name);
  const shop = await person(t, browser, origin, 'shop');
  const customers = [];
  for (const user of ['Ann', 'Bob & <Ann>']) customers.push(await person(t, browser, origin, user));
  const [ann, bob] = customers;
  await ann.order('a book');
  await bob.order('a pen');
  const streams = [];
  for (const customer of customers) {
    streams.push(await Stream.open(t, `${origin}/stream`, { Accept: 'text/event-stream', Cookie: await customer.cookies() }));
    // The page of the order has its own stream, which counts from here on.
    const opened = customer.page.waitForResponse((response) => new URL(response.url()).pathname === '/stream' && response.ok());
    await customer.page.reload();
    await opened;
  }
  assert.equal(await shop.ship(first), 204);
  await ann.shows('a book: shipped');
  await bob.shows('a pen: ordered');
  assert.equal(await shop.ship(first + 1), 204);
  await bob.shows('a pen: shipped');

  const [ofAnn, ofBob] = streams;
  for (const [stream, item] of [[ofAnn, 'a book'], [ofBob, 'a pen']]) {
    const shipped = await stream.received.until('the order that was shipped', (all) => all.find(({ data }) => data));
    assert.ok(shipped.data.includes(item), shipped.data);
  }
  assert.notEqual((await fetch(`${origin}/stream`, { redirect: 'manual' })).status, 200);
}
