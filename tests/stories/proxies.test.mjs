// The configurations of docs/scaling-out.md in front of three hubs on one Redis. Only the addresses differ, and nginx has no TLS.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { Client } from '../lib/client.mjs';
import { read, snippet } from '../lib/document.mjs';
import { Node } from '../lib/hub.mjs';
import { PATIENCE_MS } from '../lib/journal.mjs';
import { Proxy } from '../lib/proxy.mjs';
import { Redis, haproxy, nginx } from '../lib/service.mjs';
import { AS_BROWSER, Stream } from '../lib/stream.mjs';

const DOCUMENT = read('docs/scaling-out.md');
const HUBS = 3;
/** The interval of checks, and of publications. */
const PACE_MS = 20;

const PROXIES = {
  nginx: { start: nginx, listens: 'listen 443 ssl;', here: (port) => `listen 127.0.0.1:${port};`, checks: false },
  haproxy: { start: haproxy, listens: 'bind :8080', here: (port) => `bind 127.0.0.1:${port}`, checks: true },
};

/** Three hubs, each with its own way to the one Redis, and the proxy in front of them. */
async function site(t, name) {
  const redis = await Redis.start(t);
  const links = [];
  const hubs = [];
  for (let at = 0; at < HUBS; at += 1) {
    links.push(await Proxy.start(t, redis.port));
    hubs.push(await Node.start(t, '--store', links[at].origin.replace('http:', 'redis:'), '--retry-millis', '200'));
  }
  const { start, listens, here, checks } = PROXIES[name];
  const configure = (port) => {
    let text = snippet(DOCUMENT, '## Proxies in front of the hubs', name);
    for (const [at, hub] of hubs.entries()) text = replaced(text, `10.0.0.${at + 1}:8080`, `127.0.0.1:${hub.port}`);
    return replaced(text, listens, here(port));
  };
  const { port, printed } = await start(t, configure);
  const origin = `http://127.0.0.1:${port}`;
  /** Waits until the proxy has noticed by itself, if it makes health checks. */
  const noticed = (words) => checks && printed.until(words, (all) => all.some((line) => line.includes(words)));
  return { redis, links, hubs, origin, noticed, stream: `${origin}/topics/news` };
}

function replaced(text, written, other) {
  assert.ok(text.includes(written), `the document does not contain ${written}`);
  return text.replaceAll(written, other);
}

async function until(what, holds) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, `timed out waiting until ${what}`);
    await pause(PACE_MS);
  }
}

/** Publishes reliably: an event without an answer is repeated with the same key until it is acknowledged. */
async function publish(origin, data) {
  await until(`${data} is acknowledged`, async () => {
    const request = { method: 'POST', body: data, headers: { 'Idempotency-Key': data } };
    const response = await fetch(`${origin}/topics/news`, request).catch(() => undefined);
    await response?.text();
    assert.ok(!response || response.ok || [502, 503, 504].includes(response.status), `a publication was answered ${response?.status}`);
    return response?.ok;
  });
}

const subscribers = async (hubs) => Promise.all(hubs.map((hub) => hub.subscribers()));
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const openMany = (t, count, ...how) => Promise.all(Array.from({ length: count }, () => Stream.open(t, ...how)));

// One proxy needs nothing of the other, and most of the time both tests wait.
describe('proxies of the document', { concurrency: Object.keys(PROXIES).length }, () => {
  for (const name of Object.keys(PROXIES)) {
    describe(name, { concurrency: 1 }, () => {
      test(`behind ${name} events arrive at once, and a subscriber that reconnects to any hub misses nothing`, async (t) => {
        const { hubs, origin, stream } = await site(t, name);
        const first = await openMany(t, 2 * HUBS, stream);
        for (const { status, headers } of first) assert.deepEqual([status, headers['content-type']], [200, 'text/event-stream']);
        assert.ok((await subscribers(hubs)).every((count) => count > 0), 'a hub has no stream');
        await publish(origin, 'first');
        const { id } = await first[0].receive('first');
        for (const one of first) await one.receive('first');
        for (const one of first) one.close();
        await until('all have gone', async () => sum(await subscribers(hubs)) === 0);

        const missed = ['one', 'two', 'three'];
        for (const data of missed) await publish(origin, data);
        const again = await openMany(t, 2 * HUBS, stream, { Accept: 'text/event-stream', 'Last-Event-ID': id });
        for (const one of again) await one.receive('three');
        assert.ok((await subscribers(hubs)).every((count) => count > 0), 'a hub has no stream');
        for (const one of again) assert.deepEqual(one.data, missed);
      });

      test(`behind ${name} every EventSource survives a hub that is killed and one that is stopped`, async (t) => {
        const { hubs, origin, stream, noticed } = await site(t, name);
        const clients = Array.from({ length: HUBS + 1 }, () => new Client(t, 'node/eventsource.mjs', stream));
        for (const client of clients) await client.opened();
        // A stream without an event yet has no id to resume from.
        const said = ['first'];
        await publish(origin, said[0]);
        for (const client of clients) await client.upTo(said[0]);
        assert.ok((await subscribers(hubs)).every((count) => count > 0), 'a hub has no stream');
        const load = { isOver: false };
        const publisher = (async () => {
          while (!load.isOver) {
            const data = String(said.length + 1);
            await publish(origin, data);
            said.push(data);
            await pause(PACE_MS);
          }
        })();
        const areBack = (rest) => until('all are with the other hubs', async () => sum(await subscribers(rest)) === clients.length);

        await hubs[0].kill();
        await Promise.race([publisher, areBack(hubs.slice(1))]);
        await noticed('Server hubs/hub1 is DOWN');
        await hubs[0].startAgain();
        await noticed('Server hubs/hub1 is UP');
        await hubs[1].stop();
        await Promise.race([publisher, areBack([hubs[0], hubs[2]])]);
        load.isOver = true;
        await publisher;

        for (const client of clients) {
          const events = await client.upTo(said.at(-1));
          const received = events.filter((event) => event.type === 'message').map((event) => event.data);
          assert.deepEqual([...new Set(received)], said);
          const notices = events.filter((event) => event.type === 'tidings').map((event) => JSON.parse(event.data).kind);
          assert.ok(!notices.includes('gap'), 'a gap was reported');
        }
      });

      test(`behind ${name} a hub that lost its store gets no new streams and keeps its open ones`, async (t) => {
        const { links, hubs, origin, stream, noticed } = await site(t, name);
        // One after the other: threads of HAProxy that choose at the same moment may choose the same hub.
        const before = [];
        while (before.length < HUBS) before.push(await Stream.open(t, stream));
        assert.deepEqual(await subscribers(hubs), [1, 1, 1]);
        links[0].pause();
        links[0].cut();
        await until('a hub is not ready', async () => !(await hubs[0].isReady()));
        await noticed('Server hubs/hub1 is DOWN');
        const others = await openMany(t, 2 * HUBS, stream);
        const browsers = await openMany(t, 2 * HUBS, stream, AS_BROWSER);
        assert.equal(await hubs[0].subscribers(), 1);
        for (const { status } of [...others, ...browsers]) assert.equal(status, 200);
        await publish(origin, 'meanwhile');
        for (const one of others) await one.receive('meanwhile');
        for (const one of browsers) {
          await one.received.until('an event, or the end', (all) => all.length > 0);
          const isTurnedAway = one.retry >= 15_000 && one.data.length === 0;
          assert.ok(one.data.includes('meanwhile') || (isTurnedAway && !PROXIES[name].checks), JSON.stringify(one));
        }
        links[0].resume();
        for (const one of before) await one.receive('meanwhile');
      });

      test(`behind ${name} an EventSource that finds no hub is asked to retry later, and a publication is refused`, async (t) => {
        const { redis, hubs, stream, noticed } = await site(t, name);
        const refused = async () => {
          const { status, retry } = await comesAgain(t, stream);
          assert.equal(status, 200);
          assert.ok(retry >= 15_000, `retry: ${retry}`);
          assert.equal((await fetch(stream, { method: 'POST', body: 'lost' })).ok, false);
        };
        await redis.end();
        for (const hub of hubs) await until('no hub is ready', async () => !(await hub.isReady()));
        await noticed(`backend 'hubs' has no server available`);
        await refused();
        for (const hub of hubs) await hub.kill();
        await refused();
      });
    });
  }
});

/** Sends the request of a browser; the answer must end by itself. */
async function comesAgain(t, url) {
  const stream = await Stream.open(t, url, AS_BROWSER);
  await stream.ended();
  return stream;
}
