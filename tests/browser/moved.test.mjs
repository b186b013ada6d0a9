// The page of docs/move-from/fetch-event-source.md, before and after.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { inBrowsers, newPerson } from '../lib/browser.mjs';
import { read, snippet } from '../lib/document.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';
import { serve } from '../lib/site.mjs';
import { waitFor } from '../lib/tabs.mjs';
import { configuration, publish, ticketMaker } from '../lib/tickets.mjs';

const DOCUMENT = read('docs/move-from/fetch-event-source.md');
const CLIENT = fileURLToPath(new URL('../../clients/js/dist/index.js', import.meta.url));

/** A script of the document as a module of the page, with this hub. */
async function script(heading, hub) {
  const around = 'const show = (status) => (document.title = status); const add = (order) => window.orders.push(order); window.orders = [];';
  const contents = `${around}\n${snippet(DOCUMENT, heading, 'js').replaceAll('http://127.0.0.1:8080', hub)}`;
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: fileURLToPath(new URL('..', import.meta.url)) },
    alias: { '@tidings/client': CLIENT },
    bundle: true,
    format: 'esm',
    logLevel: 'error',
    target: 'es2022',
    write: false,
  });
  return outputFiles[0].text;
}

inBrowsers('a page that moves from fetch-event-source', (browser) => {
  for (const heading of ['**Before**', '**After**']) {
    test(`shows the same ${heading.replaceAll('*', '').toLowerCase()}, across a restart of the hub`, async (t) => {
      const ticket = await ticketMaker(t);
      const files = { '/': '<!doctype html><title>page</title><script type="module" src="/app.js"></script>', '/ticket': () => ticket(['orders']) };
      const site = await serve(t, files);
      const config = await configuration(t, `allow_origin = ["${site}"]`);
      const hub = await Hub.start(t, 'serve', '--config', config, '--store', await folder(t), '--retry-millis', '200');
      files['/app.js'] = await script(heading, hub.origin);
      const page = await newPerson(t, browser());
      await page.goto(site);
      await waitFor(page, () => document.title === 'connected');
      for (const order of [1, 2, 3]) await publish(hub, 'orders', String(order));
      await waitFor(page, () => window.orders.length === 3);
      await hub.kill();
      await hub.startAgain();
      for (const order of [4, 5]) await publish(hub, 'orders', String(order));
      await waitFor(page, () => window.orders.at(-1) === 5);
      assert.deepEqual(await page.evaluate(() => window.orders), [1, 2, 3, 4, 5]);
    });
  }
});
