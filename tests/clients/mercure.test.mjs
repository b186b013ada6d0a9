// Clients of the older revision of the Mercure protocol work unchanged with a hub that serves it (docs/move-from/mercure.md).

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import { Client, command } from '../lib/client.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';
import { Proxy } from '../lib/proxy.mjs';
import { Redis } from '../lib/service.mjs';

const PATH = '/.well-known/mercure';
const SECRET = '!ChangeThisMercureHubJWTSecretKey!';
const NATIVE_KEY = 'tk_a-key-that-may-publish-everything';
const CONFIGURATION = `mercure_revisions = ["1.0", "0.x"]

[[key]]
name = "native"
secret = "${NATIVE_KEY}"
publish = ["*"]

[[issuer]]
iss = "symfony"
revision = "0.x"
secret = "${SECRET}"
`;

/** Those that take a URL and read events. */
const SUBSCRIBERS = {
  'npm eventsource': 'node/eventsource.mjs',
  'npm event-source-polyfill': 'node/event-source-polyfill.mjs',
  'npm @microsoft/fetch-event-source': 'node/fetch-event-source.mjs',
  'npm reconnecting-eventsource': 'node/reconnecting-eventsource.mjs',
  'PyPI sseclient-py': 'python/sseclient_client.py',
};

/** A token as the libraries for hubs before 1.0 make it. */
function token(mercure) {
  const message = [{ typ: 'JWT', alg: 'HS256' }, { mercure }]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.');
  return `${message}.${createHmac('sha256', SECRET).update(message).digest('base64url')}`;
}

async function start(t, ...flags) {
  const file = join(await folder(t), 'tidings.toml');
  await writeFile(file, CONFIGURATION, { mode: 0o600 });
  return Hub.start(t, 'serve', '--config', file, '--retry-millis', '300', ...flags);
}

/** Publishes one event, and resolves with its id. */
async function publish(hub, topic, data, fields = {}) {
  const headers = { Authorization: `Bearer ${token({ publish: ['*'] })}` };
  const response = await fetch(hub.url(PATH), { method: 'POST', headers, body: new URLSearchParams({ topic, data, ...fields }) });
  assert.equal(response.status, 200, await response.clone().text());
  return response.text();
}

/** Publishes by the native API. */
const post = (url, body) => fetch(url, { method: 'POST', headers: { Authorization: `Bearer ${NATIVE_KEY}` }, body });

const query = (parameters) => new URLSearchParams(parameters).toString();

/** Runs a publisher, and resolves with what it prints. */
async function run(client, ...args) {
  const [program, ...script] = command(client);
  return (await promisify(execFile)(program, [...script, ...args])).stdout.trim();
}

describe('clients of the older Mercure revision', { concurrency: 3 }, () => {
  for (const [name, client] of Object.entries(SUBSCRIBERS)) {
    test(`${name} subscribes by a template, with a token in the URL, and resumes after a cut`, async (t) => {
      const hub = await start(t);
      const proxy = await Proxy.start(t, hub.port);
      const authorization = token({ subscribe: ['https://example.com/users/{id}'] });
      const listener = new Client(t, client, proxy.url(`${PATH}?${query({ topic: 'https://example.com/users/{id}', authorization })}`));
      await listener.opened();
      const first = await publish(hub, 'https://example.com/users/1', 'first', { private: 'on' });
      await publish(hub, 'https://example.com/books/1', 'of another topic');
      await listener.upTo('first');
      const connections = proxy.connections;
      proxy.pause();
      proxy.cut();
      const second = await publish(hub, 'https://example.com/users/2', 'second', { private: 'on', type: 'note' });
      await proxy.moreConnectionsThan(connections);
      proxy.resume();
      const last = await publish(hub, 'https://example.com/users/1', 'last');
      assert.deepEqual(await listener.upTo('last'), [
        { type: 'message', id: first, data: 'first' },
        { type: 'note', id: second, data: 'second' },
        { type: 'message', id: last, data: 'last' },
      ]);
    });
  }

  test('clients of both revisions and of the native API see one order, at three nodes on Redis', async (t) => {
    const { url } = await Redis.start(t);
    const nodes = [];
    for (let count = 0; count < 3; count += 1) nodes.push(await start(t, '--store', url));
    const topic = 'https://example.com/orders/1';
    const subscriptions = [
      `${PATH}?${query({ topic: 'https://example.com/orders/{id}' })}`,
      `${PATH}?${query({ match: topic })}`,
      `${PATH}?${query({ match_urlpattern: 'https://example.com/orders/:id' })}`,
      `/stream?${query({ topic })}`,
    ];
    const listeners = nodes.flatMap((node) => subscriptions.map((path) => new Client(t, 'node/eventsource.mjs', node.url(path))));
    for (const listener of listeners) await listener.opened();
    // Each node has a publisher, two of them by the Mercure API; all publish at once.
    const count = 100;
    const publishers = nodes.map(async (node, place) => {
      for (let number = 1; number <= count; number += 1) {
        const data = `${place}-${number}`;
        if (place < 2) await publish(node, topic, data);
        else assert.equal((await post(node.url(`/topics/${encodeURIComponent(topic)}`), data)).status, 200);
      }
    });
    await Promise.all(publishers);
    await publish(nodes[0], topic, 'last');
    const [one, ...others] = await Promise.all(listeners.map((listener) => listener.upTo('last')));
    assert.equal(one.length, nodes.length * count + 1);
    for (const [place, other] of others.entries()) assert.deepEqual(other, one, `client ${place + 1} and the first one`);
  });

  test('PyPI pymercure subscribes and publishes', async (t) => {
    const hub = await start(t);
    const listener = new Client(t, 'python/pymercure_consumer.py', hub.url(`${PATH}?topic=a&topic=${encodeURIComponent('/b/{id}')}`));
    await listener.opened();
    const publisher = 'python/pymercure_publisher.py';
    const first = await run(publisher, hub.url(PATH), token({ publish: ['*'] }), 'first', 'a');
    const last = await run(publisher, hub.url(PATH), token({ publish: ['/b/{id}', 'c'] }), 'last', 'c', '/b/1');
    assert.deepEqual(await listener.upTo('last'), [
      { type: 'note', id: first, data: 'first' },
      { type: 'note', id: last, data: 'last' },
    ]);
    await assert.rejects(run(publisher, hub.url(PATH), token({ publish: ['b'] }), 'refused', 'a'), /PublishRejectedError/);
    await assert.rejects(run(publisher, hub.url(PATH), 'a.b.c', 'refused', 'a'), /UnauthorizedPublisherError/);
  });

  test('PyPI mercure-publisher publishes private events with tokens of its own', async (t) => {
    const hub = await start(t);
    const authorization = token({ subscribe: ['b'] });
    const listener = new Client(t, 'node/eventsource.mjs', hub.url(`${PATH}?${query({ topic: 'b', authorization })}`));
    await listener.opened();
    const id = await run('python/mercure_publisher_publisher.py', hub.url(PATH), SECRET, 'hello', 'a', 'b');
    assert.deepEqual(await listener.upTo('hello'), [{ type: 'note', id, data: 'hello' }]);
    await assert.rejects(
      run('python/mercure_publisher_publisher.py', hub.url(PATH), SECRET.replaceAll('!', '?'), 'refused', 'a'),
      /status=401/,
    );
  });

  test('crates.io mercure publishes private events with tokens of its own', async (t) => {
    const hub = await start(t);
    const topics = ['https://example.com/books/1', 'https://example.com/users/1/books/1'];
    const authorization = token({ subscribe: ['https://example.com/users/{user}/books/{book}'] });
    const listener = new Client(t, 'node/eventsource.mjs', hub.url(`${PATH}?${query({ topic: topics[1], authorization })}`));
    await listener.opened();
    const id = await run('rust/mercure-crate-publisher', hub.url(PATH), SECRET, 'hello', ...topics);
    assert.deepEqual(await listener.upTo('hello'), [{ type: 'message', id, data: 'hello' }]);
    // The crate does not look at the status.
    const refused = await run('rust/mercure-crate-publisher', hub.url(PATH), SECRET.replaceAll('!', '?'), 'refused', topics[0]);
    assert.equal(JSON.parse(refused).status, 401);
  });

  test('a token in the URL is in no line that the hub prints', async (t) => {
    const file = join(await folder(t), 'tidings.toml');
    await writeFile(file, CONFIGURATION, { mode: 0o600 });
    const hub = await Hub.start(t, 'serve', '--config', file, '--access-log', '--verbose', '--log-level', 'trace');
    const authorization = token({ subscribe: ['a'] });
    const listener = new Client(t, 'node/eventsource.mjs', hub.url(`${PATH}?${query({ topic: 'a', authorization })}`));
    await listener.opened();
    await publish(hub, 'a', 'hello', { private: 'on' });
    await listener.upTo('hello');
    const refused = await fetch(hub.url(`${PATH}?${query({ topic: 'a', authorization: `${authorization}x` })}`));
    assert.equal(refused.status, 401);
    assert.ok(!(await refused.text()).includes(authorization));
    await hub.stop();
    const [, , signature] = authorization.split('.');
    const shown = hub.output.entries.filter((line) => line.includes(signature) || line.includes(encodeURIComponent(authorization)));
    assert.deepEqual(shown, []);
    assert.ok(hub.output.entries.some((line) => line.includes('stream opened')), 'the access log is there');
  });
});
