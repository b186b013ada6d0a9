// Two clients from before all browsers had EventSource are in no registry. These tests send what they send, byte by byte, and check what
// they rely on; the clients themselves are not run.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { test } from 'node:test';
import { atEnd } from '../lib/ending.mjs';
import { Hub } from '../lib/hub.mjs';
import { Journal } from '../lib/journal.mjs';

const PAGE = 'http://localhost:3000';
const CRLF = '\r\n';

/** Requests a stream on a connection of its own; `reads` has the bytes of each read, and `texts()` what the chunks contain. */
async function connect(t, port, target, headers) {
  const socket = net.connect(port, '127.0.0.1');
  atEnd(t, () => socket.destroy());
  const reads = new Journal();
  socket.on('data', (data) => reads.add(data.toString('latin1')));
  const lines = [`GET ${target} HTTP/1.1`, `Host: 127.0.0.1:${port}`, ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`)];
  socket.write([...lines, '', ''].join(CRLF));
  await reads.until('the response headers', (all) => all.join('').includes(CRLF + CRLF));
  const texts = () => chunks(reads.entries.join('').split(CRLF + CRLF).slice(1).join(CRLF + CRLF));
  const until = (data) => reads.until(JSON.stringify(data), () => texts().some((text) => text.includes(data)));
  return { socket, reads, texts, until };
}

/** The contents of these chunks; none may be incomplete. */
function chunks(body) {
  if (body === '') return [];
  const end = body.indexOf(CRLF);
  const length = parseInt(body.slice(0, end), 16);
  const text = body.slice(end + CRLF.length, end + CRLF.length + length);
  assert.equal(body.slice(end + CRLF.length + length).slice(0, CRLF.length), CRLF, `a read ends inside of a chunk: ${JSON.stringify(body)}`);
  return [text, ...chunks(body.slice(end + length + 2 * CRLF.length))];
}

test("remy's polyfill finds whole events in each read, exactly `data: `, and resumes after it has aborted", async (t) => {
  const hub = await Hub.start(t, 'serve');
  const headers = { Origin: PAGE, Accept: 'text/event-stream', 'Cache-Control': 'no-cache', 'X-Requested-With': 'XMLHttpRequest' };
  const preflight = http.request(hub.url('/stream?topic=news'), {
    method: 'OPTIONS',
    headers: {
      Origin: PAGE,
      'Access-Control-Request-Method': 'GET',
      'Access-Control-Request-Headers': 'cache-control,last-event-id,x-requested-with',
    },
  });
  const [allowed] = await once(preflight.end(), 'response');
  allowed.resume();
  assert.equal(allowed.statusCode, 204);
  assert.equal(allowed.headers['access-control-allow-origin'], PAGE);
  const names = allowed.headers['access-control-allow-headers'].toLowerCase().split(', ');
  for (const name of ['cache-control', 'last-event-id', 'x-requested-with']) assert.ok(names.includes(name), name);

  const first = await connect(t, hub.port, '/stream?topic=news', headers);
  assert.match(first.reads.entries[0], /^HTTP\/1\.1 200 OK\r\n[^]*access-control-allow-origin: http:\/\/localhost:3000\r\n/i);
  const one = await hub.publish('news', 'one');
  await first.until('data: one\n');
  const two = await hub.publish('news', 'two\n\nlines', { type: 'note' });
  await first.until('data: lines\n');
  assert.deepEqual(first.texts().slice(1), [
    `id: ${one.id}\ndata: one\n\n`,
    `event: note\nid: ${two.id}\ndata: two\ndata: \ndata: lines\n\n`,
  ]);

  // It does so after 50 seconds, whatever arrives.
  first.socket.destroy();
  const three = await hub.publish('news', 'three');
  const second = await connect(t, hub.port, '/stream?topic=news', { ...headers, 'Last-Event-ID': two.id });
  await second.until('data: three\n');
  assert.ok(second.texts().join('').endsWith(`id: ${three.id}\ndata: three\n\n`));
  assert.ok(!second.texts().join('').includes(two.id));
});

test('jquery.eventsource polls responses that end, with blocks of exactly `data: `; the first one has a `retry`', async (t) => {
  const hub = await Hub.start(t, 'serve');
  for (const data of ['{"order":1}', '{"order":2}', '{"order":3}']) await hub.publish('news', data);
  const headers = { Accept: 'text/event-stream, */*; q=0.01', 'X-Requested-With': 'XMLHttpRequest' };
  const response = await fetch(hub.url('/stream?topic=news&since=earliest&until=now&_=1325376000000'), { headers });
  const blocks = (await response.text()).split('\n\n').filter(Boolean);
  assert.deepEqual(
    blocks.map((block) => block.split('data: ')[1]),
    ['{"order":1}', '{"order":2}', '{"order":3}', '{"kind":"end"}'],
  );
  // It reads nothing else of a block with these letters.
  assert.deepEqual(blocks.map((block) => block.includes('retry')), [true, false, false, false]);
});
