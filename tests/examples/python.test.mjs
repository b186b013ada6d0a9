// The Python examples, as their README starts them in development, in both browsers.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { POLLING, inEachBrowser, newPerson } from '../lib/browser.mjs';
import { copyOf, migrate, serve } from '../lib/python-package.mjs';
import * as site from '../lib/site.mjs';

const LINES_MAX = 40;
const example = (name) => fileURLToPath(new URL(`../../examples/${name}`, import.meta.url));
const FLASK = { command: (port) => ['-m', 'flask', 'run', '--port', String(port)], isReady: /Running on/ };
const inEach = inEachBrowser();
const asset = (path) => fileURLToPath(new URL(`../node_modules/${path}`, import.meta.url));

/** Waits until the page shows exactly these texts in elements that match the selector. */
function shows(page, selector, ...texts) {
  const same = (selector, texts) => JSON.stringify([...document.querySelectorAll(selector)].map((item) => item.textContent.trim())) === texts;
  return page.waitForFunction(same, POLLING, selector, JSON.stringify(texts)).catch(async (error) => {
    const content = await page.evaluate(() => document.body.innerText);
    throw new Error(`the page never showed ${JSON.stringify(texts)} but ${JSON.stringify(content)}`, { cause: error });
  });
}

/** Does something that opens the stream of the page, and waits until it is open. */
async function streaming(page, action) {
  const opened = page.waitForResponse((response) => new URL(response.url()).pathname.startsWith('/stream') && response.ok());
  await action();
  await opened;
}

async function logIn(t, browser, origin, user) {
  const page = await newPerson(t, browser);
  await page.goto(`${origin}/`);
  await page.type('input[name=user]', user);
  await streaming(page, () => page.keyboard.press('Enter'));
  return page;
}

test('a file of an example has forty lines at most', () => {
  for (const name of ['flask-private', 'django', 'htmx', 'fastapi']) {
    for (const file of readdirSync(example(name), { recursive: true }).filter((file) => /\.(py|html)$/.test(file))) {
      const lines = readFileSync(join(example(name), file), 'utf8').trimEnd().split('\n').length;
      assert.ok(lines <= LINES_MAX, `${name}/${file} has ${lines} lines`);
    }
  }
});

test('private messages of the chat in Flask reach two users alone', async (t) => {
  const origin = await serve(t, await copyOf(t, example('flask-private')), FLASK.command, FLASK.isReady);
  /** What everybody has received in the browser before, newest first. */
  let past = [];
  await inEach(t, async (t, browser, place) => {
    const names = [`Ann-${place}`, `Bob-${place}&topic=user-Ann-${place}`, `Eve-${place}`];
    const pages = [];
    for (const user of names) pages.push(await logIn(t, browser, origin, user));
    const [[ann, bob, eve], [Ann, Bob, Eve]] = [pages, names];
    const say = async (page, text) => {
      await page.type('#in', text);
      await page.keyboard.press('Enter');
    };
    const receives = (page, ...lines) =>
      page.waitForFunction(
        (lines) => document.getElementById('out').textContent.replace(/^\[.{8}\] /gm, '') === lines,
        POLLING,
        [...lines, ...past].map((line) => `${line}\n`).join(''),
      );
    const hello = `${Ann}: hello <b>`;
    await say(ann, 'hello <b>');
    for (const page of pages) await receives(page, hello);
    await say(ann, `@${Bob} psst`);
    await receives(bob, `${Ann}: @${Bob} psst`, hello);
    await say(eve, `@${Ann} me too`);
    await receives(ann, `${Eve}: @${Ann} me too`, `${Ann}: @${Bob} psst`, hello);
    await say(bob, 'bye');
    // What reached them before is all: the private messages came before this one.
    const bye = `${Bob}: bye`;
    await receives(eve, bye, `${Eve}: @${Ann} me too`, hello);
    await receives(bob, bye, `${Ann}: @${Bob} psst`, hello);
    past = [bye, hello, ...past];
  });
  assert.equal((await fetch(`${origin}/stream`)).status, 403);
});

test('the worker of the Django example notifies the user who asked', async (t) => {
  const directory = await copyOf(t, example('django'));
  migrate(directory);
  const origin = await serve(t, directory, (port) => ['manage.py', 'runserver', `127.0.0.1:${port}`], /Starting development server/);
  await inEach(t, async (t, browser) => {
    const [ann, bob] = [await logIn(t, browser, origin, 'Ann'), await logIn(t, browser, origin, 'Bob')];
    const ready = (user) => `The report for ${user} is ready: 333328333350000`;
    await ann.click('button');
    await shows(ann, 'li', ready('Ann'));
    await bob.click('button');
    await shows(bob, 'li', ready('Bob'));
    await shows(ann, 'li', ready('Ann'));
  });
});

test('htmx and Turbo put what is broadcast into the page', async (t) => {
  const script = (path) => (response) => {
    response.setHeader('Access-Control-Allow-Origin', '*');
    return readFileSync(path, 'utf8');
  };
  const assets = await site.serve(t, {
    '/htmx.org@2/dist/htmx.min.js': script(asset('htmx.org/dist/htmx.min.js')),
    '/htmx-ext-sse@2/dist/sse.min.js': script(asset('htmx-ext-sse/dist/sse.min.js')),
    '/@hotwired/turbo@8/dist/turbo.es2017-esm.js': script(asset('@hotwired/turbo/dist/turbo.es2017-esm.js')),
  });
  const origin = await serve(t, await copyOf(t, example('htmx')), FLASK.command, FLASK.isReady, { ASSETS: assets });
  const orders = [];
  await inEach(t, async (t, browser) => {
    const pages = [];
    for (const path of ['/', '/turbo']) {
      const page = await newPerson(t, browser);
      await streaming(page, () => page.goto(`${origin}${path}`));
      pages.push(page);
    }
    for (const [place, item] of ['a <b>book</b>', 'a pen'].entries()) {
      await pages[place].type('input[name=item]', item);
      await pages[place].keyboard.press('Enter');
      orders.push(`${orders.length + 1}: ${item}`);
      for (const page of pages) await shows(page, 'li', ...orders);
    }
  });
});

test('the answer of the FastAPI example survives a reload in the middle', async (t) => {
  const command = (port) => ['-m', 'uvicorn', 'app:app', '--port', String(port)];
  const origin = await serve(t, await copyOf(t, example('fastapi')), command, /Uvicorn running/, { TIDINGS_DEV: '1' });
  await inEach(t, async (t, browser) => {
    const page = await newPerson(t, browser);
    await page.goto(`${origin}/`);
    await page.type('input[name=question]', 'why?');
    await streaming(page, () => page.keyboard.press('Enter'));
    await page.waitForFunction(() => document.getElementById('answer').textContent.startsWith('You asked'), POLLING);
    await streaming(page, () => page.reload());
    await shows(page, '#answer', "You asked 'why?', and this is the answer");
  });
});
