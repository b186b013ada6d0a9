// curl, with the usual options.

import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { blocks, read } from '../lib/document.mjs';
import { atEnd } from '../lib/ending.mjs';
import { Hub } from '../lib/hub.mjs';
import { Journal } from '../lib/journal.mjs';

/** Runs curl for the duration of the test; its output grows in `text()`. */
function curl(t, ...args) {
  const output = new Journal();
  const child = spawn('curl', ['-sS', '-N', ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  atEnd(t, () => child.kill());
  child.stdout.setEncoding('utf8');
  child.stdout.on('data', (text) => output.add(text));
  const text = () => output.entries.join('');
  return { text, shows: (wanted) => output.until(`${JSON.stringify(wanted)} on the screen`, () => text().includes(wanted)) };
}

test('curl -N shows every event in its wire format, in the order of the log', async (t) => {
  const hub = await Hub.start(t, 'serve', '--heartbeat-secs', '1');
  const screen = curl(t, hub.url('/stream?topic=news'));
  await screen.shows('retry: ');
  const plain = await hub.publish('news', 'grüße 🗞️');
  await screen.shows(`id: ${plain.id}\ndata: grüße 🗞️\n\n`);
  const typed = await hub.publish('news', 'one\ntwo', { type: 'note', id: 'order-42' });
  assert.equal(typed.id, 'order-42');
  await screen.shows('event: note\nid: order-42\ndata: one\ndata: two\n\n');
  await screen.shows('\n: hb\n: hb\n');
  assert.doesNotMatch(screen.text(), /: hb\n\n/, 'a blank line after a heartbeat makes several parsers invent an event');
});

test('curl with Last-Event-ID receives the events since, once', async (t) => {
  const hub = await Hub.start(t, 'serve');
  const first = await hub.publish('news', 'first');
  const second = await hub.publish('news', 'second');
  const screen = curl(t, '-H', `Last-Event-ID: ${first.id}`, hub.url('/topics/news'));
  await screen.shows('data: second\n\n');
  const third = await hub.publish('news', 'third');
  await screen.shows('data: third\n\n');
  const ids = [...screen.text().matchAll(/^id: (.*)$/gm)].map((match) => match[1]);
  assert.deepEqual(ids, [second.id, third.id]);
});

test('curl with prior knowledge of HTTP/2 receives and publishes, and is refused where HTTP/2 is off', async (t) => {
  const hub = await Hub.start(t, 'serve', '--heartbeat-secs', '1');
  const screen = curl(t, '--http2-prior-knowledge', '-i', hub.url('/stream?topic=news'));
  await screen.shows('retry: ');
  assert.match(screen.text(), /^HTTP\/2 200 \r\ncontent-type: text\/event-stream\r\n/);
  const posted = curl(t, '--http2-prior-knowledge', '-d', 'over two', hub.url('/topics/news'));
  await posted.shows('{"id":');
  await screen.shows('data: over two\n\n');
  await screen.shows(': hb\n: hb\n');

  const without = await Hub.start(t, 'serve', '--http2', 'false');
  const served = curl(t, '--http1.1', without.url('/healthz'));
  await served.shows('ok');
  const result = spawnSync('curl', ['-sS', '--http2-prior-knowledge', without.url('/healthz')], { encoding: 'utf8' });
  assert.notEqual(result.status, 0);
});

test('every command of docs/subscribing.md receives the last events, and those that follow if it stays connected', async (t) => {
  const hub = await Hub.start(t, 'serve');
  await hub.publish('chat', 'before');
  const commands = blocks(read('docs/subscribing.md')).filter(({ language, code }) => language === 'sh' && !/hello=true|PATCH/.test(code));
  assert.equal(commands.length, 5);
  const isFinite = ({ code }) => code.includes('until=now');
  const finite = commands.filter(isFinite).map(({ code }) => code.replaceAll('http://127.0.0.1:8080', hub.origin));
  assert.equal(finite.length, 1);
  for (const command of finite) {
    const response = execFileSync('sh', ['-c', command], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], timeout: 60_000 });
    assert.match(response, /tidings-cursor: #[^]*data: before\n[^]*data: {"kind":"end"}\n\n$/);
  }
  const screens = commands.filter((command) => !isFinite(command)).map(({ code }) => {
    const output = new Journal();
    const command = code.replaceAll('http://127.0.0.1:8080', hub.origin).replace(/^curl /, 'exec curl -sS ');
    const child = spawn('sh', ['-c', command], { stdio: ['ignore', 'pipe', 'inherit'] });
    atEnd(t, () => child.kill());
    child.stdout.setEncoding('utf8');
    child.stdout.on('data', (text) => output.add(text));
    return { command, shows: (wanted) => output.until(`${wanted} after ${command}`, () => output.entries.join('').includes(wanted)) };
  });
  for (const screen of screens) await screen.shows('data: before\n');
  for (const topic of ['news', 'typing']) await hub.publish(topic, 'after');
  for (const screen of screens) await screen.shows('data: after\n');
});

test('the commands of docs/subscribing.md change the topics of a stream', async (t) => {
  const hub = await Hub.start(t, 'serve');
  const commands = blocks(read('docs/subscribing.md')).filter(({ language, code }) => language === 'sh' && /hello=true|PATCH/.test(code));
  const [open, change] = commands.map(({ code }) => code.replaceAll('http://127.0.0.1:8080', hub.origin));
  const screen = curl(t, open.match(/'(.*)'/)[1]);
  await screen.shows('"kind":"hello"');
  const { connection, secret, topics } = JSON.parse(screen.text().match(/^data: (.*)$/m)[1]);
  assert.deepEqual(topics, ['chat']);
  const command = change.replaceAll('3f0c…', connection).replaceAll('9a41…', secret).replace(/^curl /, 'curl -sS ');
  const answer = JSON.parse(execFileSync('sh', ['-c', command], { encoding: 'utf8', timeout: 60_000 }));
  assert.deepEqual(answer, { connection, topics: ['news'], cursor: answer.cursor });
  await hub.publish('chat', 'removed');
  await hub.publish('news', 'added');
  await screen.shows('data: added\n');
  assert.doesNotMatch(screen.text(), /removed/);
});
