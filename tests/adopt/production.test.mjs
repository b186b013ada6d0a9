// Applications in production: `tidings run` in front of several workers of Express, and of `next start`.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { applyChanges, pushesToVisitors } from '../lib/adoption.mjs';
import { NEXT, projectDirectory } from '../lib/node-package.mjs';
import { built } from '../lib/program.mjs';
import { start } from '../lib/service.mjs';
import { Stream } from '../lib/stream.mjs';

const execute = promisify(execFile);
const WORKERS = 4;
const EVENTS = 100;
/** The workers take turns, so all of them are reached by far fewer requests. */
const REQUESTS_MAX = 10 * WORKERS;
const BUILD_MS = 300_000;

/** An application of several processes: each publishes, makes tickets and answers the route for streams, and says which it is. */
const CLUSTER = `
import cluster from 'node:cluster';
import express from 'express';
import { publish, ticket } from 'tidings';
import { stream } from 'tidings/express';

if (cluster.isPrimary) {
  for (let count = 0; count < ${WORKERS}; count += 1) cluster.fork();
  let ready = 0;
  cluster.on('listening', () => ++ready === ${WORKERS} && console.log('all workers are ready'));
} else {
  let number = 0;
  const app = express();
  app.use((req, res, next) => {
    res.cookie('worker', process.pid).set('Connection', 'close');
    next();
  });
  app.get('/stream', (req, res) => stream(req, res, 'chat', { since: 'earliest' }));
  app.post('/ticket', async (req, res) => void res.send(await ticket('chat')));
  app.post('/publish', async (req, res) => {
    await publish('chat', process.pid + ' ' + number++);
    res.end();
  });
  app.listen(process.env.PORT, '127.0.0.1');
}`;

function environment() {
  const env = { ...process.env, NODE_ENV: 'production', NEXT_TELEMETRY_DISABLED: '1' };
  for (const name of ['TIDINGS_URL', 'TIDINGS_TOKEN', 'TIDINGS_TICKET_SECRET', 'PORT']) delete env[name];
  return env;
}

/** Starts `tidings run -- node COMMAND` in this directory; resolves with its origin when it has printed a line that matches. */
async function run(t, directory, command, isReady) {
  const args = (port) => ['run', '--listen', `127.0.0.1:${port}`, '--', process.execPath, ...command];
  const { port } = await start(t, (port) => [built('tidings'), args(port), { cwd: directory, env: environment() }], isReady);
  return `http://127.0.0.1:${port}`;
}

/** The process that a response is from. */
const workerOf = (cookies) => String(cookies).match(/worker=(\d+)/)[1];

/** Requests until every worker has answered; `request` resolves with the worker that did. Resolves with the workers. */
async function everyWorker(request) {
  const workers = new Set();
  for (let count = 0; workers.size < WORKERS; count++) {
    assert.ok(count < REQUESTS_MAX, `only ${workers.size} workers answered ${count} requests`);
    workers.add(await request());
  }
  return workers;
}

test('each worker of a cluster publishes, answers the route and makes tickets, and all streams have one order', async (t) => {
  const directory = projectDirectory(t);
  writeFileSync(join(directory, 'app.mjs'), CLUSTER);
  const origin = await run(t, directory, ['app.mjs'], /all workers are ready/);
  const post = async (path) => {
    const response = await fetch(origin + path, { method: 'POST' });
    assert.equal(response.status, 200);
    return { worker: workerOf(response.headers.get('set-cookie')), text: await response.text() };
  };

  const streams = [];
  await everyWorker(async () => {
    const stream = await Stream.open(t, `${origin}/stream`);
    streams.push(stream);
    return workerOf(stream.headers['set-cookie']);
  });
  await everyWorker(async () => {
    const { worker, text } = await post('/ticket');
    streams.push(await Stream.open(t, `${origin}/stream?ticket=${text}&since=earliest`));
    return worker;
  });
  const publishers = new Set();
  for (let count = 0; count < EVENTS; count += WORKERS) {
    const responses = await Promise.all(Array.from({ length: WORKERS }, () => post('/publish')));
    for (const { worker } of responses) publishers.add(worker);
  }
  assert.equal(publishers.size, WORKERS);

  const [first, ...others] = streams;
  for (const stream of streams) {
    assert.equal(stream.status, 200);
    await stream.received.until('all events', (all) => all.filter(({ data }) => data).length >= EVENTS);
  }
  assert.equal(new Set(first.data).size, EVENTS);
  for (const stream of others) assert.deepEqual(stream.data, first.data);
  t.diagnostic(`${EVENTS} events of ${publishers.size} workers, ${streams.length} streams, one order`);
});

test('the Next application is built, and pushes to its user in production', async (t) => {
  const directory = projectDirectory(t, fileURLToPath(new URL('next', import.meta.url)));
  await applyChanges(join(directory, 'changes.diff'), directory);
  await execute(process.execPath, [NEXT, 'build'], { cwd: directory, env: environment(), timeout: BUILD_MS });
  await pushesToVisitors(t, await run(t, directory, [NEXT, 'start', '--hostname', '127.0.0.1'], /Ready in/));
});
