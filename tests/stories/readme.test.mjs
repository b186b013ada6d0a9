// The README from beginning to end: every file, command and snippet is taken from it. Only the ports differ, since each test has
// its own, and `cargo install` is skipped, since the binary under test is built already.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { BROWSERS, launch, newPerson } from '../lib/browser.mjs';
import { PYTHON } from '../lib/client.mjs';
import { blocks, read, snippet } from '../lib/document.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';
import { Program, built } from '../lib/program.mjs';
import { start } from '../lib/service.mjs';

const execute = promisify(execFile);
const README = read('README.md');
const HUB = 'http://127.0.0.1:8080';
const APPLICATION = 'http://127.0.0.1:5000';
const SERVES = /http:\/\/127\.0\.0\.1:\d+/;
const PATH = `${dirname(built('tidings'))}:${process.env.PATH}`;
const used = new Set();

/** The first block in `language` after `words`; at the end every block must have been used. */
function take(words, language) {
  const code = snippet(README, words, language);
  used.add(code);
  return code;
}

/** Starts the web server of the README in a directory; resolves with its origin. */
async function site(t, directory) {
  const command = take('Serve it', 'sh').trim();
  const withPort = (port) => ['sh', ['-c', `exec ${command.replace('8000', `-b 127.0.0.1 ${port}`)}`], { cwd: directory, env: { ...process.env, PYTHONUNBUFFERED: '1' } }];
  const { port } = await start(t, withPort, /Serving HTTP/);
  return `http://localhost:${port}`;
}

/** Runs shell commands as a reader would, in a directory and with variables; resolves with what they print. */
async function shell(commands, directory, variables = {}) {
  const { stdout } = await execute('sh', ['-euc', commands], { cwd: directory, env: { ...process.env, PATH, ...variables } });
  return stdout.trim();
}

/** Starts a hub with a command line of the README in a directory, on a free port. */
async function serve(t, command, directory) {
  const run = (port) => {
    const env = { ...process.env, PATH, TIDINGS_LISTEN: `127.0.0.1:${port}` };
    return ['sh', ['-euc', `exec ${command}`], { cwd: directory, env }];
  };
  const running = await start(t, run, SERVES);
  return { ...running, origin: `http://127.0.0.1:${running.port}` };
}

/** Publishes with each snippet of the README, one after the other. `shown` resolves when the page shows a text. */
async function publishWithEverySnippet(t, hub, shown) {
  await shell(take('**curl**', 'sh').replaceAll(HUB, hub.origin), '/');
  await shown('hello from curl');

  const flask = take('**Flask**', 'python').replaceAll(HUB, hub.origin);
  const application = `from flask import Flask\napp = Flask(__name__)\n${flask}\nassert app.test_client().post("/orders").status_code == 204\n`;
  await execute(PYTHON, ['-c', application]);
  await shown('hello from Flask');

  const django = take('**Django**', 'python').replaceAll(HUB, hub.origin);
  await execute(PYTHON, ['-c', `${django}\nnotify("chat", unread=3)\n`]);
  await shown('{"unread": 3}');

  const node = take('**Node**', 'js').replaceAll(HUB, hub.origin);
  await execute(process.execPath, ['--input-type=module', '-e', node]);
  await shown('hello from Node');

  take('**axum**', 'rust');
  const axum = new Program(t, 'tidings-readme-axum', [hub.origin]);
  const address = (await axum.answer()).split(' ').at(-1);
  const response = await fetch(`http://${address}/orders`, { method: 'POST' });
  assert.equal(response.status, 204, await response.text());
  await shown('hello from axum');
}

for (const name of BROWSERS) {
  test(`the page receives what every snippet publishes, and a gap notice, in ${name}`, async (t) => {
    const [install, run] = take('## Install and run', 'sh').trim().split('\n');
    const crate = install.match(/--path (\S+)$/)[1];
    assert.match(read(`${crate}/Cargo.toml`), /^name = "tidings"$/m);
    const hub = await Hub.start(t, ...run.split(' ').slice(1), '--retry-millis', '300');
    const directory = await folder(t);
    writeFileSync(join(directory, 'index.html'), take('Save this as `index.html`', 'html').replaceAll(HUB, hub.origin));

    const page = await newPerson(t, await launch(t, name));
    const connected = page.waitForResponse((response) => response.url().startsWith(hub.origin));
    await page.goto(`${await site(t, directory)}/index.html`);
    await connected;
    const shown = (text) => page.waitForFunction((text) => [...document.querySelectorAll('li')].some((item) => item.textContent.includes(text)), {}, text);
    await publishWithEverySnippet(t, hub, shown);

    await hub.kill();
    await hub.startAgain();
    await shown('"kind":"gap"');
  });
}

test('the history command of the README returns events with topics and in order', async (t) => {
  const hub = await Hub.start(t, 'serve');
  await hub.publish('chat', 'one');
  await hub.publish('news', 'two');
  const command = README.match(/`(curl -N '[^']+')`/)[1].replaceAll(HUB, hub.origin);
  const { printed } = await start(t, () => ['sh', ['-c', `exec ${command}`]], /"two"/);
  const events = printed.entries.filter((line) => line.startsWith('data: ')).map((line) => JSON.parse(line.slice(6)));
  assert.deepEqual(events.map(({ topic, data }) => [topic, data]), [['chat', 'one'], ['news', 'two']]);
});

test('a hub with the store of the README keeps its events when it is killed', async (t) => {
  const directory = await folder(t);
  const command = take('In a directory it survives', 'sh').trim();
  const first = await serve(t, command, directory);
  const published = await fetch(`${first.origin}/topics/chat`, { method: 'POST', body: 'kept' });
  assert.equal(published.status, 200);
  await first.end('SIGKILL');
  const second = await serve(t, command, directory);
  await start(t, () => ['curl', ['-sN', `${second.origin}/topics/chat?since=earliest`]], /^data: kept$/);
});

for (const name of BROWSERS) {
  test(`the private page receives the event of its user in ${name}`, async (t) => {
    const directory = await folder(t);
    const [serve, run] = take('Start both', 'sh').trim().split('\n');
    // The page reads the address of the hub, which has another port here, from a file.
    const code = take('Save this as `app.py`', 'python').replaceAll(HUB, '""" + open("hub").read() + """');
    writeFileSync(join(directory, 'app.py'), code);
    const options = { cwd: directory, env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1' } };
    const args = (port) => ['-m', ...run.split(' '), '--port', String(port)];
    const { port } = await start(t, (port) => [PYTHON, args(port), options], /Running on/);
    const origin = `http://127.0.0.1:${port}`;
    const [, ...settings] = serve.replace(/ &$/, '').replaceAll(APPLICATION, origin).split(' ');
    const hub = await Hub.start(t, ...settings);
    writeFileSync(join(directory, 'hub'), hub.origin);

    const person = await newPerson(t, await launch(t, name));
    const connected = person.waitForResponse((response) => response.url().startsWith(hub.origin) && response.ok());
    const address = README.match(/Open `(\S+)`, then/)[1];
    await person.goto(address.replace(APPLICATION, origin));
    await connected;
    await shell(take('for this user alone', 'sh').replaceAll(HUB, hub.origin), directory);
    await person.waitForFunction(() => document.getElementById('log').textContent.includes('{"unread":3}'));
  });
}

test('every block of the README was taken by one of these tests', () => {
  const left = blocks(README).filter(({ code }) => !used.has(code));
  assert.deepEqual(left, []);
});

test('every file that the README links to exists', () => {
  const top = fileURLToPath(new URL('../..', import.meta.url));
  const links = [...README.matchAll(/\]\((?!https?:)([^)#]+)/g)].map(([, path]) => path);
  assert.ok(links.length > 5);
  for (const path of links) assert.ok(existsSync(join(top, path)), `there is no ${path}`);
});
