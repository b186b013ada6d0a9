// The client for browsers as the script that a hub serves, in pages of other origins.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inBrowsers, newPerson } from '../lib/browser.mjs';
import { Hub } from '../lib/hub.mjs';
import { serve } from '../lib/site.mjs';

/** The tag that the hub shows for a page. */
async function tag(hub) {
  const text = await (await fetch(hub.origin)).text();
  return text.match(/<script src=".*" integrity=".*" crossorigin="anonymous"><\/script>/)[0];
}

const page = (script, origin) => `<!doctype html><title>a page</title>
<script>window.failed = []; addEventListener('error', ({ target }) => target.src && failed.push(target.src), true);</script>
${script}
<script>
  globalThis.received = [];
  tidings.connect('${origin}').on('chat', (data) => received.push(data), { since: 'earliest' });
</script>`;

inBrowsers('the script of a hub', (browser, name) => {
  async function setUp(t) {
    const files = {};
    const site = await serve(t, files);
    const hub = await Hub.start(t, 'serve', '--allow-origin', site);
    await hub.publish('chat', '"before"');
    return { files, site, hub };
  }

  test(`in ${name} the tag that the hub shows receives events on a page of another origin`, async (t) => {
    const { files, site, hub } = await setUp(t);
    files['/'] = page(await tag(hub), hub.origin);
    files['/current'] = page(`<script src="${hub.origin}/tidings.js"></script>`, hub.origin);
    files['/module'] = page(`<script type="module">import '${hub.origin}/tidings.js';</script>`, hub.origin).replaceAll('<script>', '<script type="module">');
    for (const path of ['/', '/current', '/module']) {
      const tab = await newPerson(t, browser());
      await tab.goto(site + path);
      await tab.waitForFunction(() => window.received?.length === 1);
      assert.deepEqual(await tab.evaluate(() => [globalThis.received, globalThis.failed]), [['before'], []]);
    }
  });

  test(`in ${name} another script is not run where the tag is that of the hub`, async (t) => {
    const { files, site, hub } = await setUp(t);
    const changed = (await tag(hub)).replace(/src="[^"]*"/, `src="${hub.origin}/assets/tidings.js"`);
    files['/'] = page(changed, hub.origin);
    const tab = await newPerson(t, browser());
    await tab.goto(site);
    assert.deepEqual(await tab.evaluate(() => globalThis.failed), [`${hub.origin}/assets/tidings.js`]);
    assert.equal(await tab.evaluate(() => typeof tidings), 'undefined');
  });

  test(`the path with a hash is kept, and the other one is asked for each time`, async (t) => {
    const { hub } = await setUp(t);
    const path = new URL((await tag(hub)).match(/src="([^"]*)"/)[1]).pathname;
    assert.match(path, /^\/tidings-[A-Za-z0-9]{16}\.js$/);
    const [fixed, current] = await Promise.all([fetch(hub.url(path)), fetch(hub.url('/tidings.js'))]);
    assert.equal(fixed.headers.get('cache-control'), 'public, max-age=31536000, immutable');
    assert.equal(current.headers.get('cache-control'), 'no-cache');
    for (const response of [fixed, current]) {
      assert.equal(response.status, 200);
      assert.equal(response.headers.get('content-type'), 'text/javascript; charset=utf-8');
      assert.equal(response.headers.get('access-control-allow-origin'), '*');
    }
    assert.equal(await fixed.text(), await current.text());
    const known = await fetch(hub.url('/tidings.js'), { headers: { 'If-None-Match': current.headers.get('etag'), 'Cache-Control': 'no-cache' } });
    assert.equal(known.status, 304);
    assert.equal((await fetch(hub.url('/tidings-0000000000000000.js'))).status, 404);
  });
});
