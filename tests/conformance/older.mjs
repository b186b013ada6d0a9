// The checks of the older revision (0.x).

import { randomUUID } from 'node:crypto';
import { NotOffered, encoded, eventually, expect, expectStatus } from './target.mjs';

/** What the tokens of clients that show active subscriptions contain. */
const EACH = (target) => `${new URL(target.url).pathname}/subscriptions{/topic}{/subscriber}`;

/** Active subscriptions, as JSON-LD. */
async function subscriptions(target, below = '') {
  const token = target.olderToken({ mercure: { subscribe: [EACH(target)] } });
  const response = await target.ask('GET', '', { path: `/subscriptions${below}`, token });
  if (below !== '' && response.status === 404) return undefined;
  if (below === '' && [404, 405, 501].includes(response.status)) throw new NotOffered('active subscriptions');
  expectStatus(response, 200);
  expect((response.headers.get('content-type') ?? '').startsWith('application/ld+json'), `the Content-Type is ${response.headers.get('content-type')}`);
  const found = JSON.parse(response.body_);
  expect(found['@context'] === 'https://mercure.rocks/' && found.lastEventID, `the document is ${response.body_.slice(0, 200)}`);
  return found;
}

export const OLDER = [
  {
    number: 38,
    level: 'must',
    title: 'an update without an SSE type is sent when a subscription begins and when it ends',
    async run(target) {
      const { lastEventID } = await subscriptions(target);
      const topic = `${target.topic()}{id}`;
      const stream = await target.subscribe({ topic });
      const token = target.olderToken({ mercure: { subscribe: [EACH(target)] } });
      const updates = await target.subscribe({ topic: EACH(target), lastEventID }, { token });
      const began = await updates.update('message', (update) => update.topic === topic);
      expect(began.type === 'Subscription' && began.active === true, `the update is ${JSON.stringify(began)}`);
      stream.close();
      const ended = await updates.update('message', (update) => update.topic === topic);
      expect(ended.active === false && ended.id === began.id, `the last update is ${JSON.stringify(ended)}`);
      const segments = [topic, began.subscriber].map(encoded).join('/');
      expect(began.id === `${new URL(target.url).pathname}/subscriptions/${segments}`, `the id is ${began.id}`);
    },
  },
  {
    number: 41,
    level: 'must',
    title: 'active subscriptions are JSON-LD, with the one payload of the token, at the paths of this revision',
    async run(target) {
      await subscriptions(target);
      const [a, b] = [target.topic('a'), target.topic('b')];
      const token = target.olderToken({ mercure: { subscribe: [], payload: { user: 'ann' } } });
      await target.subscribe([['topic', a], ['topic', b]], { token });
      for (const topic of [a, b]) {
        // Another node of a hub may show one a moment after it began.
        const all = await eventually(`a subscription of ${topic}`, async () => {
          const found = await subscriptions(target, `/${encoded(topic)}`);
          return found.subscriptions.length > 0 ? found : undefined;
        });
        const [one] = all.subscriptions;
        expect(all.type === 'Subscriptions' && one?.topic === topic && one.active === true, `the collection is ${JSON.stringify(all)}`);
        expect(one.payload?.user === 'ann', `the payload is ${JSON.stringify(one.payload)}`);
        const below = `/${encoded(topic)}/${encoded(one.subscriber)}`;
        const alone = await eventually(`the subscription ${one.id}`, () => subscriptions(target, below));
        expect(alone.id === one.id && alone.type === 'Subscription', `it is ${JSON.stringify(alone)}`);
      }
      const other = target.olderToken({ mercure: { subscribe: [a] } });
      expectStatus(await target.ask('GET', '', { path: '/subscriptions', token: other }), 401, 403);
    },
  },
  {
    number: 46,
    level: 'must',
    title: 'a selector is `*`, one topic, or a URI Template that is matched in reverse',
    async run(target) {
      const topic = target.topic();
      const [exact, template, query] = [`${topic}a`, `${topic}books/{id}`, `${topic}books{?author}`];
      const stream = await target.subscribe([['topic', exact], ['topic', template], ['topic', query]]);
      const all = await target.subscribe({ topic: '*' });
      for (const other of ['b', 'books/1/2', 'books']) await target.publish({ topic: topic + other, data: other });
      for (const matching of ['a', 'books/1', 'books?author=x']) await target.publish({ topic: topic + matching, data: matching });
      const received = [];
      while (received.at(-1) !== 'books?author=x') received.push(await stream.data());
      // Whether an undefined variable matches nothing is read in two ways.
      expect(received.filter((data) => data !== 'books').join() === 'a,books/1,books?author=x', `received ${received}`);
      for (;;) if ((await all.data()) === 'books?author=x') break;
    },
  },
  {
    number: 47,
    level: 'must',
    title: 'a publisher needs every topic; a missing or empty claim is no permission',
    async run(target) {
      const [a, b] = [target.topic('a'), target.topic('b')];
      const both = [['topic', a], ['topic', b], ['data', 'hello']];
      const post = (claims) => target.post(both, { token: target.olderToken(claims) });
      expectStatus(await post({ mercure: { publish: [a, b] } }), 200);
      expectStatus(await post({ 'https://mercure.rocks/': { publish: ['*'] } }), 200);
      for (const claims of [{ mercure: { publish: [a] } }, { mercure: { publish: [] } }, { mercure: { subscribe: ['*'] } }, {}]) {
        expectStatus(await post(claims), 401, 403);
      }
    },
  },
  {
    number: 47,
    level: 'must',
    title: 'a private event needs a permission for one of its topics; `exp` is optional and obeyed',
    async run(target) {
      const [a, b] = [target.topic('a'), target.topic('b')];
      const stream = await target.subscribe({ topic: a }, { token: target.olderToken({ mercure: { subscribe: [b] } }) });
      await target.publish({ topic: a, data: 'no', private: 'on' });
      await target.publish([['topic', a], ['topic', b], ['data', 'yes'], ['private', 'on']]);
      await stream.expectData('yes');
      const expired = target.olderToken({ mercure: { publish: ['*'] }, exp: Math.floor(Date.now() / 1000) - 600 });
      expectStatus(await target.post({ topic: a }, { token: expired }), 401);
    },
  },
  {
    number: 48,
    level: 'must',
    title: 'a token may be in the header, in `authorization` or in `mercureAuthorization`, and counts in this order',
    async run(target) {
      const topic = target.topic();
      const [good, bad] = [{ mercure: { publish: [topic] } }, { mercure: { subscribe: [topic] } }].map((claims) => target.olderToken(claims));
      const post = (authorization, options) => target.post({ topic }, { token: undefined, query: { ...(authorization && { authorization }) }, ...options });
      expectStatus(await post(good), 200);
      expectStatus(await post(bad, { token: good }), 200);
      expectStatus(await post(good, { headers: { Cookie: `mercureAuthorization=${bad}` } }), 200);
      const subscriber = target.olderToken({ mercure: { subscribe: [topic] } });
      const stream = await target.subscribe({ topic }, { headers: { Cookie: `mercureAuthorization=${subscriber}` } });
      await target.publish({ topic, data: 'by cookie', private: 'on' });
      await stream.expectData('by cookie');
    },
  },
  {
    number: 49,
    level: 'must',
    title: 'a topic without a permission is refused; private events, ids and alternate topics are as in the current revision',
    async run(target) {
      const [a, b] = [target.topic('a'), target.topic('b')];
      const claims = { mercure: { publish: [a, b], subscribe: [b] } };
      // The protocol says 403; hubs before 1.0 answer 401.
      expectStatus(await target.post({ topic: target.topic() }, { token: target.olderToken(claims) }), 401, 403);
      const anonymous = await target.ask('GET', { topic: b });
      const streams = [await target.subscribe({ topic: b }, { token: target.olderToken(claims) })];
      if (anonymous.ok) streams.push(await target.subscribe({ topic: b }));
      const id = `urn:uuid:${randomUUID()}`;
      const post = (fields) => target.post(fields, { token: target.olderToken(claims) });
      expectStatus(await post([['topic', a], ['topic', b], ['data', 'private'], ['private', 'on'], ['id', id], ['type', 'note']]), 200);
      expectStatus(await post([['topic', a], ['topic', b], ['data', 'public']]), 200);
      const event = await streams[0].next();
      expect(event?.data === 'private' && event.id === id && event.type === 'note', `received ${JSON.stringify(event)}`);
      for (const stream of streams) await stream.expectData('public');
      expectStatus(await post({ topic: b, id: '#a' }), 400);
    },
  },
  {
    number: 50,
    level: 'must',
    title: 'a subscriber resumes by `lastEventID` or `Last-Event-ID`, and the reply names the cursor',
    async run(target) {
      const topic = target.topic();
      const ids = [];
      for (const data of ['1', '2', '3']) ids.push(await target.publish({ topic, data, id: `urn:uuid:${randomUUID()}` }));
      for (const name of ['lastEventID', 'Last-Event-ID']) {
        const stream = await target.subscribe({ topic, [name]: ids[1] });
        await stream.expectData('3');
        expect(stream.headers.get('last-event-id') === ids[1], `with ${name}, Last-Event-ID is ${stream.headers.get('last-event-id')}`);
      }
      const header = await target.subscribe({ topic, lastEventID: ids[1] }, { headers: { 'Last-Event-ID': ids[0] } });
      await header.expectData('2', '3');
      await (await target.subscribe({ topic, lastEventID: 'earliest' })).expectData('1', '2', '3');
    },
  },
];
