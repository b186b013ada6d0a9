// Browsers without EventSource: the 2012 answer names two polyfills for them. Chromium simulates such a browser.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { forSuite, newPerson } from '../lib/browser.mjs';
import { conversation, join, newestIs, post, say } from '../lib/chat.mjs';
import { Hub } from '../lib/hub.mjs';
import { Proxy } from '../lib/proxy.mjs';

const POLYFILLS = {
  'event-source-polyfill': 'event-source-polyfill/src/eventsource.js',
  'eventsource-polyfill': 'eventsource-polyfill/dist/eventsource.js',
};

describe('a browser without EventSource', () => {
  const browser = forSuite('chromium');

  for (const [name, file] of Object.entries(POLYFILLS)) {
    test(`runs the chat with ${name}`, async (t) => {
      const polyfill = await readFile(fileURLToPath(new URL(`../node_modules/${file}`, import.meta.url)), 'utf8');
      const hub = await Hub.start(t, 'demo');
      const proxy = await Proxy.start(t, hub.port);
      const page = await newPerson(
        t,
        browser(),
        'window.NativeEventSource = window.EventSource; delete window.EventSource;',
        polyfill,
      );
      await join(page, proxy.origin, 'Ada');
      assert.ok(await page.evaluate(() => window.EventSource !== window.NativeEventSource), 'the polyfill is not in use');
      await say(page, 'first');
      await newestIs(page, 'Ada: first');

      const connections = proxy.connections;
      proxy.pause();
      proxy.cut();
      await post(hub.origin, 'while away');
      await proxy.moreConnectionsThan(connections);
      proxy.resume();
      await newestIs(page, 'while away');
      await say(page, 'last');
      await newestIs(page, 'Ada: last');
      assert.deepEqual(await conversation(page), ['Ada: first', 'anonymous: while away', 'Ada: last']);
    });
  }
});
