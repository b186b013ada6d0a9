// A page of another site with a plain EventSource: no library, no server of its own, only the address of a hub.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eavesdrop, everClosed, gapNotice, inBrowsers, messagesUpTo, newPerson, received } from '../lib/browser.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';
import { Proxy } from '../lib/proxy.mjs';
import { serve } from '../lib/site.mjs';

inBrowsers('a plain EventSource', (browser) => {
  /** Opens a page that subscribes at `url`, and waits until it is connected. */
  async function listening(t, url, { credentials = false } = {}) {
    const site = await serve(t, {
      '/': `<!doctype html><title>plain</title><script>
        new EventSource(${JSON.stringify(url)}, { withCredentials: ${credentials} });
      </script>`,
    });
    const page = await newPerson(t, browser(), eavesdrop);
    await page.goto(site);
    await received(page, { type: 'open' });
    return page;
  }

  test('receives data, type, id, several lines and any language', async (t) => {
    const hub = await Hub.start(t, 'serve');
    const page = await listening(t, hub.url('/stream?topic=news'));
    const plain = await hub.publish('news', 'one\n two\n\nfour');
    const typed = await hub.publish('news', 'grüße, 世界 🗞️', { type: 'note', id: 'order-42' });
    assert.equal((await received(page, { type: 'message', data: 'one\n two\n\nfour' })).id, plain.id);
    assert.equal((await received(page, { type: 'note', data: 'grüße, 世界 🗞️' })).id, typed.id);
    assert.equal(typed.id, 'order-42');
  });

  test('receives nothing when only heartbeats come', async (t) => {
    const hub = await Hub.start(t, 'serve', '--heartbeat-secs', '1');
    const proxy = await Proxy.start(t, hub.port);
    const page = await listening(t, proxy.url('/stream?topic=news'));
    await hub.publish('news', 'first');
    const heartbeats = () => proxy.textOf('/stream').split(': hb\n').length - 1;
    await proxy.passed.until('two heartbeats', () => heartbeats() >= 2);
    await hub.publish('news', 'last');
    assert.deepEqual(await messagesUpTo(page, 'last'), ['first', 'last']);
    assert.equal(await everClosed(page), false);
  });

  test('continues after a pause with nothing missing', async (t) => {
    const hub = await Hub.start(t, 'serve');
    const proxy = await Proxy.start(t, hub.port);
    const page = await listening(t, proxy.url('/stream?topic=news'));
    proxy.pause();
    for (const data of ['one', 'two', 'three']) await hub.publish('news', data);
    proxy.resume();
    assert.deepEqual(await messagesUpTo(page, 'three'), ['one', 'two', 'three']);
  });

  test('resumes after a cut with nothing missing or duplicated', async (t) => {
    const hub = await Hub.start(t, 'serve', '--retry-millis', '300');
    const proxy = await Proxy.start(t, hub.port);
    const page = await listening(t, proxy.url('/stream?topic=news'));
    await hub.publish('news', 'before', { id: 'été-1' });
    await received(page, { data: 'before' });
    for (const round of ['one', 'two']) {
      const connections = proxy.connections;
      proxy.pause();
      proxy.cut();
      await hub.publish('news', `${round}: while away`);
      await proxy.moreConnectionsThan(connections);
      proxy.resume();
      await received(page, { data: `${round}: while away` });
    }
    assert.deepEqual(await messagesUpTo(page, 'two: while away'), ['before', 'one: while away', 'two: while away']);
    assert.equal(await everClosed(page), false);
  });

  test('reconnects to a hub that was killed and restarted, and gets a gap notice', async (t) => {
    const hub = await Hub.start(t, 'serve', '--retry-millis', '300');
    const page = await listening(t, hub.url('/stream?topic=news'));
    const { id } = await hub.publish('news', 'soon forgotten');
    await received(page, { data: 'soon forgotten' });
    await hub.kill();
    await hub.startAgain();
    const notice = await gapNotice(page);
    assert.equal(notice.requested, id);
    assert.ok(['unknown', 'other-log'].includes(notice.reason), JSON.stringify(notice));
    await hub.publish('news', 'a new day');
    assert.deepEqual(await messagesUpTo(page, 'a new day'), ['soon forgotten', 'a new day']);
    assert.equal(await everClosed(page), false);
  });

  test('reconnects to a hub with a store that was killed and restarted, and misses nothing', async (t) => {
    const store = await folder(t);
    const hub = await Hub.start(t, 'serve', '--store', store, '--retry-millis', '300');
    const page = await listening(t, hub.url('/stream?topic=news'));
    await hub.publish('news', 'received');
    await received(page, { data: 'received' });
    await hub.kill();
    await hub.startAgain();
    await hub.publish('news', 'said meanwhile or afterwards');
    assert.deepEqual(await messagesUpTo(page, 'said meanwhile or afterwards'), ['received', 'said meanwhile or afterwards']);
    assert.equal(await everClosed(page), false);
  });

  test('may send credentials from an origin that the hub allows, and from no other', async (t) => {
    const site = await serve(t, { '/': '<!doctype html><title>plain</title>' });
    const hub = await Hub.start(t, 'serve', '--allow-origin', site);
    const subscribe = (url) => {
      const source = new EventSource(url, { withCredentials: true });
      return new Promise((settled) => {
        source.onopen = () => settled('open');
        source.onerror = () => settled(source.readyState === EventSource.CLOSED ? 'closed' : 'lost');
      });
    };
    const page = await newPerson(t, browser());
    await page.goto(site);
    assert.equal(await page.evaluate(subscribe, hub.url('/stream?topic=news')), 'open');

    const stranger = await serve(t, { '/': '<!doctype html><title>stranger</title>' });
    await page.goto(stranger);
    assert.equal(await page.evaluate(subscribe, hub.url('/stream?topic=news')), 'closed');
  });
});
