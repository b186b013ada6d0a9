// Deno and Bun, where they are installed: a handler of their own server streams what they publish, with a hub for development.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { folder } from '../../../tests/lib/folder.mjs';
import { developmentEnvironment } from '../../../tests/lib/node-package.mjs';
import { start } from '../../../tests/lib/service.mjs';
import { Stream } from '../../../tests/lib/stream.mjs';

const INDEX = new URL('../src/index.js', import.meta.url);
const APPLICATION = `
import { publish, stream, subscribe, ticket } from ${JSON.stringify(INDEX.href)};

async function handler(request) {
  const { pathname } = new URL(request.url);
  if (pathname === '/stream') return stream(request, 'chat', 'user-42', { label: 'user-42' });
  if (pathname === '/publish') return Response.json(await publish('user-42', { paid: 17 }, { private: true }));
  if (pathname === '/ticket') return new Response(await ticket('chat'));
  for await (const event of subscribe('user-42', { since: 'earliest' })) return Response.json(event);
}
const port = Number(process.env.PORT);
if ('Deno' in globalThis) Deno.serve({ port, hostname: '127.0.0.1', onListen: () => console.log('ready') }, handler);
else if (Bun.serve({ port, hostname: '127.0.0.1', fetch: handler, idleTimeout: 0 })) console.log('ready');
`;

const RUNTIMES = { Deno: ['deno', 'run', '--allow-all'], Bun: ['bun', 'run'] };

function isInstalled(command) {
  try {
    execFileSync(command, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

for (const [name, [command, ...args]] of Object.entries(RUNTIMES)) {
  test(`${name} publishes, receives, makes tickets and passes streams on`, { skip: !isInstalled(command) && `${command} is not installed` }, async (t) => {
    const directory = await folder(t);
    writeFileSync(join(directory, 'app.mjs'), APPLICATION);
    const env = await developmentEnvironment(t);
    const { port } = await start(t, (port) => [command, [...args, 'app.mjs'], { cwd: directory, env: { ...env, PORT: String(port) } }], /^ready$/);
    const origin = `http://127.0.0.1:${port}`;
    const stream = await Stream.open(t, `${origin}/stream`);
    assert.equal(stream.status, 200);
    const { id } = await (await fetch(`${origin}/publish`)).json();
    await stream.receive('{"paid":17}');
    const event = await (await fetch(`${origin}/subscribe`)).json();
    assert.deepEqual([event.kind, event.topic, event.id, event.data], ['event', 'user-42', id, '{"paid":17}']);
    assert.match(await (await fetch(`${origin}/ticket`)).text(), /^tt1\.development\./);
    const asked = await fetch(`${origin}/stream`, { headers: { 'Tidings-Version': '0.1.0' } });
    assert.equal(asked.headers.get('tidings-subscribe'), 'topic=chat&topic=user-42&label=user-42');
  });
}
