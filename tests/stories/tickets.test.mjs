// docs/tickets.md: its commands, its functions that make tickets, and its configurations of proxies. Its pages are run in
// tests/browser.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import { PYTHON } from '../lib/client.mjs';
import { blocks, snippet } from '../lib/document.mjs';
import { folder } from '../lib/folder.mjs';
import { Node } from '../lib/hub.mjs';
import { PATIENCE_MS } from '../lib/journal.mjs';
import { built } from '../lib/program.mjs';
import { haproxy, nginx } from '../lib/service.mjs';
import { DOCUMENT, KEY, SECRET, configuration, ticketMaker } from '../lib/tickets.mjs';

const execute = promisify(execFile);
const PATH = `${dirname(built('tidings'))}:${process.env.PATH}`;
const HUB = 'http://127.0.0.1:8080';
/** The interval of looks at a log file. */
const PACE_MS = 20;

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
    assert.equal(await summary(hub.origin, 'user-42', ticket.slice(0, -1)), 401, maker);
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

/** Resolves with the text of a log file as soon as it has a line that matches. */
async function logged(path, line) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const text = readFileSync(path, 'utf8');
    if (line.test(text)) return text;
    assert.ok(Date.now() < deadline, `there is no ${line} in the log: ${text}`);
    await pause(PACE_MS);
  }
}

test('a proxy configured like in the document logs no ticket', async (t) => {
  const hub = await Node.start(t, '--config', await configuration(t));
  const ticket = (await ticketMaker(t))(['user-42']);
  const path = /\/topics\/user-42/;

  const logs = await folder(t);
  const behindNginx = await nginx(t, (port) => {
    const [format, ...use] = snippet(DOCUMENT, 'nginx, the first line', 'nginx').replaceAll('/var/log/nginx', logs).trim().split('\n');
    const nowhere = 'location /topics/nobody { proxy_pass http://127.0.0.1:1; }';
    return `${format} server { listen 127.0.0.1:${port}; ${use.join(' ')} location / { proxy_pass ${hub.origin}; } ${nowhere} }`;
  });
  const nginxOrigin = `http://127.0.0.1:${behindNginx.port}`;
  assert.equal(await summary(nginxOrigin, 'nobody', ticket), 502);
  assert.equal(await summary(nginxOrigin, 'user-42', ticket), 200);
  assert.doesNotMatch(await logged(join(logs, 'hub.log'), path), /tt1|ticket/);
  assert.doesNotMatch(readFileSync(join(logs, 'hub-errors.log'), 'utf8'), /tt1|ticket/);
  assert.doesNotMatch(behindNginx.printed.entries.join('\n'), /tt1|ticket/);

  const behindHaproxy = await haproxy(t, (port) => {
    const recipe = snippet(DOCUMENT, 'HAProxy, in', 'haproxy');
    const times = 'timeout connect 5s\n timeout client 30s\n timeout server 30s\n';
    return (
      `global\n log stderr format raw local0\ndefaults\n mode http\n log global\n ${times}` +
      `frontend in\n bind 127.0.0.1:${port}\n ${recipe} default_backend hub\nbackend hub\n server hub 127.0.0.1:${hub.port}\n`
    );
  });
  assert.equal(await summary(`http://127.0.0.1:${behindHaproxy.port}`, 'user-42', ticket), 200);
  const lines = await behindHaproxy.printed.until('the log line', (all) => all.some((line) => path.test(line)) && all);
  assert.doesNotMatch(lines.join('\n'), /tt1|ticket/);
});

test('these blocks and those of tests/browser are all of the document', () => {
  const languages = blocks(DOCUMENT).map(({ language }) => language);
  assert.deepEqual(languages.toSorted(), ['haproxy', 'js', 'js', 'js', 'js', 'nginx', 'python', 'sh', 'sh', 'toml']);
});
