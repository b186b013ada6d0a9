// docs/move-from/mercure.md: its configurations are run as they are written there, with the clients of an application that moves.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { Client, command } from '../lib/client.mjs';
import { blocks, read } from '../lib/document.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';

const [ONE_KEY, TWO_KEYS] = blocks(read('docs/move-from/mercure.md')).filter(({ language }) => language === 'toml').map(({ code }) => code);
const PATH = '/.well-known/mercure';
const SECRETS = {
  MERCURE_JWT_SECRET: '!ChangeThisMercureHubJWTSecretKey!',
  MERCURE_PUBLISHER_JWT_KEY: 'the key of those who publish, which is long enough',
  MERCURE_SUBSCRIBER_JWT_KEY: 'the key of those who subscribe, which is long enough',
};
// Hubs inherit the environment.
Object.assign(process.env, SECRETS);

async function start(t, configuration) {
  const file = join(await folder(t), 'tidings.toml');
  await writeFile(file, configuration);
  return Hub.start(t, 'serve', '--config', file);
}

function token(secret, mercure) {
  const parts = [{ typ: 'JWT', alg: 'HS256' }, { mercure }];
  const message = parts.map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  return `${message}.${createHmac('sha256', secret).update(message).digest('base64url')}`;
}

/** Publishes a private event with the package mercure-publisher, and resolves with its id. */
async function publish(hub, secret, data, ...topics) {
  const [program, ...script] = command('python/mercure_publisher_publisher.py');
  return (await promisify(execFile)(program, [...script, hub.url(PATH), secret, data, ...topics])).stdout.trim();
}

function subscribe(t, hub, secret, topic) {
  const authorization = token(secret, { subscribe: [topic] });
  return new Client(t, 'node/eventsource.mjs', hub.url(`${PATH}?${new URLSearchParams({ topic, authorization })}`));
}

test('an application that is configured for a hub before 1.0 needs another address only', async (t) => {
  const hub = await start(t, ONE_KEY);
  const listener = subscribe(t, hub, SECRETS.MERCURE_JWT_SECRET, 'https://example.com/books/{id}');
  await listener.opened();
  const id = await publish(hub, SECRETS.MERCURE_JWT_SECRET, 'hello', 'https://example.com/books/1');
  assert.deepEqual(await listener.upTo('hello'), [{ type: 'note', id, data: 'hello' }]);
});

test('with a key for publishers and another for subscribers, neither does what the other may', async (t) => {
  const hub = await start(t, TWO_KEYS);
  const [publisher, subscriber] = [SECRETS.MERCURE_PUBLISHER_JWT_KEY, SECRETS.MERCURE_SUBSCRIBER_JWT_KEY];
  const [entitled, other] = [subscribe(t, hub, subscriber, 'a'), subscribe(t, hub, publisher, 'a')];
  await Promise.all([entitled.opened(), other.opened()]);
  await assert.rejects(publish(hub, subscriber, 'refused', 'a'), /status=403/);
  const id = await publish(hub, publisher, 'private', 'a');
  const headers = { Authorization: `Bearer ${token(publisher, { publish: ['a'] })}` };
  await fetch(hub.url(PATH), { method: 'POST', headers, body: new URLSearchParams({ topic: 'a', data: 'public' }) });
  const received = await entitled.upTo('public');
  assert.deepEqual(received[0], { type: 'note', id, data: 'private' });
  assert.deepEqual((await other.upTo('public')).map(({ data }) => data), ['public']);
});
