// The hook of React of the package @liinkiing/use-mercure, which speaks the older revision of the Mercure protocol, unchanged.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { inBrowsers, newPerson } from '../lib/browser.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';
import { serve } from '../lib/site.mjs';
import { waitFor } from '../lib/tabs.mjs';

const PATH = '/.well-known/mercure';
const SECRET = '!ChangeThisMercureHubJWTSecretKey!';

const PAGE = `
  import { useState } from 'react';
  import { createRoot } from 'react-dom/client';
  import { MercureProvider, useMercure } from '@liinkiing/use-mercure';

  function Book() {
    const [titles, setTitles] = useState([]);
    useMercure('https://example.com/books/{id}', (book) => setTitles((before) => [...before, book.title]));
    return <p id="titles">{titles.join(' ')}</p>;
  }

  createRoot(document.getElementById('root')).render(
    <MercureProvider options={{ hubUrl: window.HUB, withCredentials: true }}><Book /></MercureProvider>
  );
`;

async function bundle() {
  const { outputFiles } = await build({
    stdin: { contents: PAGE, loader: 'jsx', resolveDir: fileURLToPath(new URL('..', import.meta.url)) },
    bundle: true,
    define: { 'process.env.NODE_ENV': '"development"', 'process.browser': 'true' },
    format: 'esm',
    jsx: 'automatic',
    logLevel: 'error',
    write: false,
  });
  return outputFiles[0].text;
}

function token(mercure) {
  const parts = [{ typ: 'JWT', alg: 'HS256' }, { mercure }];
  const message = parts.map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  return `${message}.${createHmac('sha256', SECRET).update(message).digest('base64url')}`;
}

inBrowsers('@liinkiing/use-mercure', (browser) => {
  test('receives private updates by a template, with the cookie of the older revision', async (t) => {
    const cookie = `mercureAuthorization=${token({ subscribe: ['https://example.com/books/{id}'] })}; Path=${PATH}; HttpOnly`;
    const files = { '/app.js': await bundle() };
    const site = await serve(t, files);
    const file = join(await folder(t), 'tidings.toml');
    const issuer = `[[issuer]]\niss = "symfony"\nrevision = "0.x"\nsecret = "${SECRET}"\n`;
    await writeFile(file, `mercure_revisions = ["1.0", "0.x"]\nallow_origin = ["${site}"]\n${issuer}`, { mode: 0o600 });
    const hub = await Hub.start(t, 'serve', '--config', file);
    const script = `<script>window.HUB = '${hub.url(PATH)}'</script><script type="module" src="/app.js"></script>`;
    // The application of a user who has logged in: cookies are for every port of a host.
    files['/'] = (response) => {
      response.setHeader('Set-Cookie', cookie);
      return `<!doctype html><title>use-mercure</title><div id="root"></div>${script}`;
    };
    const publish = async (data, fields = {}) => {
      const headers = { Authorization: `Bearer ${token({ publish: ['*'] })}` };
      const body = new URLSearchParams({ topic: 'https://example.com/books/1', data, ...fields });
      assert.equal((await fetch(hub.url(PATH), { method: 'POST', headers, body })).status, 200);
    };
    const page = await newPerson(t, browser());
    const opened = page.waitForResponse((response) => response.url().startsWith(hub.url(PATH)));
    await page.goto(site);
    assert.equal((await opened).status(), 200);
    await publish('{"title":"private"}', { private: 'on' });
    await publish('{"title":"public"}');
    await waitFor(page, () => document.getElementById('titles')?.textContent === 'private public');
  });
});
