// A library for web pages, on XMLHttpRequest: it runs in Chromium, on a page of another origin than the hub.
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { launch } from '../../lib/browser.mjs';
import { serve } from '../../lib/site.mjs';
import { TYPES, opened, report, url } from './report.mjs';

const untilKilled = {
  after: (end) => process.once('SIGTERM', async () => {
    await end();
    process.exit();
  }),
};

const library = await readFile(fileURLToPath(import.meta.resolve('sse.js')), 'utf8');
const origin = await serve(untilKilled, { '/': '<!doctype html><title>sse.js</title>', '/sse.js': library });
const browser = await launch(untilKilled, 'chromium');
const page = await browser.newPage();
await page.exposeFunction('report', report);
await page.exposeFunction('opened', opened);
await page.goto(origin);
await page.evaluate(
  async (url, types) => {
    const { SSE } = await import('/sse.js');
    const source = new SSE(url, { autoReconnect: true, reconnectDelay: 300, useLastEventId: true });
    source.addEventListener('open', () => window.opened());
    for (const type of types) {
      source.addEventListener(type, ({ id, data }) => window.report({ type, id, data }));
    }
  },
  url,
  TYPES,
);
