// Headless Chromium and Firefox, as Debian packages them, driven over WebDriver BiDi and the DevTools protocol.

import { readFileSync, readdirSync } from 'node:fs';
import { after, before, describe } from 'node:test';
import puppeteer from 'puppeteer-core';
import { atEnd } from './ending.mjs';
import { PATIENCE_MS } from './journal.mjs';

/** How many entries the error of a wait shows. */
const SHOWN = 20;

/** How waits look at a page. By default puppeteer waits for frames, which a page in the background of Firefox does not have. */
export const POLLING = { polling: 50 };

/** The supported browsers; TIDINGS_BROWSER names one of them to run the tests in that one only. */
export const BROWSERS = ['chromium', 'firefox'].filter((name) => name === (process.env.TIDINGS_BROWSER ?? name));
if (!BROWSERS.length) throw new Error(`TIDINGS_BROWSER is ${process.env.TIDINGS_BROWSER}: use chromium or firefox, or leave it unset`);

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
  const browser = await puppeteer.launch(options(name, more));
  atEnd(t, () => browser.close());
  return browser;
}

/** One browser for all tests of a suite or file; returns a function that hands it out. */
export function forSuite(name) {
  let browser;
  before(async () => {
    browser = await puppeteer.launch(options(name));
  });
  after(() => browser?.close());
  return () => browser;
}

/**
 * A suite of tests in every browser, in all of them at once: most of the time these tests wait. `suite` gets a function that hands out
 * the browser, and its name.
 */
export function inBrowsers(title, suite) {
  describe(title, { concurrency: BROWSERS.length }, () => {
    for (const name of BROWSERS) describe(`in ${name}`, { concurrency: 1 }, () => suite(forSuite(name), name));
  });
}

/** Every browser, for all tests of a file; returns a function that runs a check in one after the other, as tests below the test `t`. */
export function inEachBrowser() {
  const browsers = BROWSERS.map((name) => [name, forSuite(name)]);
  return async (t, check) => {
    for (const [place, [name, browser]] of browsers.entries()) await t.test(name, (t) => check(t, browser(), place));
  };
}

/** This process, and all that it has started. */
export function processes(pid) {
  const tasks = unlessEnded(() => readdirSync(`/proc/${pid}/task`)) ?? [];
  const children = tasks.flatMap((task) => unlessEnded(() => readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8')) ?? '');
  const pids = children.flatMap((text) => text.trim().split(' ').filter(Boolean));
  return [pid, ...pids.flatMap((child) => processes(Number(child)))];
}

/** Sends a signal to these processes. Those of a browser end whenever it likes. */
export function signalAll(pids, name) {
  for (const pid of pids) unlessEnded(() => process.kill(pid, name));
}

/** What a call returns, or nothing if its error says that the process has ended. */
function unlessEnded(call) {
  try {
    return call();
  } catch (error) {
    if (error.code !== 'ENOENT' && error.code !== 'ESRCH') throw error;
  }
}

function options(name, more = {}) {
  const args = [...(LAUNCH[name].args ?? []), ...(more.args ?? [])];
  return { headless: true, timeout: 2 * PATIENCE_MS, ...LAUNCH[name], ...more, args };
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
    await page.waitForFunction(find, POLLING, wanted);
  } catch (error) {
    await neverReceived(page, JSON.stringify(wanted), error);
  }
  return page.evaluate(find, wanted);
}

async function neverReceived(page, wanted, cause) {
  const all = await page.evaluate(() => window.received).catch(() => []);
  const last = JSON.stringify(all.slice(-SHOWN));
  throw new Error(`never received ${wanted} in ${all.length} entries, of which the last are ${last}`, { cause });
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

/** Waits until the EventSources of the page have been opened at least this many times; resolves with how often. */
export async function opened(page, times) {
  const reached = (times) => {
    const { length } = window.received.filter((entry) => entry.type === 'open');
    return length >= times && { length };
  };
  const found = await page.waitForFunction(reached, POLLING, times).catch((error) => neverReceived(page, `the opening number ${times}`, error));
  return (await found.jsonValue()).length;
}

/** The data of all gap notices received so far. */
export async function gaps(page) {
  const notices = await page.evaluate(() => window.received.filter((entry) => entry.type === 'tidings').map((entry) => entry.data));
  return notices.map((data) => JSON.parse(data)).filter((notice) => notice.kind === 'gap');
}

/** Waits for a gap notice and resolves with its data. */
export async function gapNotice(page) {
  const isThere = () => window.received.some((entry) => entry.type === 'tidings' && JSON.parse(entry.data).kind === 'gap');
  await page.waitForFunction(isThere, POLLING);
  return (await gaps(page))[0];
}

/** Whether any EventSource of the page was ever closed for good. */
export function everClosed(page) {
  return page.evaluate(() => window.received.some((entry) => entry.state === 2));
}
