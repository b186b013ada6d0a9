// A real Prometheus with the alerts of deploy/ scrapes hubs that have faults, each its own, and one that has none.

import assert from 'node:assert/strict';
import http from 'node:http';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { test } from 'node:test';
import { atEnd } from '../lib/ending.mjs';
import { folder } from '../lib/folder.mjs';
import { isPermitted } from '../lib/own-network.mjs';
import { built } from '../lib/program.mjs';
import { Prometheus } from '../lib/prometheus.mjs';
import { exchange } from '../lib/raw.mjs';
import { Redis, start } from '../lib/service.mjs';
import { Stream } from '../lib/stream.mjs';
import { read } from '../lib/document.mjs';

const DASHBOARD = JSON.parse(read('deploy/grafana/tidings.json'));
const KEY = 'tk_a-key-that-may-do-everything';
const HOOK_SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
/** The interval of publications, requests and bad requests: far above the thresholds of alerts, and little work. */
const PACE_MS = 50;
/** Longer than the longest `for` of an alert, at the pace of the test. */
const HEALTHY_SCRAPES = 45;
/** What a stalled stream may have in the buffers of the kernel is less than this. */
const STALLING_BYTES = 24 << 20;
const SLOW_READERS = 30;
const LARGE = 'x'.repeat(500_000);
const LISTENING = / listening .* admin_\w+="?[^ ]*:(\d+)/;
const AS_ROOT = process.getuid() === 0 ? [] : ['--user', '--map-root-user'];
const unlessForbidden = { skip: isPermitted() ? false : 'SKIPPED: this system permits no mounts in a namespace' };

/** A hub that Prometheus scrapes by its address for operators. */
class Monitored {
  /** Starts it for the duration of the test `t`; `wrap` turns the command of the hub into another. */
  static async start(t, flags, wrap = (command) => command) {
    const command = (port) => {
      const [program, ...args] = wrap([built('tidings'), 'serve', '--listen', `127.0.0.1:${port}`, '--admin-listen', '127.0.0.1:0', ...flags]);
      return [program, args];
    };
    const { port, printed } = await start(t, command, LISTENING);
    const hub = new Monitored();
    hub.origin = `http://127.0.0.1:${port}`;
    hub.port = Number(printed.entries.find((line) => LISTENING.test(line)).match(LISTENING)[1]);
    hub.instance = `127.0.0.1:${hub.port}`;
    return hub;
  }

  /** Publishes; resolves with the status of the answer. */
  async publish(data) {
    const response = await fetch(`${this.origin}/topics/news`, { method: 'POST', body: data });
    await response.text();
    return response.status;
  }
}

/** Repeats `act` until the test `t` ends. */
function repeatedly(t, act) {
  let isOver = false;
  const acting = (async () => {
    while (!isOver) {
      await act();
      await pause(PACE_MS);
    }
  })();
  atEnd(t, () => {
    isOver = true;
    return acting;
  });
  // A failure is reported at the end of the test, which awaits it there.
  acting.catch(() => {});
}

/** An application behind a hub. */
async function application(t) {
  const server = http.createServer((request, response) => response.end('from the application')).listen(0, '127.0.0.1');
  await once(server, 'listening');
  atEnd(t, () => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}`;
}

/** A hub without faults, with everything that the dashboard shows, and clients that use it. */
async function healthyHub(t) {
  const bridged = await Redis.start(t);
  const store = join(await folder(t), 'events');
  const upstream = await application(t);
  const config = join(await folder(t), 'tidings.toml');
  const hook = [`url = "${upstream}/hook"`, `secret = "${HOOK_SECRET}"`, 'allow_http = true', 'allow_private = true'];
  writeFileSync(config, ['[[hook]]', ...hook, ''].join('\n'));
  const flags = ['--config', config, '--store', store, '--upstream', upstream, '--bridge', `${bridged.url}?channels=news`];
  const hub = await Monitored.start(t, flags);
  await Promise.all([1, 2, 3].map(() => Stream.open(t, `${hub.origin}/stream?topic=news`)));
  repeatedly(t, async () => {
    assert.equal(await hub.publish('hello'), 200);
    const page = await fetch(`${hub.origin}/page`);
    assert.equal(await page.text(), 'from the application');
    // One that reads what was published before, and leaves.
    const late = (await fetch(`${hub.origin}/stream?topic=news&since=-5`)).body.getReader();
    await late.read();
    await late.cancel();
    await bridged.cli('publish', 'news', 'over the bridge');
  });
  return hub;
}

/** A hub with its own Redis, which the fault stops. */
async function hubOnRedis(t) {
  const redis = await Redis.start(t);
  const hub = await Monitored.start(t, ['--store', redis.url]);
  repeatedly(t, () => hub.publish('hello'));
  return { hub, alerts: ['TidingsStoreDown'], fault: () => redis.end() };
}

/** A hub whose disk has a few megabytes, which the fault fills. */
async function hubOnSmallDisk(t) {
  const disk = await folder(t);
  const script = 'mount -t tmpfs -o size=4m,mode=777 none "$0"; exec "$@"';
  const hub = await Monitored.start(t, ['--store', join(disk, 'events')], (command) => ['unshare', ...AS_ROOT, '--mount', 'sh', '-euc', script, disk, ...command]);
  let data = 'hello';
  repeatedly(t, () => hub.publish(data));
  return { hub, alerts: ['TidingsStoreFull'], fault: () => (data = 'x'.repeat(500_000)) };
}

/** A hub with keys, scraped with one of them, which the fault floods with wrong ones and with requests that are none. */
async function floodedHub(t) {
  const config = join(await folder(t), 'tidings.toml');
  writeFileSync(config, `[[key]]\nname = "all"\nsecret = "${KEY}"\npublish = ["*"]\nadmin = true\n`);
  const command = (port) => [built('tidings'), ['serve', '--config', config, '--listen', `127.0.0.1:${port}`]];
  const { port } = await start(t, command, / listening /);
  const hub = { port, instance: `127.0.0.1:${port}` };
  const fault = () => {
    repeatedly(t, async () => {
      const headers = { Authorization: 'Bearer tk_a-key-that-nobody-has-given' };
      const response = await fetch(`http://127.0.0.1:${port}/topics/news`, { method: 'POST', body: 'x', headers });
      assert.equal(response.status, 401, await response.text());
      await exchange(port, 'GET / HTTP/1.1\r\nHost: localhost\r\nno field\r\n\r\n');
    });
  };
  return { hub, alerts: ['TidingsAuthenticationFailures', 'TidingsHostileConnections'], fault };
}

/** A hub with subscribers that stop reading by the fault. */
async function hubWithSlowReaders(t) {
  const hub = await Monitored.start(t, ['--dead-peer-secs', '2', '--retain-bytes', '256MiB']);
  const streams = await Promise.all(Array.from({ length: SLOW_READERS }, () => Stream.open(t, `${hub.origin}/stream?topic=news`)));
  repeatedly(t, () => hub.publish('hello'));
  const fault = async () => {
    for (const stream of streams) stream.stopReading();
    for (let sent = 0; sent < STALLING_BYTES; sent += LARGE.length) assert.equal(await hub.publish(LARGE), 200);
  };
  return { hub, alerts: ['TidingsSlowReaders'], fault };
}

test('faults fire their alerts and no others, and the dashboard shows what a hub without faults does', unlessForbidden, async (t) => {
  const healthy = await healthyHub(t);
  const faulty = await Promise.all([hubOnRedis, hubOnSmallDisk, floodedHub, hubWithSlowReaders].map((hub) => hub(t)));
  const withKey = faulty[2].hub.port;
  const ports = [healthy, ...faulty.map(({ hub }) => hub)].map(({ port }) => port).filter((port) => port !== withKey);
  const prometheus = await Prometheus.start(t, { ports, keyed: [withKey], key: KEY });

  await prometheus.scrapes(HEALTHY_SCRAPES, ports.length + 1);
  assert.deepEqual(await prometheus.everFired(), [], 'alerts of hubs without faults');
  const empty = [];
  for (const [title, expression] of queries()) {
    const series = await prometheus.query(expression);
    if (!series.some(({ value }) => Number.isFinite(value))) empty.push(`${title}: ${expression}`);
  }
  assert.deepEqual(empty, [], 'panels without data');

  const expected = faulty.flatMap(({ hub, alerts }) => alerts.map((name) => `${name}@${hub.instance}`)).sort();
  await Promise.all(faulty.map(({ fault }) => fault()));
  await prometheus.until(`the alerts ${expected}`, async () => {
    const firing = await prometheus.firing();
    return expected.every((alert) => firing.includes(alert));
  });
  assert.deepEqual(await prometheus.everFired(), expected);
});

/** The queries of the dashboard, each with the title of its panel. */
function queries() {
  const panels = DASHBOARD.panels.filter((panel) => panel.type !== 'row');
  return panels.flatMap(({ title, targets }) => targets.map(({ expr }) => [title, concrete(expr)]));
}

/** What Grafana makes of a query for all hubs. */
function concrete(expression) {
  return expression.replaceAll('$__rate_interval', '10s').replaceAll('$instance', '.*');
}
