// HTTPS without a proxy, with a certificate of the test that the browser accepts.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { BROWSERS, launch, newPerson } from '../lib/browser.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';

/** A certificate for 127.0.0.1 and its key. */
async function certificate(t) {
  const path = await folder(t);
  const [certificate, key] = ['hub.pem', 'hub.key'].map((name) => join(path, name));
  const kind = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  const subject = ['-subj', '/CN=test', '-addext', 'subjectAltName=IP:127.0.0.1'];
  execFileSync('openssl', ['req', ...kind, ...subject, '-keyout', key, '-out', certificate], { stdio: 'ignore' });
  return ['--tls-certificate', certificate, '--tls-key', key];
}

for (const name of BROWSERS) {
  describe(`a hub with TLS in ${name}`, () => {
    // Over HTTP/1.1 browsers open at most six connections to an origin.
    test('serves seven streams of a page over one connection', async (t) => {
      const hub = await Hub.start(t, 'serve', ...(await certificate(t)));
      const page = await newPerson(t, await launch(t, name, { acceptInsecureCerts: true }));
      await page.goto(`https://127.0.0.1:${hub.port}/healthz`);
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
      const hub = await Hub.start(t, 'serve', '--http2', 'false', ...(await certificate(t)));
      const page = await newPerson(t, await launch(t, name, { acceptInsecureCerts: true }));
      await page.goto(`https://127.0.0.1:${hub.port}/healthz`);
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
