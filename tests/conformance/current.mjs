// The checks of the current revision (1.0). A number is that of a requirement; several checks may share one.

import { randomBytes, randomUUID } from 'node:crypto';
import { NotOffered, encoded, eventually, expect, expectStatus, sign } from './target.mjs';

const HUB_PATH = (target) => new URL(target.url).pathname;
/** A pattern of the updates of all active subscriptions. */
const EACH = (target) => `${HUB_PATH(target)}/subscriptions/:type/:match/:subscriber`;

/** A collection of active subscriptions. */
async function collection(target, below = '') {
  const path = `/subscriptions${below}`;
  const response = await target.ask('GET', '', { path, token: target.token({ subscribe: [HUB_PATH(target) + path] }) });
  if (below === '' && [404, 405, 501].includes(response.status)) throw new NotOffered('active subscriptions');
  expectStatus(response, 200);
  const found = JSON.parse(response.body_);
  expect(found.type === 'subscriptions' && Array.isArray(found.subscriptions), `the collection is ${response.body_.slice(0, 200)}`);
  return found;
}

/** So many active subscriptions of a matcher. Another node of a hub may show one a moment after it began. */
function listed(target, type, match, count = 1) {
  return eventually(`${count} active subscriptions of ${match}`, async () => {
    const { subscriptions } = await collection(target, `/${type}/${encoded(match)}`);
    return subscriptions.length < count ? undefined : subscriptions;
  });
}

/** Expects this status for every one of these queries. */
async function refusesQueries(target, queries) {
  for (const query of queries) expectStatus(await target.ask('GET', query), 400);
}

async function refusesForms(target, status, forms) {
  for (const form of forms) expectStatus(await target.post(form), status);
}

/** Expects that this token is no valid one, as RFC 6750 says it. */
async function refusesToken(target, token, why) {
  const response = await target.post({ topic: target.topic() }, { token });
  expect(response.status === 401, `${why}: ${response.status} instead of 401`);
  const challenge = response.headers.get('www-authenticate') ?? '';
  expect(/^Bearer\b.*error="?invalid_token"?/i.test(challenge), `${why}: WWW-Authenticate is ${JSON.stringify(challenge)}`);
}

async function acceptsToken(target, token, topic) {
  expectStatus(await target.post({ topic }, { token }), 200);
}

/** RFC 9728, section 3: where the metadata of the resource at a URL are. */
function metadataUrl(url) {
  const { origin, pathname } = new URL(url);
  return `${origin}/.well-known/oauth-protected-resource${pathname}`;
}

async function readMetadata(target) {
  const at = Object.assign(Object.create(target), { url: metadataUrl(target.url) });
  const response = await at.ask('GET', '');
  if (response.status === 404) throw new NotOffered('protected-resource metadata');
  expectStatus(response, 200);
  const type = response.headers.get('content-type') ?? '';
  expect(/^application\/json *(;|$)/i.test(type), `the Content-Type of the metadata is ${JSON.stringify(type)}`);
  return JSON.parse(response.body_);
}

/** Payloads with the form of a JSON Web Encryption (RFC 7516), in both serializations: to a hub they are text. */
function encrypted() {
  const part = (bytes) => randomBytes(bytes).toString('base64url');
  const header = Buffer.from(JSON.stringify({ alg: 'ECDH-ES+A256KW', enc: 'A256GCM' })).toString('base64url');
  const [key, iv, ciphertext, tag] = [40, 12, 3_000, 16].map(part);
  const json = { protected: header, recipients: [{ encrypted_key: key }], iv, ciphertext, tag };
  return [[header, key, iv, ciphertext, tag].join('.'), JSON.stringify(json), JSON.stringify(json, null, 2)];
}

export const CURRENT = [
  {
    number: 1,
    level: 'may',
    title: 'QUERY with a form subscribes, as GET does',
    async run(target) {
      const topic = target.topic();
      const response = await target.ask('QUERY', '', { body: { match: topic } });
      if ([404, 405, 501].includes(response.status)) throw new NotOffered('QUERY');
      const stream = await target.subscribe('', { method: 'QUERY', body: { match: topic } });
      await target.publish({ topic, data: 'hello' });
      await stream.expectData('hello');
    },
  },
  {
    number: 1,
    level: 'may',
    title: 'the query and the form of QUERY count together; the id of the query beats that of the form, and the header both',
    async run(target) {
      const [a, b] = [target.topic('a'), target.topic('b')];
      if ([404, 405, 501].includes((await target.ask('QUERY', '', { body: { match: a } })).status)) throw new NotOffered('QUERY');
      const ids = [];
      for (const data of ['1', '2', '3', '4']) ids.push(await target.publish({ topic: data === '3' ? b : a, data }));
      const by = (query, last_event_id, headers = {}) =>
        target.subscribe({ match: a, ...query }, { method: 'QUERY', body: { match: b, last_event_id }, headers });
      await (await by({}, ids[0])).expectData('2', '3', '4');
      await (await by({ last_event_id: ids[1] }, ids[0])).expectData('3', '4');
      await (await by({ last_event_id: ids[1] }, ids[0], { 'Last-Event-ID': ids[2] })).expectData('4');
    },
  },
  {
    number: 2,
    level: 'must',
    title: 'a parameter that begins with `match`, in any case, and is no matcher type is refused',
    run: (target) => refusesQueries(target, ['Match=a', 'match=a&matchRegexp=b', 'MATCH_EXACT=a', 'match_=a', 'matches=a']),
  },
  {
    number: 3,
    level: 'must',
    title: 'a matcher with control characters, invalid UTF-8 or an invalid pattern is refused',
    run: (target) => refusesQueries(target, ['match=a%00', 'match=a%0A', 'match=a%7F', 'match=a%C2%85', 'match=%ff', 'match_urlpattern=/(']),
  },
  {
    number: 4,
    level: 'should',
    title: 'the number of matchers is limited',
    async run(target) {
      const response = await target.ask('GET', Array.from({ length: 2_000 }, (_, index) => `match=${index}`).join('&'));
      expectStatus(response, 400);
    },
  },
  {
    number: 5,
    level: 'must',
    title: 'a subscriber receives what at least one of its matchers matches, once',
    async run(target) {
      const [a, b, c] = [target.topic('a'), target.topic('b'), target.topic('c')];
      const stream = await target.subscribe([['match', a], ['match_exact', b], ['match_urlpattern', b]]);
      for (const topic of [a, c, b]) await target.publish({ topic, data: topic });
      await target.publish({ topic: a, data: 'last' });
      await stream.expectData(a, b, 'last');
    },
  },
  {
    number: 6,
    level: 'must',
    title: 'every field of an event reaches the subscriber, and every event has an id',
    async run(target) {
      const topic = target.topic();
      const stream = await target.subscribe({ match: topic });
      const id = `urn:uuid:${randomUUID()}`;
      await target.publish({ topic, id, type: 'note', retry: '5000', data: 'hello' });
      await target.publish({ topic, data: 'without' });
      const [event, without] = [await stream.next(), await stream.next()];
      expect(event?.id === id && event.type === 'note' && event.data === 'hello' && event.retry === '5000', `received ${JSON.stringify(event)}`);
      expect(without?.id && without.type === 'message', `received ${JSON.stringify(without)}`);
    },
  },
  {
    number: 7,
    level: 'must',
    title: 'a private event reaches only subscribers that are authorized',
    async run(target) {
      const [mine, other] = [target.topic('mine'), target.topic('other')];
      const matchers = [['match', mine], ['match', other]];
      const entitled = await target.subscribe(matchers, { token: target.token({ subscribe: [mine] }) });
      for (const [topic, data] of [[other, 'of others'], [mine, 'mine']]) await target.publish({ topic, data, private: 'on' });
      await target.publish({ topic: mine, data: 'public' });
      await entitled.expectData('mine', 'public');
    },
  },
  {
    number: 7,
    level: 'may',
    title: 'an anonymous subscriber receives public events only',
    async run(target) {
      const topic = target.topic();
      const response = await target.ask('GET', { match: topic });
      if (response.status === 401) throw new NotOffered('anonymous subscribers');
      const stream = await target.subscribe({ match: topic });
      await target.publish({ topic, data: 'private', private: 'on' });
      await target.publish({ topic, data: 'public' });
      await stream.expectData('public');
    },
  },
  {
    number: 8,
    level: 'should',
    title: 'an idle stream receives comments that keep it alive',
    async run(target) {
      const topic = target.topic();
      const stream = await target.subscribe({ match: topic });
      await target.publish({ topic, data: 'hello' });
      await stream.expectData('hello');
      // What opened the stream is before the event.
      await stream.comment(target.keepAliveSecs);
    },
  },
  {
    number: 9,
    level: 'must',
    title: 'an origin that is not allowed may not send credentials',
    async run(target) {
      const response = await target.ask('GET', { match: 'a' }, { headers: { Origin: 'https://elsewhere.example' } });
      const [origin, credentials] = ['origin', 'credentials'].map((name) => response.headers.get(`access-control-allow-${name}`));
      expect(credentials !== 'true' || origin === null, `Access-Control-Allow-Origin is ${origin}, with credentials`);
    },
  },
  {
    number: 10,
    level: 'must',
    title: '`*` matches every topic, in every matcher type',
    async run(target) {
      const topic = target.topic();
      for (const name of ['match', 'match_exact', 'match_urlpattern']) {
        const stream = await target.subscribe([[name, '*']]);
        await target.publish({ topic, data: name });
        for (;;) if ((await stream.data()) === name) break;
      }
    },
  },
  {
    number: 11,
    level: 'must',
    title: 'an exact matcher compares bytes: nothing is resolved or normalized',
    async run(target) {
      const topic = target.topic('é');
      const stream = await target.subscribe({ match: topic });
      for (const other of [topic.replace('https', 'HTTPS'), topic.replace('.example', '.example:443'), topic.replace('é', 'e\u0301'), encodeURI(topic)]) {
        await target.publish({ topic: other, data: other });
      }
      await target.publish({ topic, data: 'exact' });
      await stream.expectData('exact');
    },
  },
  {
    number: 12,
    level: 'must',
    title: 'a URL Pattern is matched by the rules of the WHATWG, relative to the hub, and case-sensitively',
    async run(target) {
      const topic = target.topic();
      const absolute = await target.subscribe({ match_urlpattern: `${topic}rooms/:id` });
      const relative = await target.subscribe({ match_urlpattern: `/${topic.slice(8).replaceAll('/', '-')}/:id` });
      for (const other of ['rooms/1/2', 'Rooms/1', 'rooms']) await target.publish({ topic: topic + other, data: other });
      await target.publish({ topic: 'http://[not a URL', data: 'no URL' });
      await target.publish({ topic: `${topic}rooms/1`, data: 'matches' });
      await absolute.expectData('matches');
      await target.publish({ topic: `/${topic.slice(8).replaceAll('/', '-')}/1`, data: 'relative' });
      await relative.expectData('relative');
    },
  },
  {
    number: 13,
    level: 'must',
    title: 'an event needs a topic; with several it is dispatched if any of them matches',
    async run(target) {
      await refusesForms(target, 400, [{ data: 'no topic' }, '']);
      const [canonical, alternate] = [target.topic('a'), target.topic('b')];
      const stream = await target.subscribe({ match: alternate });
      await target.publish([['topic', canonical], ['topic', alternate], ['data', 'both']]);
      await stream.expectData('both');
    },
  },
  {
    number: 14,
    level: 'must',
    title: 'no topic is `*`, has control characters, or is in the namespace of the hub, in any spelling',
    run: (target) => {
      const path = HUB_PATH(target);
      const encoded = path.replace(/[a-z]$/, (letter) => `%${letter.charCodeAt(0).toString(16)}`);
      const topics = ['*', 'a\u0000', 'a\n', 'a\u0085', path, `${path}/x`, `https://elsewhere.example${path}/x`, `/x/..${path}`, encoded];
      return refusesForms(target, 400, topics.map((topic) => ({ topic })));
    },
  },
  {
    number: 15,
    level: 'must',
    title: 'data is split at CR, LF and CRLF',
    async run(target) {
      const topic = target.topic();
      const stream = await target.subscribe({ match: topic });
      await target.publish({ topic, data: 'a\nb\rc\r\nd' });
      await target.publish({ topic, data: 'x\nid: forged\n\ndata: forged' });
      await stream.expectData('a\nb\nc\nd', 'x\nid: forged\n\ndata: forged');
    },
  },
  {
    number: 16,
    level: 'must',
    title: '`private` counts when it is present, whatever its value',
    async run(target) {
      const topic = target.topic();
      const stream = await target.subscribe({ match: topic }, { token: target.token({ subscribe: [target.topic('other')] }) });
      for (const value of ['', 'on', 'false', '0']) await target.publish({ topic, data: `private ${value}`, private: value });
      await target.publish({ topic, data: 'public' });
      await stream.expectData('public');
    },
  },
  {
    number: 17,
    level: 'must',
    title: 'an id does not begin with `#`, is not `earliest`, and has no control characters',
    run: (target) => refusesForms(target, 400, ['#a', 'earliest', 'a\n', 'a\u0000', 'a\u0085', 'a\u200b'].map((id) => ({ topic: target.topic(), id }))),
  },
  {
    number: 18,
    level: 'must',
    title: 'a type is not `mercure` and has no control characters; `retry` is digits',
    run: (target) => refusesForms(target, 400, [{ type: 'mercure' }, { type: 'a\n' }, { type: 'a\u0000' }, { retry: 'soon' }, { retry: '-1' }, { retry: '1.5' }].map((field) => ({ topic: target.topic(), ...field }))),
  },
  {
    number: 19,
    level: 'must',
    title: 'unknown fields of a publication are ignored',
    run: (target) => target.publish({ topic: target.topic(), unknown: '1', data: 'hello' }),
  },
  {
    number: 20,
    level: 'must',
    title: 'a publication is answered 200 with its id, as text in UTF-8',
    async run(target) {
      const id = `urn:uuid:${randomUUID()}`;
      const given = await target.post({ topic: target.topic(), id });
      expectStatus(given, 200);
      const generated = await target.publish({ topic: target.topic() });
      expect(/^text\/plain; *charset=utf-8$/i.test(given.headers.get('content-type') ?? ''), `the Content-Type is ${given.headers.get('content-type')}`);
      expect(generated !== '' && !/\s/.test(generated), `the generated id is ${JSON.stringify(generated)}`);
    },
  },
  {
    number: 21,
    level: 'should',
    title: 'the number of topics of an event is limited, and more are answered 413',
    async run(target) {
      const topics = Array.from({ length: 5_000 }, (_, index) => ['topic', `https://topics.example/${index}`]);
      expectStatus(await target.post(topics), 413);
    },
  },
  {
    number: 22,
    level: 'must',
    title: 'a token has the type `at+jwt`, in any case, with or without `application/`',
    async run(target) {
      const topic = target.topic();
      for (const typ of ['AT+JWT', 'application/at+jwt']) await acceptsToken(target, target.token({ publish: [topic], header: { typ } }), topic);
      for (const typ of ['JWT', undefined, 'at+jwt; a=b']) await refusesToken(target, target.token({ publish: ['*'], header: { typ } }), `typ ${typ}`);
    },
  },
  {
    number: 23,
    level: 'must',
    title: 'the algorithm is one that the operator allowed, never `none`',
    async run(target) {
      const claims = target.claims([target.detail(['publish'], ['*'])]);
      await refusesToken(target, `${sign(target.header({ alg: 'none' }), claims, target.secret).split('.').slice(0, 2).join('.')}.`, 'alg none');
      for (const alg of ['none', 'None', 'RS256', 'hs256']) await refusesToken(target, sign(target.header({ alg }), claims, target.secret), `alg ${alg}`);
      await refusesToken(target, sign(target.header(), claims, `${target.secret}x`), 'another key');
    },
  },
  {
    number: 24,
    level: 'must',
    title: 'no key comes from the token',
    async run(target) {
      const secret = 'a key that the token brings along, which is long enough';
      const claims = target.claims([target.detail(['publish'], ['*'])]);
      const jwk = { kty: 'oct', k: Buffer.from(secret).toString('base64url') };
      for (const header of [{ jwk }, { jku: 'https://elsewhere.example/jwks.json' }, { x5u: 'https://elsewhere.example/cert.pem' }]) {
        await refusesToken(target, sign(target.header(header), claims, secret), JSON.stringify(Object.keys(header)));
      }
    },
  },
  {
    number: 25,
    level: 'must',
    title: '`exp` is required; `exp`, `nbf`, `aud` and `iss` are enforced; other claims are not needed',
    async run(target) {
      const topic = target.topic();
      const at = Math.floor(Date.now() / 1000);
      const bad = [{ exp: undefined }, { exp: at - 600 }, { exp: 'soon' }, { nbf: at + 600 }, { aud: 'https://elsewhere.example/' }, { aud: undefined }, { iss: 'https://elsewhere.example' }, { iss: undefined }];
      for (const claims of bad) await refusesToken(target, target.token({ publish: ['*'], claims }), JSON.stringify(claims, (_, value) => value ?? null));
      const several = { aud: ['https://elsewhere.example/', target.audience], sub: undefined, client_id: undefined, iat: undefined, jti: undefined };
      await acceptsToken(target, target.token({ publish: [topic], claims: several }), topic);
    },
  },
  {
    number: 26,
    level: 'must',
    title: 'the header counts before the cookie, and its scheme in any case',
    async run(target) {
      const topic = target.topic();
      const token = target.token({ publish: [topic] });
      for (const scheme of ['bearer', 'BEARER']) {
        expectStatus(await target.post({ topic }, { token: undefined, headers: { Authorization: `${scheme} ${token}` } }), 200);
      }
      const cookie = `${target.cookie}=${target.token({ subscribe: ['*'] })}`;
      expectStatus(await target.post({ topic }, { token, headers: { Cookie: cookie } }), 200);
      const publisher = { Cookie: `${target.cookie}=${token}`, Origin: new URL(target.url).origin };
      expectStatus(await target.post({ topic }, { token: target.token({ subscribe: ['*'] }), headers: publisher }), 403);
    },
  },
  {
    number: 27,
    level: 'must',
    title: 'missing, invalid, insufficient and malformed credentials have responses of their own, as in RFC 6750',
    async run(target) {
      const topic = target.topic();
      const missing = await target.post({ topic }, { token: undefined });
      expectStatus(missing, 401);
      const bare = missing.headers.get('www-authenticate') ?? '';
      expect(/^Bearer\b/i.test(bare) && !/error/.test(bare), `without a token, WWW-Authenticate is ${JSON.stringify(bare)}`);
      const insufficient = await target.post({ topic }, { token: target.token({ publish: [target.topic('other')] }) });
      expectStatus(insufficient, 403);
      const challenge = insufficient.headers.get('www-authenticate') ?? '';
      expect(/insufficient_scope/.test(challenge), `for an insufficient token, WWW-Authenticate is ${JSON.stringify(challenge)}`);
      expectStatus(await target.post({ topic }, { token: undefined, headers: { Authorization: 'Bearer' } }), 400);
    },
  },
  {
    number: 28,
    level: 'must',
    title: 'one invalid detail invalidates the token; details of other types and unknown actions are ignored',
    async run(target) {
      const topic = target.topic();
      const good = target.detail(['publish', 'unknown'], [topic]);
      const foreign = { type: 'https://elsewhere.example/detail', actions: 7 };
      await acceptsToken(target, sign(target.header(), target.claims([foreign, good]), target.secret), topic);
      const bad = [{ actions: [] }, { actions: undefined }, { actions: [''] }, { topics: [] }, { topics: [{}] }, { topics: [{ match: '' }] }, { topics: [{ match: 'a', match_type: 'regexp' }] }, { topics: null }];
      for (const members of bad) {
        await refusesToken(target, sign(target.header(), target.claims([good, { ...good, ...members }]), target.secret), JSON.stringify(members, (_, value) => value ?? null));
      }
    },
  },
  {
    number: 29,
    level: 'must',
    title: 'a publisher needs a permission for every topic, or nothing is dispatched',
    async run(target) {
      const [a, b] = [target.topic('a'), target.topic('b')];
      const stream = await target.subscribe([['match', a], ['match', b]]);
      expectStatus(await target.post([['topic', a], ['topic', b], ['data', 'no']], { token: target.token({ publish: [a] }) }), 403);
      await target.publish([['topic', a], ['topic', b], ['data', 'yes']], { token: target.token({ publish: [a, b] }) });
      await stream.expectData('yes');
    },
  },
  {
    number: 30,
    level: 'must',
    title: 'a private event needs a matcher that matches and a permission for one of its topics',
    async run(target) {
      const [a, b] = [target.topic('a'), target.topic('b')];
      const stream = await target.subscribe({ match: a }, { token: target.token({ subscribe: [b] }) });
      await target.publish({ topic: a, data: 'no permission', private: 'on' });
      await target.publish({ topic: b, data: 'no matcher', private: 'on' });
      await target.publish([['topic', a], ['topic', b], ['data', 'both'], ['private', 'on']]);
      await stream.expectData('both');
    },
  },
  {
    number: 30,
    level: 'must',
    title: 'topics and permissions that are the same text when they are joined are not taken for each other (Security 2)',
    async run(target) {
      const [a, b, pattern] = [target.topic('a'), target.topic('b'), target.topic(':id')];
      const joined = [',', ' ', '_', '|', '&', ';', '/', ':', '%00', '%0A', '","'].map((separator) => [a, b].join(separator));
      const room = pattern.replace(':id', '1');
      const both = [['match', a], ['match', b]];
      const asPattern = { match: pattern, match_type: 'urlpattern' };
      // Matchers, permissions, and the topics of the private events that follow from them, in the order of publication.
      const subscribers = [
        [both, [a, b], [a, b]],
        [both, [a], [a]],
        [both, [b], [b]],
        ...joined.map((topic) => [[['match', topic]], [topic], [topic]]),
        ...joined.map((topic) => [both, [topic], []]),
        // The same text as a topic and as a pattern.
        [[['match', pattern]], [asPattern], [pattern]],
        [[['match_urlpattern', pattern]], [pattern], [pattern]],
        [[['match_urlpattern', pattern]], [asPattern], [pattern, room]],
      ];
      const topics = [pattern, room, a, b, ...joined];
      const subscribe = (query) => Promise.all(subscribers.map(([matchers, permissions]) =>
        target.subscribe([...matchers, ...query], { token: target.token({ subscribe: permissions }) })));
      const live = await subscribe([]);
      for (const topic of topics) await target.publish({ topic, data: topic, private: 'on' });
      // Each subscriber has a matcher for one of them.
      for (const topic of topics) await target.publish({ topic, data: 'public' });
      const replayed = await subscribe([['last_event_id', 'earliest']]);
      for (const streams of [live, replayed]) {
        for (const [index, [, , wanted]] of subscribers.entries()) await streams[index].expectData(...wanted, 'public');
      }
    },
  },
  {
    number: 31,
    level: 'must',
    title: 'a stream ends when its token expires',
    async run(target) {
      const topic = target.topic();
      const token = target.token({ subscribe: [topic], claims: { exp: Math.floor(Date.now() / 1000) + 3 } });
      const stream = await target.subscribe({ match: topic }, { token });
      expect((await stream.next()) === undefined, 'the stream is still open');
    },
  },
  {
    number: 32,
    level: 'should',
    title: 'a publication with a cookie needs the header `Origin` or `Referer`',
    async run(target) {
      const headers = { Cookie: `${target.cookie}=${target.token({ publish: ['*'] })}` };
      const response = await target.post({ topic: target.topic() }, { token: undefined, headers });
      expectStatus(response, 401, 403);
      const foreign = await target.post({ topic: target.topic() }, { token: undefined, headers: { ...headers, Origin: 'https://elsewhere.example' } });
      expectStatus(foreign, 401, 403);
    },
  },
  {
    number: 33,
    level: 'must',
    title: 'a subscriber resumes after the id in the header, or in `last_event_id`; the header wins',
    async run(target) {
      const topic = target.topic();
      const ids = [];
      for (const data of ['1', '2', '3']) ids.push(await target.publish({ topic, data }));
      const by = (parameters, headers = {}) => target.subscribe({ match: topic, ...parameters }, { headers });
      await (await by({ last_event_id: ids[1] })).expectData('3');
      await (await by({}, { 'Last-Event-ID': ids[0] })).expectData('2', '3');
      await (await by({ last_event_id: ids[1] }, { 'Last-Event-ID': ids[0] })).expectData('2', '3');
    },
  },
  {
    number: 33,
    level: 'must',
    title: 'events that are sent again are authorized with the token of now',
    async run(target) {
      const topic = target.topic();
      const first = await target.publish({ topic, data: 'first' });
      await target.publish({ topic, data: 'private', private: 'on' });
      await target.publish({ topic, data: 'public' });
      const stream = await target.subscribe({ match: topic, last_event_id: first }, { token: target.token({ subscribe: [target.topic('other')] }) });
      await stream.expectData('public');
    },
  },
  {
    number: 34,
    level: 'may',
    title: '`earliest` is the whole history',
    async run(target) {
      const topic = target.topic();
      for (const data of ['1', '2']) await target.publish({ topic, data });
      const response = await target.ask('GET', { match: topic, last_event_id: 'earliest' });
      if (!response.ok) throw new NotOffered('earliest');
      await (await target.subscribe({ match: topic, last_event_id: 'earliest' })).expectData('1', '2');
    },
  },
  {
    number: 35,
    level: 'must',
    title: 'of an id that was used twice, the earliest event counts',
    async run(target) {
      const topic = target.topic();
      const id = `urn:uuid:${randomUUID()}`;
      for (const data of ['1', '2', '3']) await target.publish({ topic, data, ...(data !== '2' && { id }) });
      await (await target.subscribe({ match: topic, last_event_id: id })).expectData('2', '3');
    },
  },
  {
    number: 36,
    level: 'must',
    title: '`Mercure-Last-Event-ID` is there whenever a cursor was given, and reveals no private id',
    async run(target) {
      const topic = target.topic();
      const id = await target.publish({ topic, data: '1' });
      const cursor = async (last_event_id) => (await target.subscribe({ match: topic, last_event_id })).headers.get('mercure-last-event-id');
      const [known, unknown, empty] = [await cursor(id), await cursor(`urn:uuid:${randomUUID()}`), await cursor('')];
      expect(known === id, `for a known id it is ${JSON.stringify(known)}`);
      expect(unknown === 'earliest', `for an unknown id it is ${JSON.stringify(unknown)}`);
      expect(empty !== null, 'for an empty cursor it is missing');
    },
  },
  {
    number: 37,
    level: 'may',
    title: 'the hub says after which time to reconnect, as digits',
    async run(target) {
      const topic = target.topic();
      const stream = await target.subscribe({ match: topic });
      await target.publish({ topic, data: 'hello' });
      await stream.expectData('hello');
      if (stream.retry === undefined) throw new NotOffered('a time to reconnect');
      expect(/^[0-9]+$/.test(stream.retry), `the field retry is ${JSON.stringify(stream.retry)}`);
    },
  },
  {
    number: 38,
    level: 'must',
    title: 'a private update is sent when a subscription begins and when it ends, on the path of the subscription',
    async run(target) {
      await collection(target);
      const topic = target.topic('a b/ü%');
      const updates = await target.subscribe({ match_urlpattern: EACH(target) }, { token: target.token({ subscribe: [{ match: EACH(target), match_type: 'urlpattern' }] }) });
      const unauthorized = await target.subscribe([['match_urlpattern', EACH(target)], ['match', topic]], { token: target.token({ subscribe: [topic] }) });
      const stream = await target.subscribe({ match_exact: topic });
      const began = await updates.update('mercure', ({ match, subscriber }) => match === topic && subscriber);
      const own = await updates.update('mercure', ({ match }) => match === topic);
      expect(began.active === true && own.active === true, 'a subscription that began is not `active`');
      stream.close();
      const ended = await updates.update('mercure', ({ match, active }) => match === topic && active === false);
      expect([began.id, own.id].includes(ended.id), `${ended.id} ended, which had not begun`);
      const segments = ['exact', topic, ended.subscriber].map(encoded).join('/');
      expect(ended.id === `${HUB_PATH(target)}/subscriptions/${segments}`, `the id is ${ended.id}`);
      await target.publish({ topic, data: 'the next one' });
      const { data } = await unauthorized.any();
      expect(data === 'the next one', `without a permission, ${JSON.stringify(data)} was received`);
    },
  },
  {
    number: 38,
    level: 'must',
    title: 'a request that is refused has no update, and a subscriber receives what is published after its own (Security 18)',
    async run(target) {
      await collection(target);
      const [refused, topic] = [target.topic('refused'), target.topic('accepted')];
      const token = target.token({ subscribe: [{ match: EACH(target), match_type: 'urlpattern' }] });
      const updates = await target.subscribe({ match_urlpattern: EACH(target) }, { token });
      const isOfRefused = ({ match }) => match === refused;
      await refusesQueries(target, [`match=${encoded(refused)}&match_urlpattern=/(`, `match=${encoded(refused)}&match_regexp=a`]);
      expectStatus(await target.ask('GET', { match: refused }, { token: 'a.b.c' }), 401);
      const stream = await target.subscribe({ match: topic });
      for (const active of [true, false]) {
        const update = await updates.update('mercure', (found) => isOfRefused(found) || (found.match === topic && found.active === active));
        expect(!isOfRefused(update), `there is an update of a request that was refused: ${JSON.stringify(update)}`);
        if (!active) break;
        await target.publish({ topic, data: 'after the update' });
        await stream.expectData('after the update');
        stream.close();
      }
      const { subscriptions } = await collection(target, `/exact/${encoded(refused)}`);
      expect(subscriptions.length === 0, `a request that was refused is listed: ${JSON.stringify(subscriptions)}`);
    },
  },
  {
    number: 39,
    level: 'must',
    title: 'a subscription has the payload of the first detail that covers the text of its matcher',
    async run(target) {
      await collection(target);
      const base = target.topic();
      const pattern = `${base}rooms/:room`;
      const details = [
        target.detail(['subscribe'], [`${base}a`], { payload: { of: 'a' } }),
        target.detail(['subscribe'], [{ match: pattern, match_type: 'urlpattern' }], { payload: { of: 'rooms' } }),
        target.detail(['subscribe'], ['*'], { payload: { of: 'others' } }),
      ];
      const token = sign(target.header(), target.claims(details), target.secret);
      await target.subscribe([['match', `${base}a`], ['match', `${base}b`], ['match_urlpattern', pattern]], { token });
      for (const [type, match, payload] of [['exact', `${base}a`, 'a'], ['exact', `${base}b`, 'others'], ['urlpattern', pattern, 'rooms']]) {
        const [one, ...others] = await listed(target, type, match);
        expect(others.length === 0, `there is more than one subscription of ${match}`);
        expect(one.type === 'subscription' && one.match_type === type && one.match === match && one.active === true, `it is ${JSON.stringify(one)}`);
        expect(one.payload?.of === payload, `of ${match} the payload is ${JSON.stringify(one.payload)}`);
      }
    },
  },
  {
    number: 40,
    level: 'must',
    title: 'the hub names each connection, whatever the client says',
    async run(target) {
      await collection(target);
      const topic = target.topic();
      const token = target.token({ subscribe: [topic] });
      for (const subscriber of ['urn:uuid:1', 'urn:uuid:2']) {
        await target.subscribe({ match: topic, subscriber }, { token, headers: { Subscriber: subscriber } });
      }
      const subscriptions = await listed(target, 'exact', topic, 2);
      const names = new Set(subscriptions.map(({ subscriber }) => subscriber));
      expect(names.size === 2 && !names.has('urn:uuid:1'), `the subscribers are ${[...names]}`);
    },
  },
  {
    number: 41,
    level: 'must',
    title: 'active subscriptions can be read with a permission, and not without; unknown ones are 404',
    async run(target) {
      const all = await collection(target);
      expect(all.id === `${HUB_PATH(target)}/subscriptions`, `the id is ${all.id}`);
      const topic = target.topic();
      await target.subscribe({ match: topic });
      const path = `/subscriptions/exact/${encoded(topic)}`;
      const [one] = await listed(target, 'exact', topic);
      const token = target.token({ subscribe: [{ match: `${HUB_PATH(target)}/subscriptions/:type/:match{/:subscriber}?`, match_type: 'urlpattern' }] });
      const alone = await eventually(`the subscription ${one.id}`, async () => {
        const response = await target.ask('GET', '', { path: `${path}/${encoded(one.subscriber)}`, token });
        return response.status === 404 ? undefined : response;
      });
      expectStatus(alone, 200);
      expect(/^application\/json *(;|$)/i.test(alone.headers.get('content-type') ?? ''), `the Content-Type is ${alone.headers.get('content-type')}`);
      expect(JSON.parse(alone.body_).id === one.id, `the id is not ${one.id}`);
      expectStatus(await target.ask('GET', '', { path: `${path}/${encoded('urn:uuid:00000000-0000-4000-8000-000000000000')}`, token }), 404);
      for (const other of ['', path.slice('/subscriptions'.length)]) {
        const refused = target.token({ subscribe: [topic] });
        expectStatus(await target.ask('GET', '', { path: `/subscriptions${other}`, token: refused }), 403);
      }
    },
  },
  {
    number: 42,
    level: 'must',
    title: 'a collection names the cursor from which a stream receives all further updates, and can be validated',
    async run(target) {
      await collection(target);
      const token = target.token({ subscribe: [`${HUB_PATH(target)}/subscriptions`] });
      const ask = (headers) => target.ask('GET', '', { path: '/subscriptions', token, headers });
      const response = await ask({});
      const link = response.headers.get('link') ?? '';
      const cursor = /<([^>]*)>;[^,]*rel="?mercure"?[^,]*last-event-id="([^"]*)"/.exec(link);
      expect(cursor && new URL(cursor[1], target.url).pathname === HUB_PATH(target), `Link is ${JSON.stringify(link)}`);
      const topic = target.topic();
      await target.subscribe({ match: topic });
      const reader = target.token({ subscribe: [{ match: EACH(target), match_type: 'urlpattern' }] });
      const updates = await target.subscribe({ match_urlpattern: EACH(target), last_event_id: cursor[2] }, { token: reader });
      await updates.update('mercure', ({ match, active }) => match === topic && active);
      // Streams of checks before may still be ending.
      await eventually('a response of 304 to the ETag', async () => {
        const etag = (await ask({})).headers.get('etag');
        expect(etag, 'there is no ETag');
        return (await ask({ 'If-None-Match': etag })).status === 304 ? true : undefined;
      });
    },
  },
  {
    number: 42,
    level: 'must',
    title: 'what publishers and subscribers choose cannot add to the headers `Link` and `ETag` (Security 17)',
    async run(target) {
      await collection(target);
      const forged = '"; rel="mercure", <https://elsewhere.example/>; rel="next';
      const topic = target.topic(`${forged}é`);
      for (const name of ['1', '2']) {
        await target.subscribe({ match: `${topic}${name}` });
        await listed(target, 'exact', `${topic}${name}`);
      }
      // The newest id of the hub.
      await target.publish({ topic, id: forged, data: 'hello' });
      const all = `${HUB_PATH(target)}/subscriptions`;
      for (const path of [all, `${all}/exact/${encoded(`${topic}1`)}`]) {
        const token = target.token({ subscribe: [path] });
        const response = await target.ask('GET', 'limit=1', { path: path.slice(HUB_PATH(target).length), token });
        expectStatus(response, 200);
        const link = response.headers.get('link') ?? '';
        const links = link.split(/,(?= *<)/).map((one) => /^ *<([^<>"]*)>((?:; *[a-z-]+=(?:"[^"]*"|[^",; ]+))+)$/.exec(one));
        expect(links.every(Boolean), `Link is ${JSON.stringify(link)}`);
        const hub = new URL(target.url);
        for (const [, to, parameters] of links) {
          expect(new URL(to, hub).host === hub.host, `a link leads to ${to}`);
          expect(parameters.match(/\brel=/g).length === 1, `a link has the parameters ${parameters}`);
        }
        expect(/^(W\/)?"[\x21\x23-\x7e]*"$/.test(response.headers.get('etag') ?? ''), `ETag is ${response.headers.get('etag')}`);
      }
    },
  },
  {
    number: 44,
    level: 'should',
    title: 'the metadata of the protected resource name it, and what a token for it needs',
    async run(target) {
      const metadata = await readMetadata(target);
      const { mercure_cookie: cookie, mercure_subscriptions: subscriptions, authorization_servers: servers = [] } = metadata;
      expect(metadata.resource === target.audience, `the resource is ${JSON.stringify(metadata.resource)}`);
      const lists = {
        authorization_details_types_supported: ['https://mercure.rocks/authorization-detail'],
        bearer_methods_supported: ['header'],
        mercure_matcher_types_supported: ['exact', 'urlpattern'],
      };
      for (const [name, needed] of Object.entries(lists)) {
        const list = metadata[name] ?? needed;
        expect(Array.isArray(list) && needed.every((value) => list.includes(value)), `${name} is ${JSON.stringify(list)}`);
      }
      expect(Array.isArray(servers) && servers.every((server) => URL.canParse(server)), `authorization_servers is ${JSON.stringify(servers)}`);
      expect(cookie === undefined || cookie === target.cookie, `mercure_cookie is ${JSON.stringify(cookie)}`);
      expect(['undefined', 'boolean'].includes(typeof subscriptions), `mercure_subscriptions is ${JSON.stringify(subscriptions)}`);
    },
  },
  {
    number: 44,
    level: 'should',
    title: 'refusals name the URL of the metadata, which is the one that belongs to the resource',
    async run(target) {
      const { resource } = await readMetadata(target);
      const challenges = [];
      for (const token of [undefined, 'a.b.c']) {
        const { headers } = await target.post({ topic: target.topic() }, { token });
        challenges.push(headers.get('www-authenticate') ?? '');
      }
      for (const challenge of challenges) {
        const url = /\bresource_metadata="([^"]*)"/.exec(challenge)?.[1];
        expect(url === metadataUrl(resource), `WWW-Authenticate is ${JSON.stringify(challenge)}`);
      }
    },
  },
  {
    number: 45,
    level: 'must',
    title: 'an encrypted payload reaches the subscriber as it is',
    async run(target) {
      const topic = target.topic();
      const stream = await target.subscribe({ match: topic });
      for (const payload of encrypted()) {
        await target.publish({ topic, data: payload });
        await stream.expectData(payload);
      }
    },
  },
];
