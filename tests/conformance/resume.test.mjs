// A subscriber of the Mercure API resumes at any stored event, in both revisions and on every store: the reply names the event, and what
// follows is exactly what was published after it.
//
// TIDINGS_EVENTS is the number of events, TIDINGS_RESUMES that of random positions, and TIDINGS_SEED repeats a run. `make torture` takes a
// million events.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';
import { PATIENCE_MS } from '../lib/journal.mjs';
import { random } from '../lib/random.mjs';
import { Redis } from '../lib/service.mjs';

const EVENTS = Number(process.env.TIDINGS_EVENTS ?? 5000);
const RESUMES = Number(process.env.TIDINGS_RESUMES ?? 20);
const SEED = Number(process.env.TIDINGS_SEED ?? Date.now() % 1_000_000);
const PATH = '/.well-known/mercure';
/** Events of one request, and of one continuation that is read. */
const BATCH = 1000;
const READ = 50;
/** About so many events share each id that is used several times. */
const TWINS = 5;
/** Every third event is on the second topic, which one subscriber in two does not receive. */
const TOPICS = ['https://topics.example/a', 'https://topics.example/b'];
const topicOf = (number) => TOPICS[number % 3 === 0 ? 1 : 0];

/** How a client says where it was: the parameter of its topics, that of the id, and whether it is a header. */
const SPELLINGS = [
  ['match', 'last_event_id'],
  ['match', 'Last-Event-ID', 'header'],
  ['topic', 'lastEventID'],
  ['topic', 'Last-Event-ID'],
  ['topic', 'Last-Event-ID', 'header'],
];

/** The stores: each starts its hubs, of which the first one publishes and the last one is resumed at. */
const STORES = {
  memory: async (t) => [await start(t)],
  files: async (t) => {
    const hub = await start(t, '--store', await folder(t));
    hub.isStored = true;
    return [hub];
  },
  Redis: async (t) => {
    const { url } = await Redis.start(t);
    return [await start(t, '--store', url), await start(t, '--store', url)];
  },
};

async function start(t, ...flags) {
  const file = join(await folder(t), 'tidings.toml');
  await writeFile(file, 'mercure_revisions = ["1.0", "0.x"]\n');
  // A hub keeps all of them.
  return Hub.start(t, 'serve', '--config', file, '--retain', 'unlimited', '--retain-bytes', '8GiB', ...flags);
}

/** Publishes the events 1 to EVENTS, whose data are their numbers; resolves with their ids, from the index 1. */
async function publishAll(hub) {
  const ids = [''];
  while (ids.length <= EVENTS) {
    const numbers = Array.from({ length: Math.min(BATCH, EVENTS + 1 - ids.length) }, (_, index) => ids.length + index);
    const body = numbers.map((number) => JSON.stringify({ topic: topicOf(number), data: String(number), id: ownId(number) })).join('\n');
    const response = await fetch(hub.url('/topics'), { method: 'POST', body });
    assert.equal(response.status, 200, await response.clone().text());
    for (const { id } of (await response.json()).events) ids.push(id);
  }
  return ids;
}

/** Every other event has an id of the publisher; some ids are used several times, not that of the last event. */
function ownId(number) {
  if (number % 2) return undefined;
  const spread = Math.floor(EVENTS / TWINS);
  return number % spread < 10 && number < EVENTS ? `urn:twin:${number % spread}` : `urn:event:${number}`;
}

/** Opens a stream; its events have `id` and `data`, without those of the hub itself. The whole is limited in time. */
async function resume(hub, [topics, name, isHeader], topic, id) {
  const controller = new AbortController();
  const signal = AbortSignal.any([controller.signal, AbortSignal.timeout(PATIENCE_MS + EVENTS)]);
  const query = new URLSearchParams({ [topics]: topic, ...(!isHeader && { [name]: id }) });
  const request = () => fetch(hub.url(`${PATH}?${query}`), { headers: isHeader ? { [name]: id } : {}, signal });
  let response = await request();
  // A store that is too slow for now: the hub says when to come back, as it does to every client.
  for (let secs; response.status === 503 && (secs = response.headers.get('retry-after')); response = await request()) {
    await response.body.cancel();
    await pause(1000 * secs, undefined, { signal });
  }
  assert.equal(response.status, 200, `${query} was answered ${response.ok || (await response.text())}`);
  const cursors = [response.headers.get('mercure-last-event-id')];
  if (topics === 'topic') cursors.push(response.headers.get('last-event-id'));
  return { cursors, events: eventsOf(response), close: () => controller.abort() };
}

async function* eventsOf(response) {
  let rest = '';
  let event = {};
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      const colon = line.indexOf(': ');
      if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 2);
      if (line) continue;
      if (event.data !== undefined && event.event !== 'tidings') yield event;
      event = {};
    }
  }
}

/** Resumes after this id, and expects the events after this number: at most `count`, or all. */
async function check(hub, ids, spelling, topic, { id, cursor = id, after, count = READ }) {
  const where = `${spelling.join(' ')}, ${topic}, after ${id} (${after}), seed ${SEED}`;
  const { cursors, events, close } = await resume(hub, spelling, topic, id);
  assert.deepEqual([...new Set(cursors)], [cursor], where);
  let missing = count;
  for (let number = after + 1; number <= EVENTS && missing > 0; number += 1) {
    if (topic !== '*' && topicOf(number) !== topic) continue;
    const { value } = await events.next();
    if (value?.data !== String(number) || value.id !== ids[number]) assert.fail(`${where}: received ${JSON.stringify(value)} instead of ${number}`);
    missing -= 1;
  }
  close();
}

for (const [name, open] of Object.entries(STORES)) {
  test(`a subscriber resumes at any of ${EVENTS} events: ${name}`, async (t) => {
    const hubs = await open(t);
    const hub = hubs.at(-1);
    const ids = await publishAll(hubs[0]);
    // What it reads then comes from its files.
    if (hub.isStored) {
      await hub.stop();
      await hub.startAgain();
    }
    const earliest = new Map();
    for (let number = EVENTS; number > 0; number -= 1) earliest.set(ids[number], number);
    assert.ok(earliest.size < EVENTS, 'no id is used twice');
    const draw = random(SEED);
    const positions = Array.from({ length: RESUMES }, () => 1 + draw(EVENTS));
    const twins = ids.filter((id) => id.startsWith('urn:twin:'));
    for (const id of [ids[1], ids[2], ids[EVENTS - 1], ids[EVENTS], ...twins.slice(-3), ...positions.map((number) => ids[number])]) {
      const spelling = SPELLINGS[draw(SPELLINGS.length)];
      await check(hub, ids, spelling, draw(2) ? '*' : TOPICS[0], { id, after: earliest.get(id) });
    }
    for (const spelling of SPELLINGS) await check(hub, ids, spelling, '*', { id: 'urn:unknown', cursor: 'earliest', after: 0 });
    const [first, , older] = SPELLINGS;
    // All of it: from the beginning, and after an id that nobody knows.
    await check(hub, ids, first, '*', { id: 'earliest', after: 0, count: Infinity });
    await check(hub, ids, older, '*', { id: 'urn:unknown', cursor: 'earliest', after: 0, count: Infinity });
    // After the last one comes what is published next.
    const streams = [];
    for (const spelling of SPELLINGS) streams.push(await resume(hub, spelling, '*', ids[EVENTS]));
    const { id } = await hubs[0].publish(encodeURIComponent(TOPICS[0]), 'next');
    for (const { events, cursors, close } of streams) {
      const { value } = await events.next();
      assert.deepEqual([value.data, value.id, cursors[0]], ['next', id, ids[EVENTS]]);
      close();
    }
    t.diagnostic(`${positions.length} random positions, seed ${SEED}`);
  });
}
