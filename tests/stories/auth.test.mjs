// docs/auth.md: its applications are run as they are written there; only the ports differ.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { BROWSERS, launch, newPerson } from '../lib/browser.mjs';
import { PYTHON } from '../lib/client.mjs';
import { read, snippet } from '../lib/document.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';
import { built } from '../lib/program.mjs';
import { nginx, start } from '../lib/service.mjs';

const execute = promisify(execFile);
const DOCUMENT = read('docs/auth.md');
const APPLICATION = 'http://127.0.0.1:5000';
const HUB = 'http://127.0.0.1:8080';
const SITE = 'http://localhost:8000';
const ENV = { ...process.env, PATH: `${dirname(built('tidings'))}:${process.env.PATH}` };

/** A person who has opened this address, and whose page is connected to its stream. */
async function connected(t, browser, address) {
  const page = await newPerson(t, browser);
  const stream = page.waitForResponse((response) => new URL(response.url()).pathname === '/stream' && response.ok());
  await page.goto(address);
  await stream;
  return page;
}

/** Waits until the page shows exactly these lines. */
function shows(page, ...lines) {
  const text = lines.map((line) => `${line}\n`).join('');
  return page.waitForFunction((text) => document.getElementById('log').textContent === text, {}, text);
}

for (const name of BROWSERS) {
  test(`the Flask application of the document lets user 42 receive, in ${name}`, async (t) => {
    const directory = await folder(t);
    const [serve, run] = snippet(DOCUMENT, 'Start both', 'sh').trim().split('\n');
    const code = snippet(DOCUMENT, 'Save this as `app.py`', 'python');
    // Each has to know the port of the other: the page reads that of the hub from a file.
    writeFileSync(join(directory, 'app.py'), code.replaceAll(HUB, '""" + open("hub").read() + """'));
    const options = { cwd: directory, env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1' } };
    const args = (port) => ['-m', ...run.split(' '), '--port', String(port)];
    const { port } = await start(t, (port) => [PYTHON, args(port), options], /Running on/);
    const site = `http://127.0.0.1:${port}`;
    const [, ...settings] = serve.replace(/ &$/, '').replaceAll(APPLICATION, site).split(' ');
    const hub = await Hub.start(t, ...settings);
    writeFileSync(join(directory, 'hub'), hub.origin);

    const browser = await launch(t, name);
    const mine = await connected(t, browser, `${site}/login/42`);
    const other = await connected(t, browser, `${site}/login/7`);

    const publish = snippet(DOCUMENT, 'publish to this user alone', 'sh').match(/-d '(.*)' 'http:\/\/[^/]+(.*)'/);
    const published = await fetch(`${hub.origin}${publish[2]}`, { method: 'POST', body: publish[1] });
    assert.equal(published.status, 200);
    await hub.publish('chat', 'for all');
    await shows(mine, '{"unread":3}', 'for all');
    await shows(other, 'for all');

    const stranger = await fetch(`${hub.origin}/stream`);
    assert.equal(stranger.status, 403);
  });

  test(`the Node application of the document lets user 42 receive until they log out, in ${name}`, async (t) => {
    const directory = await folder(t);
    process.env.KEY = 'tk_a-key-that-publishes-and-revokes';
    const code = snippet(DOCUMENT, 'Save this as `app.mjs`', 'js');
    // Each has to know the port of the other: the application reads that of the hub from a file.
    const ofHub = "(await import('node:fs')).readFileSync('hub', 'utf8') + '/revoke'";
    const run = (port) => {
      const here = code.replace('5000', String(port)).replace(`'${HUB}/revoke'`, ofHub);
      writeFileSync(join(directory, 'app.mjs'), `${here}console.log('ready');\n`);
      return [process.execPath, ['app.mjs'], { cwd: directory }];
    };
    const application = await start(t, run, /^ready$/);
    const upstream = `http://127.0.0.1:${application.port}`;
    const config = snippet(DOCUMENT, 'this is `hub.toml`', 'toml').replaceAll(APPLICATION, upstream);
    writeFileSync(join(directory, 'hub.toml'), config);
    const hub = await Hub.start(t, 'serve', '--config', join(directory, 'hub.toml'), '--retry-millis', '300');
    writeFileSync(join(directory, 'hub'), hub.origin);
    const routes = snippet(DOCUMENT, 'This is nginx', 'nginx').replaceAll(HUB, hub.origin).replaceAll(APPLICATION, upstream);
    const { port } = await nginx(t, (port) => `server { listen 127.0.0.1:${port}; ${routes} }`);
    const publish = async (topic, data) => {
      const headers = { Authorization: `Bearer ${process.env.KEY}` };
      const published = await fetch(hub.url(`/topics/${topic}`), { method: 'POST', headers, body: data });
      assert.equal(published.status, 200);
    };

    const browser = await launch(t, name);
    const site = `http://127.0.0.1:${port}`;
    const mine = await connected(t, browser, `${site}/login/42`);
    // A user whose name would be two topics if it were not encoded.
    const other = await connected(t, browser, `${site}/login/7&topic=user-42`);
    await publish('user-42?private', 'for 42');
    await publish('chat', 'for all');
    await shows(mine, 'for 42', 'for all');
    await shows(other, 'for all');

    // The stream is revoked; the browser reconnects by itself, and the application says no.
    assert.equal(await mine.evaluate(async () => (await fetch('/logout', { method: 'POST' })).status), 200);
    await mine.waitForFunction('events.readyState === EventSource.CLOSED');
    await publish('user-42?private', 'too late');
    await publish('chat', 'later');
    await shows(other, 'for all', 'later');
    await shows(mine, 'for 42', 'for all');
  });
}

for (const name of BROWSERS) {
  test(`the page with a token receives the event of its user in ${name}`, async (t) => {
    const directory = await folder(t);
    const web = (port) => ['python3', ['-um', 'http.server', '-b', '127.0.0.1', String(port)], { cwd: directory }];
    const site = await start(t, web, /Serving HTTP/);
    const origin = `http://localhost:${site.port}`;
    const commands = snippet(DOCUMENT, 'Make both secrets', 'sh').trim().split('\n');
    const command = commands.pop();
    const config = snippet(DOCUMENT, 'Save this as `tidings.toml`', 'toml').replaceAll(SITE, origin);
    const html = snippet(DOCUMENT, 'A plain EventSource cannot send a token', 'html');
    const hub = await start(t, (port) => {
      const here = `http://127.0.0.1:${port}`;
      writeFileSync(join(directory, 'tidings.toml'), config.replaceAll(HUB, here));
      writeFileSync(join(directory, 'private.html'), html.replaceAll(HUB, here));
      const script = `${commands.join('\n')}\nprintf '%s\\n' "$KEY" "$SIGNING_KEY" >variables\nexec ${command}`;
      return ['sh', ['-euc', script], { cwd: directory, env: { ...ENV, TIDINGS_LISTEN: `127.0.0.1:${port}` } }];
    }, /http:\/\/127\.0\.0\.1:\d+/);
    const hubOrigin = `http://127.0.0.1:${hub.port}`;
    const [KEY, SIGNING_KEY] = readFileSync(join(directory, 'variables'), 'utf8').split('\n');
    const shell = async (commands) => {
      const { stdout } = await execute('sh', ['-euc', commands], { cwd: directory, env: { ...ENV, KEY, SIGNING_KEY } });
      return stdout.trim();
    };

    const [printAddress, publish] = snippet(DOCUMENT, 'In another terminal', 'sh').trim().split('\n');
    const address = await shell(printAddress.replaceAll(SITE, origin));
    const page = await newPerson(t, await launch(t, name));
    const connected = page.waitForResponse((response) => response.url().startsWith(hubOrigin) && response.ok());
    await page.goto(address);
    await connected;
    await shell(publish.replaceAll(HUB, hubOrigin));
    await page.waitForFunction(() => document.getElementById('log').textContent.includes('data: {"unread":3}'));
  });
}
