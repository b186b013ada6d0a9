// Headless Chromium and Firefox, as Debian packages them, driven over WebDriver BiDi and the DevTools protocol.

import { after, before } from 'node:test';
import puppeteer from 'puppeteer-core';
import { atEnd } from './ending.mjs';
import { PATIENCE_MS } from './journal.mjs';

/** The supported browsers. */
export const BROWSERS = ['chromium', 'firefox'];

const LAUNCH = {
  chromium: {
    browser: 'chrome',
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    // No sandbox: in a container and in CI the tests run as root. The rest keeps the browser off the network.
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  },
  firefox: { browser: 'firefox', executablePath: process.env.FIREFOX ?? '/usr/bin/firefox-esr' },
};

/** A browser with an empty profile, and further options, for the duration of the test `t`. */
export async function launch(t, name, more = {}) {
  const browser = await puppeteer.launch({ ...options(name), ...more });
  atEnd(t, () => browser.close());
  return browser;
}

/** One browser for all tests of a suite; returns a function that hands it out. */
export function forSuite(name) {
  let browser;
  before(async () => {
    browser = await puppeteer.launch(options(name));
  });
  after(() => browser?.close());
  return () => browser;
}

function options(name) {
  return { headless: true, timeout: 2 * PATIENCE_MS, ...LAUNCH[name] };
}

/** A page with cookies of its own, like the browser of another user. `scripts` run before those of any page. */
export async function newPerson(t, browser, ...scripts) {
  const context = await browser.createBrowserContext();
  atEnd(t, () => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  for (const script of scripts) await page.evaluateOnNewDocument(script);
  return page;
}

/**
 * Runs in a page before its own scripts: everything its EventSources receive is written to `window.received`, with
 * the state that they are in.
 */
export function eavesdrop() {
  const Native = window.EventSource;
  window.received = [];
  window.EventSource = class extends Native {
    constructor(...args) {
      super(...args);
      for (const type of ['open', 'error', 'message', 'tidings', 'note']) {
        this.addEventListener(type, (event) =>
          window.received.push({ type, data: event.data, id: event.lastEventId, state: this.readyState }),
        );
      }
    }
  };
}

/** Waits until an entry of `window.received` has all the properties of `wanted`; resolves with the first such one. */
export async function received(page, wanted) {
  const find = (wanted) =>
    window.received.find((entry) => Object.entries(wanted).every(([key, value]) => entry[key] === value));
  try {
    await page.waitForFunction(find, {}, wanted);
  } catch (error) {
    const all = await page.evaluate(() => window.received).catch(() => []);
    throw new Error(`never received ${JSON.stringify(wanted)} in ${JSON.stringify(all)}`, { cause: error });
  }
  return page.evaluate(find, wanted);
}

/** The data of all messages received so far, in order. */
export function messages(page) {
  return page.evaluate(() => window.received.filter((entry) => entry.type === 'message').map((entry) => entry.data));
}

/** Waits until this page has received a message with this data; resolves with all of them. */
export async function messagesUpTo(page, data) {
  await received(page, { type: 'message', data });
  return messages(page);
}

/** Waits for a gap notice and resolves with its data. */
export async function gapNotice(page) {
  const find = () =>
    window.received
      .filter((entry) => entry.type === 'tidings')
      .map((entry) => JSON.parse(entry.data))
      .find((notice) => notice.kind === 'gap');
  await page.waitForFunction(find);
  return page.evaluate(find);
}

/** Whether any EventSource of the page was ever closed for good. */
export function everClosed(page) {
  return page.evaluate(() => window.received.some((entry) => entry.state === 2));
}
