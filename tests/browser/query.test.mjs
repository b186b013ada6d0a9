// A page of another origin that subscribes with the method QUERY, by `fetch`: the preflight allows it, and the form is in the body.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inBrowsers, newPerson } from '../lib/browser.mjs';
import { Hub } from '../lib/hub.mjs';
import { serve } from '../lib/site.mjs';
import { waitFor } from '../lib/tabs.mjs';

inBrowsers('a fetch with the method QUERY', (browser) => {
  test('subscribes to topics of its form and of its URL', async (t) => {
    const hub = await Hub.start(t, 'serve');
    const site = await serve(t, { '/': '<!doctype html><title>page</title>' });
    const page = await newPerson(t, browser());
    await page.goto(site);
    await page.evaluate(async (url) => {
      const headers = { 'Content-Type': 'application/x-www-form-urlencoded', Accept: 'text/event-stream', 'Cache-Control': 'no-cache' };
      const response = await fetch(url, { method: 'QUERY', headers, body: new URLSearchParams([['match', 'a'], ['match', 'b']]) });
      window.text = '';
      document.title = String(response.status);
      const read = async () => {
        const decoder = new TextDecoder();
        const reader = response.body.getReader();
        for (let { value, done } = await reader.read(); !done; { value, done } = await reader.read()) {
          window.text += decoder.decode(value, { stream: true });
        }
      };
      void read();
    }, hub.url('/.well-known/mercure?match=c'));
    assert.equal(await page.title(), '200');
    for (const topic of ['a', 'other', 'b', 'c']) await hub.publish(topic, `of ${topic}`);
    await waitFor(page, () => window.text.includes('data: of c\n'));
    const received = await page.evaluate(() => [...window.text.matchAll(/^data: (.*)$/gm)].map((match) => match[1]));
    assert.deepEqual(received, ['of a', 'of b', 'of c']);
  });
});
