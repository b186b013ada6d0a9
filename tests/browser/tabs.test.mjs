// Tabs that share a connection: `tabs: 'shared'` of the client for browsers.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inBrowsers, newPerson } from '../lib/browser.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';
import { serve } from '../lib/site.mjs';
import { clientFiles, eventually, faults, leader, openTab, page, upTo, waitFor } from '../lib/tabs.mjs';

const TABS = 8;

inBrowsers('shared tabs', (browser) => {
  async function setUp(t, options) {
    const files = clientFiles();
    const site = await serve(t, { ...files, '/': () => files.page, '/elsewhere': '<!doctype html><title>elsewhere</title>' });
    const hub = await Hub.start(t, 'serve', '--store', await folder(t), '--allow-origin', site, '--retry-millis', '200', '--heartbeat-secs', '1');
    files.page = page(hub.origin, options);
    const context = (await newPerson(t, browser())).browserContext();
    return { hub, site, context };
  }

  async function openTabs(t, { context, site }) {
    const tabs = [];
    for (let count = 0; count < TABS; count += 1) tabs.push(await openTab(t, context, site));
    return tabs;
  }

  async function publish(hub, from, to) {
    for (let number = from; number <= to; number += 1) await hub.publish('news', String(number));
  }

  /** How many streams have this topic. */
  async function streams(hub, topic = 'news') {
    const response = await fetch(hub.url(`/topics/${topic}`), { headers: { Accept: 'application/json' } });
    return (await response.json()).subscribers;
  }

  async function allHave(tabs, last, first) {
    for (const tab of tabs) {
      const kept = await upTo(tab, last);
      assert.deepEqual(faults(kept, last, first), { lost: [], doubled: [] });
      assert.deepEqual(kept.gaps, []);
      assert.deepEqual(await tab.evaluate(() => window.errors), []);
    }
  }

  test('eight tabs have one stream, and each gets every event once, in order', async (t) => {
    const place = await setUp(t);
    const tabs = await openTabs(t, place);
    await publish(place.hub, 1, 50);
    await allHave(tabs, 50, 1);
    assert.equal(await streams(place.hub), 1);
  });

  test('the tab that holds the connection is closed, and the others continue without loss', async (t) => {
    const place = await setUp(t);
    let tabs = await openTabs(t, place);
    await publish(place.hub, 1, 10);
    for (let last = 20; last <= 50; last += 10) {
      const closed = await leader(tabs);
      tabs = tabs.filter((tab) => tab !== closed);
      await Promise.all([closed.close(), publish(place.hub, last - 9, last)]);
    }
    await allHave(tabs, 50, 1);
    assert.equal(await streams(place.hub), 1);
  });

  test('a late tab gets its history, and the topics of a closed tab are left', async (t) => {
    const place = await setUp(t);
    const [first, second] = [await openTab(t, place.context, place.site), await openTab(t, place.context, place.site)];
    await publish(place.hub, 1, 10);
    await upTo(second, 10);
    await second.evaluate(() => {
      window.late = [];
      window.hub.on('news', (number, { replayed }) => window.late.push([number, replayed]), { since: '-3' });
      window.hub.on('typing', (who) => window.late.push(who));
    });
    await waitFor(second, () => window.late.length === 3);
    await eventually(async () => (await streams(place.hub, 'typing')) === 1);
    await place.hub.publish('typing', '"anna"');
    await publish(place.hub, 11, 11);
    await waitFor(second, () => window.late.length === 5);
    assert.deepEqual(await second.evaluate(() => window.late), [[8, true], [9, true], [10, true], 'anna', [11, false]]);
    await second.close();
    await place.hub.kill();
    await place.hub.startAgain();
    await publish(place.hub, 12, 12);
    await allHave([first], 12, 1);
    await eventually(async () => (await streams(place.hub, 'typing')) === 0);
  });

  test('patterns share the stream, and each gets the events of its topics, history included', async (t) => {
    const place = await setUp(t);
    const user = (id, data) => place.hub.publish(encodeURIComponent(`/users/${id}`), JSON.stringify(data));
    await user(1, 'before');
    const [first, second] = [await openTab(t, place.context, place.site), await openTab(t, place.context, place.site)];
    for (const [tab, pattern] of [[first, '/users/:id'], [second, '/users/1(\\d)']]) {
      await tab.evaluate((pattern) => {
        window.users = [];
        window.hub.on({ pattern }, (data, { topic }) => window.users.push([topic, data]), { since: 'earliest', onLive: () => (window.isRead = true) });
      }, pattern);
      await waitFor(tab, () => window.isRead);
    }
    await user(17, 'live');
    await place.hub.publish('users', '"no user"');
    await user(2, 'last');
    await publish(place.hub, 1, 1);
    await allHave([first, second], 1, 1);
    assert.deepEqual(await first.evaluate(() => window.users), [['/users/1', 'before'], ['/users/17', 'live'], ['/users/2', 'last']]);
    assert.deepEqual(await second.evaluate(() => window.users), [['/users/17', 'live']]);
    assert.equal(await streams(place.hub), 1);
  });

  test('a tab that goes elsewhere and comes back has missed nothing', async (t) => {
    const place = await setUp(t);
    const tabs = await openTabs(t, place);
    await publish(place.hub, 1, 5);
    await allHave(tabs, 5, 1);
    let last = 5;
    for (const tab of [await leader(tabs), tabs.at(-1)]) {
      await tab.goto(`${place.site}/elsewhere`);
      await publish(place.hub, last + 1, last + 5);
      await tab.goBack();
      last += 5;
      await allHave(tabs, last, 1);
    }
  });
});
