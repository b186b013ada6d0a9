// The application of examples/flask, with a real Redis: it publishes as the 2012 answer does, and Tidings is its stream.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { forSuite, newPerson } from '../lib/browser.mjs';
import { Client } from '../lib/client.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';
import { built } from '../lib/program.mjs';
import { Redis, flask, nginxOfFlask } from '../lib/service.mjs';

const execute = promisify(execFile);
const chromium = forSuite('chromium');

/** Logs in, and waits until the page is connected to its stream. */
async function join(t, origin, name) {
  const page = await newPerson(t, chromium());
  await page.goto(`${origin}/`);
  assert.equal(new URL(page.url()).pathname, '/login');
  await page.type('input[name=user]', name);
  const connected = page.waitForResponse((response) => new URL(response.url()).pathname === '/stream');
  await Promise.all([page.waitForNavigation(), page.keyboard.press('Enter')]);
  assert.match((await connected).headers()['content-type'], /^text\/event-stream/);
  return page;
}

/** The lines of the page without the times, oldest first, as soon as there are this many. */
async function lines(page, count) {
  const stand = () => document.getElementById('out').textContent.split('\n').slice(0, -1);
  await page.waitForFunction((count) => document.getElementById('out').textContent.split('\n').length > count, {}, count);
  return (await page.evaluate(stand)).reverse().map((line) => line.replace(/^\[\d\d:\d\d:\d\d\] /, ''));
}

async function chat(t, { redis, hub, application, origin }) {
  const [ann, bob] = [await join(t, origin, 'Ann'), await join(t, origin, 'Bob <b>')];
  const client = new Client(t, 'node/eventsource.mjs', hub.url('/stream'));
  await client.opened();

  await ann.type('#in', 'grüße 🗞️');
  await ann.keyboard.press('Enter');
  await lines(bob, 1);
  await bob.type('#in', '<i>hi</i>');
  await bob.keyboard.press('Enter');
  await lines(ann, 2);
  await redis.cli('PUBLISH', 'chat', 'from redis-cli');
  await lines(ann, 3);
  const { stdout } = await execute('curl', ['-sS', '-d', 'message=curl', '-w', '%{http_code}', `${application}/post`]);
  assert.equal(stdout, '204');

  // The first line is the first message: the confirmation of the subscription is not shown.
  const expected = ['Ann: grüße 🗞️', 'Bob <b>: <i>hi</i>', 'from redis-cli', 'anonymous: curl'];
  for (const page of [ann, bob]) assert.deepEqual(await lines(page, 4), expected);
  await client.received.until('four events', () => client.events.length >= 4);
  const received = client.events.map((event) => event.data.replace(/^\[\d\d:\d\d:\d\d\] /, ''));
  assert.deepEqual(received, expected);
  // One connection of the hub, whatever the number of subscribers.
  const connections = (await redis.cli('CLIENT', 'LIST', 'TYPE', 'pubsub')).split('\n').filter(Boolean);
  assert.equal(connections.length, 1);
}

test('a page of Flask receives its Redis through a hub on an origin of its own', async (t) => {
  const redis = await Redis.start(t);
  const hub = await Hub.start(t, 'serve', '--stream', 'chat', '--bridge', `${redis.url}?channels=chat`);
  await ready(hub);
  const application = await flask(t, { REDIS_URL: redis.url, STREAM_URL: hub.url('/stream') });
  await chat(t, { redis, hub, application, origin: application });
});

test('a page of Flask receives its Redis behind nginx, and nothing in it has changed', async (t) => {
  const redis = await Redis.start(t);
  const file = path.join(await folder(t), 'tidings.toml');
  const { stdout: lines } = await execute(built('tidings'), ['key', 'new', '--name', 'flask']);
  writeFileSync(file, lines.slice(lines.indexOf('#')));
  const hub = await Hub.start(t, 'serve', '--config', file, '--stream', 'chat', '--bridge', `${redis.url}?channels=chat`);
  await ready(hub);
  const application = await flask(t, { REDIS_URL: redis.url });
  await chat(t, { redis, hub, application, origin: await nginxOfFlask(t, application, hub.origin) });
});

test('a hub without keys refuses requests that the nginx of the example forwards', async (t) => {
  const hub = await Hub.start(t, 'serve', '--stream', 'chat');
  const site = await nginxOfFlask(t, 'http://127.0.0.1:9', hub.origin);
  const response = await fetch(`${site}/stream`);
  assert.equal(response.status, 403);
  assert.match((await response.json()).detail, /tidings key new/);
});

/** Waits until the bridge is subscribed: earlier messages are lost. */
async function ready(hub) {
  await hub.output.until('the bridge to listen', (all) => all.some((line) => line.includes('the bridge is listening')));
  assert.equal((await fetch(hub.url('/readyz'))).status, 200);
}
