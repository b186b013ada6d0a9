// The conformance checks hold at this hub, in both revisions, and fail at a hub that is wrong.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { atEnd } from '../lib/ending.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';
import { Redis } from '../lib/service.mjs';

const PROGRAM = fileURLToPath(new URL('mercure.mjs', import.meta.url));
const PATH = '/.well-known/mercure';
const ISSUER = 'https://app.example';
const AUDIENCE = 'https://hub.example/.well-known/mercure';
const SECRET = 'the shared secret of the current revision';
const OLDER_SECRET = 'the shared secret of the older revision';
const CONFIGURATION = `
[[issuer]]
iss = "${ISSUER}"
audience = "${AUDIENCE}"
secret = "${SECRET}"
`;
const BOTH = `mercure_revisions = ["1.0", "0.x"]
mercure_subscriptions = true
${CONFIGURATION}
[[issuer]]
iss = "older"
revision = "0.x"
secret = "${OLDER_SECRET}"
`;

/** Runs the checks against the nodes of a hub, and resolves with the exit code and the rows. */
function check(urls, ...args) {
  const all = [...urls.flatMap((url) => ['--url', url]), '--secret', SECRET, '--issuer', ISSUER, '--audience', AUDIENCE, '--older-secret', OLDER_SECRET, '--json', ...args];
  return new Promise((resolve) => {
    execFile(process.execPath, [PROGRAM, ...all], (error, stdout, stderr) => {
      resolve({ code: error?.code ?? 0, rows: stdout ? JSON.parse(stdout) : [], stderr });
    });
  });
}

/** Starts a hub, and resolves with the URL of its Mercure API. */
async function start(t, configuration, ...args) {
  const file = join(await folder(t), 'tidings.toml');
  await writeFile(file, configuration, { mode: 0o600 });
  const hub = await Hub.start(t, 'serve', '--config', file, ...args);
  return hub.url(PATH);
}

const failures = (rows) => rows.filter(({ result }) => result === 'fails').map(({ number, revision, title, reason }) => `${number} ${revision} ${title}: ${reason}`);

/** The flags of each node of a hub. */
const HUBS = {
  'one hub in memory': async () => [[]],
  'three nodes on Redis, asked in turn': async (t) => {
    const { url } = await Redis.start(t);
    return Array.from({ length: 3 }, () => ['--store', url]);
  },
};

for (const [title, nodes] of Object.entries(HUBS)) {
  test(`every check of both revisions holds, or is of something optional: ${title}`, async (t) => {
    const urls = [];
    for (const flags of await nodes(t)) urls.push(await start(t, `heartbeat_secs = 1\n${BOTH}`, ...flags));
    const { code, rows, stderr } = await check(urls);
    assert.deepEqual(failures(rows), [], stderr);
    assert.equal(code, 0);
    const notOffered = rows.filter(({ result }) => result === 'not offered').map(({ number }) => number);
    assert.deepEqual(notOffered, []);
  });
}

test('a stream without comments is reported within the time that was given', async (t) => {
  const url = await start(t, `heartbeat_secs = 40\n${BOTH}`);
  const { code, rows } = await check([url], '--only', '8', '--keep-alive-secs', '0.5');
  assert.match(rows[0].reason, /^waited 0.5 s for a comment/);
  // It is no requirement.
  assert.equal(code, 0);
});

test('the checks of the older revision fail at a hub that does not serve it', async (t) => {
  const url = await start(t, CONFIGURATION);
  const { code, rows } = await check([url], '--only', '20', '--only', '46', '--only', '47', '--only', '48', '--only', '49', '--only', '50');
  const failed = rows.filter(({ result }) => result === 'fails');
  assert.deepEqual([...new Set(failed.map(({ revision }) => revision))], ['0.x']);
  assert.equal(failed.length, rows.length - 1, JSON.stringify(rows));
  assert.equal(code, 1);
});

test('the checks fail at a server that answers everything alike', async (t) => {
  const server = createServer((request, response) => response.writeHead(200, { 'Content-Type': 'text/plain' }).end('ok'));
  atEnd(t, () => server.close());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { code, rows } = await check([`http://127.0.0.1:${server.address().port}${PATH}`]);
  const held = rows.filter(({ result, level }) => result === 'holds' && level === 'must').map(({ number }) => number);
  // Nothing is required there but an answer.
  assert.deepEqual(held, [9, 19], JSON.stringify(rows.filter(({ result }) => result === 'holds')));
  assert.equal(code, 1);
});

test('a hub that is not there, and missing options, are reported as such', async () => {
  const { code, stderr } = await check(['http://127.0.0.1:1/']);
  assert.equal(code, 2);
  assert.match(stderr, /there is no hub at/);
});
