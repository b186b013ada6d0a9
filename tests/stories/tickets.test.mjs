// docs/tickets.md: its commands, its functions that make tickets, and its configurations of proxies. Its two pages are run in
// tests/browser.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { PYTHON } from '../lib/client.mjs';
import { blocks, snippet } from '../lib/document.mjs';
import { folder } from '../lib/folder.mjs';
import { Node } from '../lib/hub.mjs';
import { built } from '../lib/program.mjs';
import { haproxy, nginx } from '../lib/service.mjs';
import { DOCUMENT, KEY, SECRET, configuration, ticketMaker } from '../lib/tickets.mjs';

const execute = promisify(execFile);
const PATH = `${dirname(built('tidings'))}:${process.env.PATH}`;
const HUB = 'http://127.0.0.1:8080';

/** Runs a block of the document as a reader would; resolves with what it prints. */
async function shell(words, variables, change = (code) => code) {
  const code = change(snippet(DOCUMENT, words, 'sh'));
  const { stdout } = await execute('sh', ['-euc', code], { env: { ...process.env, PATH, ...variables } });
  return stdout.trim();
}

/** The status of the summary of a topic with a ticket. */
async function summary(origin, topic, ticket) {
  const response = await fetch(`${origin}/topics/${topic}?ticket=${ticket}`, { headers: { Accept: 'application/json' } });
  return response.status;
}

test('the commands and functions of the document make tickets for their topics and for no other', async (t) => {
  const file = await configuration(t);
  const hub = await Node.start(t, '--config', file);
  const node = await ticketMaker(t);
  const python = `${snippet(DOCUMENT, '\nPython:\n', 'python')}\nprint(ticket(["user-42"], label="Zoë"))\n`;
  const environment = { ...process.env, TICKET_SECRET: SECRET, PYTHONIOENCODING: 'utf8' };
  const { stdout } = await execute(PYTHON, ['-c', python], { env: environment });
  const tickets = {
    hub: await shell('**The ticket.**', { KEY }, (code) => code.replace(HUB, hub.origin)),
    command: await shell('### `tidings ticket new`', {}, (code) => code.replace('tidings.toml', file)),
    python: stdout.trim(),
    node: node(['user-42'], { label: 'Zoë' }),
  };
  for (const [maker, ticket] of Object.entries(tickets)) {
    assert.equal(await summary(hub.origin, 'user-42', ticket), 200, `${maker}: ${ticket}`);
    assert.equal(await summary(hub.origin, 'user-43', ticket), 403, maker);
    assert.equal(await summary(hub.origin, 'user-42', `${ticket.slice(0, -2)}AA`), 401, maker);
  }
});

test('a new secret of the command is used by the functions of the document', async (t) => {
  const { stdout } = await execute(built('tidings'), ['ticket', 'secret']);
  const [secret, ...lines] = stdout.split('\n');
  const file = join(await folder(t), 'tidings.toml');
  writeFileSync(file, lines.join('\n'));
  const hub = await Node.start(t, '--config', file);
  const node = await ticketMaker(t);
  process.env.TICKET_SECRET = secret;
  assert.equal(await summary(hub.origin, 'news', node(['news'])), 200);
});

test('a proxy configured like in the document logs no ticket', async (t) => {
  const hub = await Node.start(t, '--config', await configuration(t));
  const ticket = (await ticketMaker(t))(['user-42']);
  const path = /\/topics\/user-42/;
  const of = {
    nginx: (port) =>
      `${snippet(DOCUMENT, 'nginx, in', 'nginx').replace('/var/log/nginx/hub.log', '/dev/stderr')}
       server { listen 127.0.0.1:${port}; location / { proxy_pass ${hub.origin}; } }`,
    haproxy: (port) =>
      `global\n log stderr format raw local0\ndefaults\n mode http\n log global\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n` +
      `frontend in\n bind 127.0.0.1:${port}\n ${snippet(DOCUMENT, 'HAProxy, in', 'haproxy')} default_backend hub\n` +
      `backend hub\n server hub 127.0.0.1:${hub.port}\n`,
  };
  for (const [name, start] of Object.entries({ nginx, haproxy })) {
    const { port, printed } = await start(t, of[name]);
    assert.equal(await summary(`http://127.0.0.1:${port}`, 'user-42', ticket), 200, name);
    await printed.until(`the log line of ${name}`, (all) => all.some((line) => path.test(line)));
    assert.deepEqual(printed.entries.filter((line) => line.includes('tt1.') || line.includes('ticket=')), [], name);
  }
});

test('these blocks and those of tests/browser are all of the document', () => {
  const languages = blocks(DOCUMENT).map(({ language }) => language);
  assert.deepEqual(languages.toSorted(), ['haproxy', 'js', 'js', 'js', 'nginx', 'python', 'sh', 'sh', 'toml']);
});
