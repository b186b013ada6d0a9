// The hooks of the client for browsers: under StrictMode in a page, and while a server renders.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import { inBrowsers, newPerson } from '../lib/browser.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';
import { serve } from '../lib/site.mjs';
import { waitFor } from '../lib/tabs.mjs';

const CLIENT = fileURLToPath(new URL('../../clients/js/dist/', import.meta.url));

/** An application: a list that is loaded and kept up to date, the events as they come, and the status. */
const APPLICATION = `
  import { StrictMode, useState } from 'react';
  import { connect } from '@tidings/client';
  import { state } from '@tidings/client/state';
  import { useHubState, useStatus, useTopic } from '@tidings/client/react';

  export function open(url, load) {
    const hub = connect(url);
    const orders = state(hub, 'orders', { load, apply: (list, order) => [...list, order], initial: ['of the server'] });
    return { hub, orders };
  }

  function Events({ hub }) {
    const [events, setEvents] = useState([]);
    useTopic(hub, 'orders', (order) => setEvents([...events, order]));
    return <p id="events">{events.join(' ')}</p>;
  }

  export function Application({ hub, orders }) {
    const [isShown, show] = useState(true);
    return (
      <StrictMode>
        <p id="status">{useStatus(hub)}</p>
        <p id="orders">{useHubState(orders).join(' ')}</p>
        {isShown && <Events hub={hub} />}
        <button onClick={() => show(!isShown)}>toggle</button>
      </StrictMode>
    );
  }
`;

const PAGE = `
  import { hydrateRoot } from 'react-dom/client';
  const opened = open(window.HUB, () => fetch('/orders'));
  hydrateRoot(document.getElementById('root'), <Application {...opened} />);
`;

const SERVER = `
  import { renderToString } from 'react-dom/server';
  export const render = (url) => renderToString(<Application {...open(url, () => { throw new Error('loaded on the server'); })} />);
`;

/** An application with this end, as one module. */
async function bundle(end, platform) {
  const alias = Object.fromEntries(['state', 'react', 'index'].map((name) => [name === 'index' ? '@tidings/client' : `@tidings/client/${name}`, `${CLIENT}${name}.js`]));
  const { outputFiles } = await build({
    stdin: { contents: APPLICATION + end, loader: 'jsx', resolveDir: fileURLToPath(new URL('..', import.meta.url)) },
    alias,
    bundle: true,
    define: { 'process.env.NODE_ENV': '"development"' },
    format: platform === 'node' ? 'cjs' : 'esm',
    jsx: 'automatic',
    logLevel: 'error',
    nodePaths: [fileURLToPath(new URL('../node_modules', import.meta.url))],
    platform,
    write: false,
  });
  return outputFiles[0].text;
}

/** What a server renders for this hub. */
async function rendered(t, url) {
  const path = join(await folder(t), 'server.cjs');
  await writeFile(path, await bundle(SERVER, 'node'));
  return (await import(pathToFileURL(path))).default.render(url);
}

test('a server renders the initial state, and requests nothing', async (t) => {
  const requests = [];
  const note = (_, request) => requests.push(request.url) && '';
  const url = await serve(t, { '/stream': note, '/orders': note });
  const html = await rendered(t, url);
  assert.match(html, /<p id="status">connecting<\/p><p id="orders">of the server<\/p><p id="events"><\/p>/);
  assert.deepEqual(requests, []);
});

inBrowsers('hooks of React', (browser) => {
  test('under StrictMode each event is shown once, and a component that is gone and comes back continues', async (t) => {
    const files = { '/orders': (response) => (response.setHeader('Tidings-Cursor', files.cursor), files.orders), '/app.js': await bundle(PAGE, 'browser') };
    const site = await serve(t, files);
    const hub = await Hub.start(t, 'serve', '--allow-origin', site);
    const html = await rendered(t, hub.origin);
    files['/'] = `<!doctype html><title>react</title><div id="root">${html}</div><script>window.HUB = '${hub.origin}'</script><script type="module" src="/app.js"></script>`;
    // The state at a cursor, behind which there is an event already.
    await hub.publish('orders', '"a"');
    const summary = await fetch(hub.url('/topics/orders'), { headers: { Accept: 'application/json' } });
    files.cursor = (await summary.json()).cursor;
    files.orders = '["a"]';
    await hub.publish('orders', '"b"');

    const page = await newPerson(t, browser());
    const errors = [];
    page.on('console', (message) => ['error', 'warn'].includes(message.type()) && errors.push(message.text()));
    page.on('pageerror', (error) => errors.push(String(error)));
    await page.goto(site);
    const shows = (id, text) => waitFor(page, ([id, text]) => document.getElementById(id)?.textContent === text, [id, text]);
    await shows('status', 'connected');
    await shows('orders', 'a b');
    await hub.publish('orders', '"c"');
    await shows('orders', 'a b c');
    await shows('events', 'c');
    await page.click('button');
    await waitFor(page, () => !document.getElementById('events'));
    await hub.publish('orders', '"d"');
    await shows('orders', 'a b c d');
    await page.click('button');
    await shows('events', '');
    await hub.publish('orders', '"e"');
    await shows('events', 'e');
    await shows('orders', 'a b c d e');
    assert.deepEqual(errors, []);
  });
});
