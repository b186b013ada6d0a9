// An application and its hub over HTTPS, each with a name of its own: app.x.test and hub.x.test are one site, app.other.test is another.

import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { eavesdrop, newPerson } from './browser.mjs';
import { atEnd } from './ending.mjs';
import { folder } from './folder.mjs';
import { Hub } from './hub.mjs';
import { Journal } from './journal.mjs';
import { Proxy } from './proxy.mjs';
import { serve } from './site.mjs';
import { DOCUMENT, KEY, configuration, ticketMaker } from './tickets.mjs';
import { ISSUER, token } from './tokens.mjs';

/** What a connection of a hub that is killed ends with. */
const LOST = ['ECONNRESET', 'EPIPE'];

export class Deployment {
  #authority;
  #isOver = false;
  /** The hub itself; browsers reach it through the proxy, which can cut their connections. */
  hub;
  proxy;
  application;
  /** The origins of the two sites of the application, and of the hub. */
  app;
  other;
  origin;

  /**
   * Starts everything for the duration of the test `t`: the hub with a store and further flags, with certificates of `authority`. What the
   * application grants expires after `expiresSecs`.
   */
  static async start(t, authority, { expiresSecs = 3600, flags = [] } = {}) {
    const deployment = new Deployment();
    deployment.#authority = authority;
    deployment.application = new Application(await ticketMaker(t), expiresSecs);
    const ofApplication = await authority.issue('DNS:app.x.test', 'DNS:app.other.test');
    const tls = { cert: readFileSync(ofApplication.certificate), key: readFileSync(ofApplication.key) };
    const site = new URL(await serve(t, deployment.application.routes, tls));
    const upstream = await serve(t, { '/events': deployment.application.decide });
    deployment.app = `https://app.x.test:${site.port}`;
    deployment.other = `https://app.other.test:${site.port}`;

    const settings = `allow_host = ["hub.x.test"]\nallow_origin = ["${deployment.app}", "${deployment.other}"]\n`;
    const decides = `[[authorize]]\npath = "/events"\nurl = "${upstream}/events"\n`;
    const file = await configuration(t, settings + decides + ISSUER);
    const { certificate, key } = await authority.issue('DNS:hub.x.test');
    const secure = ['--tls-certificate', certificate, '--tls-key', key];
    const store = await folder(t);
    deployment.hub = await Hub.start(t, 'serve', '--config', file, '--store', store, '--retry-millis', '300', ...secure, ...flags);
    deployment.proxy = await Proxy.start(t, deployment.hub.port);
    deployment.origin = deployment.proxy.origin.replace('http://127.0.0.1', 'https://hub.x.test');
    atEnd(t, () => (deployment.#isOver = true));
    return deployment;
  }

  /** The page of the application for a user who has logged in, on one of its origins. */
  async page(t, browser, user, origin = this.app) {
    const page = await newPerson(t, browser, eavesdrop);
    await page.goto(`${origin}/login?user=${user}`);
    return page;
  }

  /** Publishes, and again if the hub is gone before it has answered: an event with the same data is stored once for each topic. */
  async publish(topic, data) {
    for (;;) {
      try {
        return await this.#post(`/topics/${topic}`, data, { 'Idempotency-Key': JSON.stringify(data) });
      } catch (error) {
        if (this.#isOver || !LOST.includes(error.code)) throw error;
      }
    }
  }

  /** Revokes what has this label, this id, or this connection. */
  revoke(what) {
    return this.#post('/revoke', JSON.stringify(what));
  }

  /** The number of streams that are open. */
  async streams() {
    const { text } = await this.#request('/metrics');
    return Number(text.match(/^tidings_subscribers (\d+)$/m)[1]);
  }

  async #post(path, body, headers) {
    const { status, text } = await this.#request(path, { method: 'POST', body }, headers);
    if (status >= 300) throw new Error(`${path} was answered ${status}: ${text}`);
  }

  #request(path, options, headers = {}) {
    const url = `https://hub.x.test:${this.hub.port}${path}`;
    return this.#authority.request(url, { ...options, headers: { Authorization: `Bearer ${KEY}`, ...headers } });
  }
}

/** The application: its users log in, and it gives them what they may have, in every way that the documents name. */
class Application {
  #ticket;
  /** How long what it grants is valid. */
  expiresSecs;
  /** The users of the sessions, by their ids. */
  sessions = new Map();
  /** What was given: `{ user, way }`. */
  given = new Journal();

  constructor(ticket, expiresSecs) {
    this.#ticket = ticket;
    this.expiresSecs = expiresSecs;
  }

  /** What browsers request. */
  routes = {
    '/': () => '<!doctype html><title>application</title>',

    '/login': (response, request) => {
      const session = randomUUID();
      this.sessions.set(session, parameter(request, 'user'));
      setCookie(response, request, `session=${session}; Path=/; HttpOnly`);
      return '<!doctype html><title>application</title>';
    },

    '/ticket': (response, request) => this.#give(response, request, 'ticket'),

    // Pages of the hub use it, too.
    '/renew': (response, request) => {
      const { origin } = request.headers;
      if (origin) response.setHeader('Access-Control-Allow-Origin', origin);
      response.setHeader('Access-Control-Allow-Credentials', 'true');
      const credential = this.#give(response, request, parameter(request, 'as') ?? 'ticket');
      if (credential) setCookie(response, request, ofCredential(credential));
      return '';
    },

    // What an attacker or a mistake might put there.
    '/set': (response, request) => {
      setCookie(response, request, parameter(request, 'cookie'));
      return '';
    },
  };

  /** What the hub asks about a stream. */
  decide = (response, request) => {
    const user = this.#user(request);
    if (!user) return refuse(response);
    this.given.add({ user, way: 'stream' });
    response.setHeader('Tidings-Subscribe', `topic=user-${user}&label=user-${user}&since=earliest&expires=${this.expiresSecs}`);
    return '';
  };

  /** A credential for the topic of a user, as a ticket or as a token. */
  credential(user, kind) {
    const topics = [`user-${user}`];
    const end = Math.floor(Date.now() / 1000) + this.expiresSecs;
    return kind === 'token' ? token(topics, { exp: end }) : this.#ticket(topics, { expires_at: end, label: topics[0] });
  }

  #give(response, request, kind) {
    const user = this.#user(request);
    if (!user) return refuse(response);
    this.given.add({ user, way: kind });
    return this.credential(user, kind);
  }

  #user(request) {
    return this.sessions.get(request.headers.cookie?.match(/(?:^|; )session=([^;]*)/)?.[1]);
  }
}

/** The cookie of the document, with this credential. */
export function ofCredential(credential) {
  const [, line] = DOCUMENT.match(/^ +Set-Cookie: (.*CREDENTIAL.*)$/m);
  return line.replace('CREDENTIAL', credential).replace(/ Domain=[^;]*;/, '');
}

/** Sets a cookie for the site of the request. */
function setCookie(response, request, cookie) {
  const site = new URL(`https://${request.headers.host}`).hostname.split('.').slice(-2).join('.');
  const all = /SameSite/.test(cookie) ? cookie : `${cookie}; Secure; SameSite=Lax`;
  response.appendHeader('Set-Cookie', `${all}; Domain=${site}`);
}

function parameter(request, name) {
  return new URL(request.url, 'https://application').searchParams.get(name);
}

function refuse(response) {
  response.statusCode = 403;
  return '';
}
