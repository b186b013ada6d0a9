// Express and Next applications with a login, and the changes that push a private event to their users: the streams that their pages
// open, without a browser.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { applyChanges } from '../lib/adoption.mjs';
import { developmentEnvironment, projectDirectory } from '../lib/node-package.mjs';
import { start } from '../lib/service.mjs';
import { Stream } from '../lib/stream.mjs';
import { Visitor } from '../lib/visitor.mjs';

const NEXT = fileURLToPath(new URL('node_modules/next/dist/bin/next', import.meta.url));
const FRAMEWORKS = {
  express: () => ['app.mjs'],
  next: (port) => [NEXT, 'dev', '--hostname', '127.0.0.1', '--port', String(port)],
};

for (const [framework, command] of Object.entries(FRAMEWORKS)) {
  test(`${framework}: after \`npm install tidings\` and six changed lines, an order that is shipped is pushed to its user alone`, async (t) => {
    const directory = projectDirectory(t, fileURLToPath(new URL(framework, import.meta.url)));
    t.diagnostic(`${await applyChanges(join(directory, 'changes.diff'), directory)} changed lines, 1 command`);
    const env = await developmentEnvironment(t);
    const run = (port) => [process.execPath, command(port), { cwd: directory, env: { ...env, PORT: String(port) } }];
    const { port } = await start(t, run, /^http:|Ready in/);
    const origin = `http://127.0.0.1:${port}`;

    const [ann, bob, shop] = [await Visitor.logIn(origin, 'Ann'), await Visitor.logIn(origin, 'Bob & <Ann>'), await Visitor.logIn(origin, 'shop')];
    await ann.submit('/', { item: 'a book' });
    await bob.submit('/', { item: 'a pen' });
    const [ofAnn, ofBob] = [await Stream.open(t, `${origin}/stream`, ann.headers), await Stream.open(t, `${origin}/stream`, bob.headers)];
    assert.equal((await ann.post('/orders/0/ship')).status, 403);
    for (const number of [0, 1]) assert.equal((await shop.post(`/orders/${number}/ship`)).status, 204);
    for (const [stream, visitor, item] of [[ofAnn, ann, 'a book'], [ofBob, bob, 'a pen']]) {
      // The first event is that of this user: those of another would have come before, or never.
      const { data } = await stream.received.until('the order', (all) => all.find(({ data }) => data));
      assert.deepEqual([JSON.parse(data).item, JSON.parse(data).state], [item, 'shipped']);
      const page = await visitor.page();
      assert.match(page, new RegExp(`${item}.*shipped`));
      assert.match(page, /new EventSource\(/);
    }
    assert.notEqual((await fetch(`${origin}/stream`, { redirect: 'manual' })).status, 200);
  });
}
