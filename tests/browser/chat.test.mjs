// The chat in real browsers: what a new user sees after `make demo`, and what happens when a laptop sleeps or the server dies.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { eavesdrop, everClosed, forSuite, gapNotice, inBrowsers, newPerson } from '../lib/browser.mjs';
import { connected, conversation, join, lines, newestIs, post, presentAre, say } from '../lib/chat.mjs';
import { Hub } from '../lib/hub.mjs';
import { Proxy } from '../lib/proxy.mjs';
import { Redis } from '../lib/service.mjs';

inBrowsers('the chat', (browser) => {
  test('two people exchange messages', async (t) => {
    const hub = await Hub.start(t, 'demo');
    const ada = await newPerson(t, browser());
    const grace = await newPerson(t, browser());
    await join(ada, hub.origin, 'Ada');
    await say(ada, 'is anybody there?');
    await newestIs(ada, 'Ada: is anybody there?');
    await join(grace, hub.origin, 'Grace');
    await newestIs(grace, 'Ada: is anybody there?');
    await say(grace, 'yes, 你好 🗞️');
    for (const page of [ada, grace]) {
      await newestIs(page, 'Grace: yes, 你好 🗞️');
      const shown = await lines(page);
      assert.equal(shown.length, 2);
      for (const line of shown) assert.match(line, /^\[\d\d:\d\d:\d\d\] (Ada|Grace): /);
    }
    await hub.output.until('the message in the terminal', (printed) =>
      printed.some((line) => /^\[\d\d:\d\d:\d\d\] Ada: is anybody there\?$/.test(line)),
    );
  });

  test('every user sees who is present', async (t) => {
    const hub = await Hub.start(t, 'demo');
    const ada = await newPerson(t, browser());
    const grace = await newPerson(t, browser());
    await join(ada, hub.origin, 'Ada');
    await presentAre(ada, 'Ada');
    await join(grace, hub.origin, 'Grace');
    await presentAre(ada, 'Ada', 'Grace');
    await grace.goto('about:blank');
    await presentAre(ada, 'Ada');
  });

  test('people on two hubs of one Redis are in one chat, and miss nothing while one of them restarts', async (t) => {
    const redis = await Redis.start(t);
    const [one, other] = [await Hub.start(t, 'demo', '--store', redis.url), await Hub.start(t, 'demo', '--store', redis.url)];
    const ada = await newPerson(t, browser());
    const grace = await newPerson(t, browser());
    await join(ada, one.origin, 'Ada');
    await join(grace, other.origin, 'Grace');
    for (const page of [ada, grace]) await presentAre(page, 'Ada', 'Grace');
    await say(ada, 'are you there?');
    await newestIs(grace, 'Ada: are you there?');
    await one.stop();
    await presentAre(grace, 'Grace');
    await say(grace, 'as if I were next to you');
    await newestIs(grace, 'Grace: as if I were next to you');
    await one.startAgain();
    await newestIs(ada, 'Grace: as if I were next to you');
    const expected = ['Ada: are you there?', 'Grace: as if I were next to you'];
    for (const page of [ada, grace]) {
      assert.deepEqual(await conversation(page), expected);
      await presentAre(page, 'Ada', 'Grace');
    }
  });

  test('HTML in a message or a name stays text', async (t) => {
    const hub = await Hub.start(t, 'demo');
    const page = await newPerson(t, browser());
    const attack = '<img src=x onerror="window.owned = 1"><script>window.owned = 1</script>&amp;';
    await join(page, hub.origin, '<b id=owned>Eve</b>');
    await say(page, attack);
    await newestIs(page, `<b id=owned>Eve</b>: ${attack}`);
    await page.reload();
    await connected(page);
    await newestIs(page, `<b id=owned>Eve</b>: ${attack}`);
    const [images, scripts, owned] = await page.evaluate(() => [
      document.querySelectorAll('img').length,
      document.querySelectorAll('body script').length,
      window.owned !== undefined || document.getElementById('owned') !== null,
    ]);
    assert.deepEqual([images, scripts, owned], [0, 0, false]);
  });

  test('a paused connection continues with nothing missing', async (t) => {
    const hub = await Hub.start(t, 'demo');
    const proxy = await Proxy.start(t, hub.port);
    const page = await newPerson(t, browser());
    await join(page, proxy.origin, 'Ada');
    await post(hub.origin, 'before');
    await newestIs(page, 'before');
    proxy.pause();
    for (const message of ['one', 'two', 'three']) await post(hub.origin, message);
    proxy.resume();
    await newestIs(page, 'three');
    assert.deepEqual(await conversation(page), ['before', 'one', 'two', 'three'].map((said) => `anonymous: ${said}`));
  });

  test('a laptop that sleeps and wakes misses nothing and repeats nothing', async (t) => {
    const hub = await Hub.start(t, 'demo');
    const proxy = await Proxy.start(t, hub.port);
    const page = await newPerson(t, browser(), eavesdrop);
    await join(page, proxy.origin, 'Ada');
    await post(hub.origin, 'before');
    await newestIs(page, 'before');
    const connections = proxy.connections;
    proxy.pause();
    proxy.cut();
    for (const message of ['one', 'two', 'three']) await post(hub.origin, message);
    await proxy.moreConnectionsThan(connections);
    proxy.resume();
    await newestIs(page, 'three');
    await post(hub.origin, 'after');
    await newestIs(page, 'after');
    assert.deepEqual(
      await conversation(page),
      ['before', 'one', 'two', 'three', 'after'].map((said) => `anonymous: ${said}`),
    );
    assert.equal(await everClosed(page), false);
  });

  test('the page reconnects to a server that was killed, and gets a gap notice', async (t) => {
    const hub = await Hub.start(t, 'demo');
    const page = await newPerson(t, browser(), eavesdrop);
    await join(page, hub.origin, 'Ada');
    await post(hub.origin, 'soon forgotten');
    await newestIs(page, 'soon forgotten');
    await hub.kill();
    await hub.startAgain();
    const notice = await gapNotice(page);
    assert.ok(['unknown', 'other-log'].includes(notice.reason), JSON.stringify(notice));
    await page.waitForSelector('#out > li.gap');
    await connected(page);
    await post(hub.origin, 'a new day');
    await newestIs(page, 'a new day');
    assert.equal(await everClosed(page), false);
  });

  test('the page reconnects to a server that was stopped', async (t) => {
    const hub = await Hub.start(t, 'demo');
    const page = await newPerson(t, browser(), eavesdrop);
    await join(page, hub.origin, 'Ada');
    await hub.stop();
    await hub.startAgain();
    await gapNotice(page);
    await connected(page);
    await post(hub.origin, 'a new day');
    await newestIs(page, 'a new day');
    assert.equal(await everClosed(page), false);
  });
});

describe('the chat on screens of both sizes', () => {
  const browser = forSuite('chromium');
  const SCREENS = { phone: { width: 390, height: 844 }, desktop: { width: 1280, height: 800 } };

  for (const [screen, viewport] of Object.entries(SCREENS)) {
    test(`nothing is cut off on a ${screen}`, async (t) => {
      const hub = await Hub.start(t, 'demo');
      const barbara = await newPerson(t, browser());
      const ada = await newPerson(t, browser());
      await ada.setViewport({ ...viewport, deviceScaleFactor: 2 });
      await join(ada, hub.origin, 'Ada');
      await join(barbara, hub.origin, 'Barbara');
      const dialogue = [
        [ada, `A long word first: ${'o'.repeat(120)}`],
        [ada, 'Is this thing on?'],
        [barbara, 'It is! Three lines of JavaScript, and here I am.'],
        [ada, 'And if I close the lid of my laptop?'],
        [barbara, 'Then you read this when you open it again. Nothing is lost on the way.'],
      ];
      for (const [person, message] of dialogue) {
        await say(person, message);
        await newestIs(ada, message);
      }
      await ada.waitForFunction(() => document.getElementById('here').children.length === 2);
      const overflow = await ada.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      assert.ok(overflow <= 0, `the page is ${overflow} pixels wider than the screen`);
      const folder = fileURLToPath(new URL('../.cache/screenshots', import.meta.url));
      await mkdir(folder, { recursive: true });
      await ada.screenshot({ path: `${folder}/chat-${screen}.png` });
    });
  }

  test('a page without JavaScript posts and reads', async (t) => {
    const hub = await Hub.start(t, 'demo');
    const page = await newPerson(t, browser());
    await page.setJavaScriptEnabled(false);
    await page.goto(`${hub.origin}/`);
    await page.type('input[name=user]', 'Ada');
    await Promise.all([page.waitForNavigation(), page.keyboard.press('Enter')]);
    await page.type('#in', 'by hand');
    await Promise.all([page.waitForNavigation(), page.keyboard.press('Enter')]);
    const text = await page.$eval('#out', (list) => list.innerText);
    assert.match(text, /^\[\d\d:\d\d:\d\d\] Ada: by hand$/);
  });
});
