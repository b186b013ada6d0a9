// Tabs that share a connection, in WebKit: puppeteer cannot drive it, so this is a walk through the most important accidents.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';
import { serve } from '../lib/site.mjs';
import { clientFiles, eventually, faults, live, page, upTo } from '../lib/tabs.mjs';
import { launchWebKit } from '../lib/webkit.mjs';

const TABS = 4;

test('in webkit, tabs share one stream, and lose nothing when the first is closed, one goes elsewhere and back, and the hub restarts', async (t) => {
  const files = clientFiles();
  const site = await serve(t, { ...files, '/': () => files.page, '/elsewhere': '<!doctype html><title>elsewhere</title>' });
  const hub = await Hub.start(t, 'serve', '--store', await folder(t), '--allow-origin', site, '--retry-millis', '200', '--heartbeat-secs', '1');
  files.page = page(hub.origin);
  const newTab = await launchWebKit(t);
  let tabs = [];
  for (let count = 0; count < TABS; count += 1) {
    const tab = await newTab();
    await tab.goto(site);
    await live(tab);
    tabs.push(tab);
  }
  let last = 0;
  const publish = async () => {
    for (let count = 0; count < 10; count += 1) await hub.publish('news', String((last += 1)));
  };
  const allHave = async () => {
    for (const tab of tabs) {
      const kept = await upTo(tab, last);
      assert.deepEqual({ ...faults(kept, last, 1), gaps: kept.gaps }, { lost: [], doubled: [], gaps: [] });
      assert.deepEqual(await tab.evaluate(() => window.errors), []);
    }
  };
  const isOne = async () => {
    const response = await fetch(hub.url('/topics/news'), { headers: { Accept: 'application/json' } });
    return (await response.json()).subscribers === 1;
  };

  await publish();
  await allHave();
  await eventually(isOne);

  const [first, ...others] = tabs;
  await Promise.all([first.close(), publish()]);
  tabs = others;
  await allHave();

  await tabs[0].goto(`${site}/elsewhere`);
  await publish();
  await tabs[0].goBack();
  await live(tabs[0]);
  await allHave();

  await hub.kill();
  await hub.startAgain();
  await publish();
  await allHave();
  await eventually(isOne);
});
