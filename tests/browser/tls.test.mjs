// HTTPS without a proxy, with a certificate of an authority that the browser trusts.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Authority } from '../lib/authority.mjs';
import { BROWSERS, newPerson } from '../lib/browser.mjs';
import { Hub } from '../lib/hub.mjs';
import { launchTrusting } from '../lib/trust.mjs';

/** The page `/healthz` of a hub with TLS, in a browser that trusts its certificate. */
async function healthPage(t, name, ...flags) {
  const authority = await Authority.create(t);
  const { certificate, key } = await authority.issue('IP:127.0.0.1');
  const hub = await Hub.start(t, 'serve', '--tls-certificate', certificate, '--tls-key', key, ...flags);
  const page = await newPerson(t, await launchTrusting(t, name, authority));
  await page.goto(`https://127.0.0.1:${hub.port}/healthz`);
  return page;
}

for (const name of BROWSERS) {
  describe(`a hub with TLS in ${name}`, () => {
    // Over HTTP/1.1 browsers open at most six connections to an origin.
    test('serves seven streams of a page over one connection', async (t) => {
      const page = await healthPage(t, name);
      const protocol = await page.evaluate(async () => {
        window.data = [];
        const streams = Array.from({ length: 7 }, () => new EventSource('/stream?topic=news'));
        for (const stream of streams) stream.addEventListener('message', ({ data }) => window.data.push(data));
        await Promise.all(streams.map((stream) => new Promise((resolve) => stream.addEventListener('open', resolve))));
        await fetch('/topics/news', { method: 'POST', body: 'hello' });
        return performance.getEntriesByType('navigation')[0].nextHopProtocol;
      });
      await page.waitForFunction(() => window.data.length >= 7);
      assert.deepEqual(await page.evaluate(() => window.data), Array(7).fill('hello'));
      assert.equal(protocol, 'h2');
    });

    test('serves streams over HTTP/1.1 where HTTP/2 is disabled', async (t) => {
      const page = await healthPage(t, name, '--http2', 'false');
      const received = await page.evaluate(async () => {
        const stream = new EventSource('/stream?topic=news');
        await new Promise((resolve) => stream.addEventListener('open', resolve));
        const received = new Promise((resolve) => stream.addEventListener('message', ({ data }) => resolve(data)));
        await fetch('/topics/news', { method: 'POST', body: 'hello' });
        return received;
      });
      assert.equal(received, 'hello');
    });
  });
}
