// The hub under test: requests, streams and tokens. It knows nothing of the hub but its URL and what its operator configured. A cluster has
// several URLs: each request goes to the next one, so that what is published at one node is received and resumed at another.

import { createHmac, randomUUID } from 'node:crypto';

/** How long every wait takes at most. No check depends on it being short. */
const PATIENCE_MS = 20_000;

const DETAIL_TYPE = 'https://mercure.rocks/authorization-detail';
const FORM = 'application/x-www-form-urlencoded';

/** The hub answered something else than the protocol says. */
export class Violation extends Error {}

/** A check cannot be made at this hub: what it needs is optional, and is not there. */
export class NotOffered extends Error {}

export function expect(holds, message) {
  if (!holds) throw new Violation(message);
}

export function expectStatus(response, ...statuses) {
  expect(statuses.includes(response.status), `${response.what}: ${response.status} instead of ${statuses.join(' or ')}`);
}

const encode = (part) => Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url');
/** A variable in a path (RFC 6570): all but unreserved characters are encoded. */
export const encoded = (text) => encodeURIComponent(text).replaceAll(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);
const now = () => Math.floor(Date.now() / 1000);

/** A signed token of these parts, valid or not. */
export function sign(header, claims, secret) {
  const message = `${encode(header)}.${encode(claims)}`;
  return `${message}.${createHmac('sha256', secret).update(message).digest('base64url')}`;
}

export class Target {
  /** `options`: `nodes` (URLs), `secret`, `issuer`, `audience`, `olderSecret`, `cookie`, `keepAliveSecs`. */
  constructor(options) {
    Object.assign(this, options);
    /** Where the next request goes. */
    this.url = this.nodes[0];
    this.streams = [];
  }

  /** A topic of this check alone, below a host that is nobody's. */
  topic(name = '') {
    return `https://topics.example/${randomUUID()}/${name}`;
  }

  header(members = {}) {
    return { typ: 'at+jwt', alg: 'HS256', ...members };
  }

  claims(details, members = {}) {
    return {
      iss: this.issuer, aud: this.audience, sub: 'conformance', client_id: 'conformance', iat: now(), exp: now() + 600, jti: randomUUID(),
      authorization_details: details, ...members,
    };
  }

  detail(actions, topics, members = {}) {
    return { type: DETAIL_TYPE, actions, topics: topics.map((match) => (typeof match === 'string' ? { match } : match)), ...members };
  }

  /** A token of the current revision. */
  token({ publish = [], subscribe = [], claims = {}, header = {} } = {}) {
    const details = [];
    if (publish.length > 0) details.push(this.detail(['publish'], publish));
    if (subscribe.length > 0) details.push(this.detail(['subscribe'], subscribe));
    return sign(this.header(header), this.claims(details, claims), this.secret);
  }

  /** A token of the older revision. */
  olderToken(claims) {
    return sign({ typ: 'JWT', alg: 'HS256' }, claims, this.olderSecret);
  }

  /** Sends a request. `parameters` are pairs, or a query as it is sent. */
  async request(method, parameters, { body, token, headers = {}, path = '' } = {}) {
    const query = typeof parameters === 'string' ? parameters : new URLSearchParams(parameters).toString();
    const all = { ...(token && { Authorization: `Bearer ${token}` }), ...(body !== undefined && { 'Content-Type': FORM }), ...headers };
    const controller = new AbortController();
    const options = { method, headers: all, signal: controller.signal, redirect: 'manual' };
    if (body !== undefined) options.body = typeof body === 'string' ? body : new URLSearchParams(body).toString();
    const { url, nodes } = this;
    const node = nodes.indexOf(url);
    // A check may also ask for something that is at another URL.
    if (node >= 0) this.url = nodes[(node + 1) % nodes.length];
    const what = `${method} ${path}?${query.slice(0, 120)}${nodes.length > 1 ? ` at ${url}` : ''}`;
    const response = await within(fetch(`${url}${path}${query && `?${query}`}`, options), what);
    response.what = what;
    response.abandon = () => controller.abort();
    return response;
  }

  /** A request whose response is expected to end: its text is read. */
  async ask(...request) {
    const response = await this.request(...request);
    const isStream = response.ok && (response.headers.get('content-type') ?? '').startsWith('text/event-stream');
    if (isStream) response.abandon();
    response.body_ = isStream ? '' : await within(response.text(), response.what);
    return response;
  }

  /** Publishes these fields; by default with a token for everything. */
  post(fields, options = {}) {
    return this.ask('POST', options.query ?? '', { body: fields, token: this.publisher(), ...options });
  }

  /** Publishes, and resolves with the id. */
  async publish(fields, options) {
    const response = await this.post(fields, options);
    expectStatus(response, 200);
    return response.body_;
  }

  publisher() {
    return this.secret ? this.token({ publish: ['*'] }) : this.olderToken({ mercure: { publish: ['*'] } });
  }

  /** Opens a stream. */
  async subscribe(parameters, options = {}) {
    const response = await this.request(options.method ?? 'GET', parameters, options);
    expectStatus(response, 200);
    const type = response.headers.get('content-type') ?? '';
    expect(/^text\/event-stream *(;|$)/i.test(type), `${response.what}: the Content-Type is ${JSON.stringify(type)}`);
    const stream = new Stream(response);
    this.streams.push(stream);
    return stream;
  }

  /** Ends every stream that a check has opened. */
  close() {
    for (const stream of this.streams.splice(0)) stream.close();
  }
}

/** The events of a stream (WHATWG HTML, "Server-sent events"), without those of the type `tidings` or `mercure`, which are the hub's own. */
class Stream {
  #reader;
  #decoder = new TextDecoder();
  #text = '';
  #response;

  constructor(response) {
    this.#response = response;
    this.#reader = response.body.getReader();
    this.headers = response.headers;
  }

  /** The next event as `{ id, type, data, retry }`; `undefined` at the end of the stream. */
  async next() {
    const event = await this.#any();
    return event && ['tidings', 'mercure'].includes(event.type) ? this.next() : event;
  }

  /** The last `retry` of the stream, in an event or before one. */
  retry;

  /** Waits for a comment that comes after the last event that was read, for at most so many seconds. */
  async comment(secs) {
    const found = this.#readUntil(() => /(?:^|[\r\n]):/.exec(this.#text));
    expect(await within(found, `a comment in ${this.#response.what}`, secs * 1_000), `${this.#response.what}: the stream ended`);
  }

  /** The next event of any type but notices of the hub. */
  async any() {
    const event = await this.#any();
    return event?.type === 'tidings' ? this.any() : event;
  }

  /** The next update of an active subscription for which `wanted(document)` holds, of this type, parsed. */
  async update(type, wanted) {
    for (;;) {
      const event = await this.#any();
      expect(event, `${this.#response.what}: the stream ended`);
      const document = event.type === 'tidings' ? {} : JSON.parse(event.data);
      if (!wanted(document)) continue;
      expect(event.type === type, `the update has the type ${JSON.stringify(event.type)} instead of ${JSON.stringify(type)}`);
      return document;
    }
  }

  #any() {
    return within(this.#read(), `an event of ${this.#response.what}`);
  }

  /** The data of the next event. */
  async data() {
    const event = await this.next();
    expect(event, `${this.#response.what}: the stream ended`);
    return event.data;
  }

  /** Expects events with exactly these data, in this order. */
  async expectData(...wanted) {
    for (const data of wanted) {
      const found = await this.data();
      expect(found === data, `${this.#response.what}: received ${JSON.stringify(found)} instead of ${JSON.stringify(data)}`);
    }
  }

  close() {
    this.#response.abandon();
  }

  async #read() {
    for (;;) {
      const end = await this.#readUntil(() => /\r\n\r\n|\n\n|\r\r/.exec(this.#text));
      if (!end) return undefined;
      const block = this.#text.slice(0, end.index);
      this.#text = this.#text.slice(end.index + end[0].length);
      const { retry, ...event } = parsed(block);
      this.retry = retry ?? this.retry;
      if (event.data !== undefined) return { ...event, retry };
    }
  }

  /** Reads until something is found in the text; `undefined` if the stream ends before. */
  async #readUntil(find) {
    for (;;) {
      const found = find();
      if (found) return found;
      const { value, done } = await this.#reader.read().catch(() => ({ done: true }));
      if (done) return undefined;
      this.#text += this.#decoder.decode(value, { stream: true });
    }
  }
}

/** The fields of a block. Without data it is no event. */
function parsed(block) {
  const event = { id: undefined, type: 'message', data: undefined, retry: undefined };
  for (const line of block.split(/\r\n|\n|\r/)) {
    const colon = line.indexOf(':');
    const [name, value] = colon < 0 ? [line, ''] : [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, '')];
    if (name === 'data') event.data = event.data === undefined ? value : `${event.data}\n${value}`;
    if (name === 'event') event.type = value;
    if (name === 'id' || name === 'retry') event[name] = value;
  }
  return event;
}

/** Repeats what resolves with nothing as long as something is not so yet, and resolves with what it resolves with then. */
export async function eventually(what, attempt) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await attempt();
    if (found !== undefined) return found;
    expect(Date.now() < end, `waited ${PATIENCE_MS / 1000} s for ${what}`);
  }
}

async function within(promise, what, millis = PATIENCE_MS) {
  let timer;
  const patience = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Violation(`waited ${millis / 1000} s for ${what}`)), millis);
  });
  try {
    return await Promise.race([promise, patience]);
  } finally {
    clearTimeout(timer);
  }
}
