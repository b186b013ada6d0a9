// The documentation site: it is built without a warning, all its links lead somewhere, it requests nothing of others, and it can be read.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, posix } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { forSuite, newPerson } from '../lib/browser.mjs';
import { serve } from '../lib/site.mjs';

const BUILD = fileURLToPath(new URL('../../tools/site/build.mjs', import.meta.url));
/** A page with everything that it requests, the index of the search included, uncompressed. */
const FIRST_PAGE_BYTES_MAX = 1_200_000;
const SITE_BYTES_MAX = 12_000_000;
const SIZES = [{ width: 390, height: 844 }, { width: 1280, height: 900 }];

const folder = mkdtempSync(join(tmpdir(), 'tidings-site-'));
/** What is on the site, by path. */
let files;

before(async () => {
  const { stderr } = await promisify(execFile)(process.execPath, [BUILD, folder]);
  assert.equal(stderr, '');
  const paths = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  files = Object.fromEntries(
    paths.map(({ parentPath, name }) => [join(parentPath, name).slice(folder.length), readFileSync(join(parentPath, name))]),
  );
});
after(() => rmSync(folder, { recursive: true }));

/** The pages as text, except for the one that is served in place of any other. */
const pages = () => Object.entries(files).filter(([path]) => path.endsWith('.html') && path !== '/404.html').map(([path, bytes]) => [path, bytes.toString()]);
const attributes = (html, pattern) => [...html.matchAll(pattern)].map(([, value]) => value.replaceAll('&amp;', '&'));

test('every link of the site leads to a file, and to a heading that is there', () => {
  const names = new Map(pages().map(([path, html]) => [path, new Set(attributes(html, /\bid="([^"]*)"/g))]));
  const broken = [];
  let count = 0;
  for (const [path, html] of pages()) {
    for (const link of attributes(html, /<[a-z][^<>]*\s(?:href|src)="([^"]*)"/g)) {
      if (/^[a-z]+:/.test(link)) continue;
      count += 1;
      const [file, anchor] = link.split('#');
      const target = file ? posix.join(posix.dirname(path), decodeURIComponent(file)) : path;
      const isThere = target in files && (!anchor || names.get(target)?.has(decodeURIComponent(anchor)));
      if (!isThere) broken.push(`${path}: ${link}`);
    }
  }
  assert.deepEqual(broken, []);
  assert.ok(count > 1000, `${count} links`);
});

test('no page requests anything of another site', () => {
  const foreign = [];
  for (const [path, html] of pages()) {
    const loaded = attributes(html, /<(?:script|img|iframe|source|video)\b[^>]*\ssrc="([^"]*)"/g);
    const linked = attributes(html, /<link\b[^>]*\shref="([^"]*)"/g);
    for (const url of [...loaded, ...linked]) if (/^(?:[a-z]+:)?\/\//.test(url)) foreign.push(`${path}: ${url}`);
  }
  for (const [path, bytes] of Object.entries(files).filter(([path]) => path.endsWith('.css'))) {
    for (const url of attributes(bytes.toString(), /(?:url\(|@import\s+)["']?((?:https?:)?\/\/[^"')]*)/g)) foreign.push(`${path}: ${url}`);
  }
  assert.deepEqual(foreign, []);
});

test('the site stays small', (t) => {
  const bytes = Object.values(files).reduce((sum, file) => sum + file.length, 0);
  t.diagnostic(`${Object.keys(files).length} files, ${bytes} bytes`);
  assert.ok(bytes < SITE_BYTES_MAX, `${bytes} bytes`);
});

/** A page of the site in Chromium, and every request that it makes. */
async function visit(t, browser, path, { javascript = true, size = SIZES[1], dark = false } = {}) {
  const origin = await serve(t, files);
  const page = await newPerson(t, browser);
  const requests = [];
  page.on('request', (request) => request.url().startsWith('data:') || requests.push(request.url()));
  await page.setViewport(size);
  await page.setJavaScriptEnabled(javascript);
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }]);
  await page.goto(origin + path, { waitUntil: 'networkidle0' });
  return { page, origin, requests };
}

suite('in a browser', () => {
  const browser = forSuite('chromium');

  for (const path of ['/index.html', '/auth.html']) {
    for (const size of SIZES) {
      test(`${path} fits a screen of ${size.width} pixels, and requests its own files only`, async (t) => {
        const { page, origin, requests } = await visit(t, browser(), path, { size });
        const { content, title, text } = await page.evaluate(() => ({
          content: document.documentElement.scrollWidth,
          title: document.querySelector('h1').getBoundingClientRect().toJSON(),
          text: document.querySelector('article').innerText.length,
        }));
        assert.ok(content <= size.width, `the page is ${content} pixels wide`);
        assert.ok(title.left >= 0 && title.right <= size.width && title.top < size.height / 2, JSON.stringify(title));
        assert.ok(text > 1000);
        assert.deepEqual(requests.filter((url) => !url.startsWith(`${origin}/`)), []);
        const paths = [...new Set(requests.map((url) => new URL(url).pathname))];
        const bytes = paths.reduce((sum, path) => sum + (files[path]?.length ?? 0), 0);
        t.diagnostic(`${paths.length} files, ${bytes} bytes`);
        assert.ok(bytes < FIRST_PAGE_BYTES_MAX, `${bytes} bytes`);
        if (process.env.TIDINGS_SCREENSHOTS) {
          await page.screenshot({ path: join(process.env.TIDINGS_SCREENSHOTS, `${path.slice(1)}-${size.width}.png`) });
        }
      });
    }
  }

  test('a page can be read, and its tabs switched, without JavaScript', async (t) => {
    const { page } = await visit(t, browser(), '/index.html', { javascript: false });
    const shown = async () => (await page.$eval('article', (article) => article.innerText)).includes('fetch(');
    assert.equal(await shown(), false);
    await page.click('.tabbed-labels label:nth-child(4)');
    assert.equal(await shown(), true);
    const menu = await page.$$eval('nav a', (links) => links.length);
    assert.ok(menu > 30, `${menu} links`);
  });

  test('the search finds a word, and a dark page is dark', async (t) => {
    const { page } = await visit(t, browser(), '/index.html', { dark: true });
    assert.equal(await page.$eval('body', (body) => body.dataset.mdColorScheme), 'slate');
    await page.click('.md-search__input');
    await page.type('.md-search__input', 'systemd');
    const result = await page.waitForSelector('.md-search-result__link');
    const target = new URL(await result.evaluate((link) => link.href)).pathname;
    assert.ok(existsSync(join(folder, dirname(target))) && files[target].toString().includes('systemd'), target);
  });
});
