// A browser without JavaScript: cookies, and forms that are sent as they say.

import assert from 'node:assert/strict';

/** A user of an application. */
export class Visitor {
  #origin;
  #cookie = '';

  constructor(origin) {
    this.#origin = origin;
  }

  static async logIn(origin, user) {
    const visitor = new Visitor(origin);
    await visitor.submit('/login', { user });
    return visitor;
  }

  get headers() {
    return { Accept: 'text/event-stream', Cookie: this.#cookie };
  }

  async page() {
    return (await fetch(this.#origin, { headers: { Cookie: this.#cookie } })).text();
  }

  post(path, body) {
    return fetch(this.#origin + path, { method: 'POST', body, headers: { Cookie: this.#cookie }, redirect: 'manual' });
  }

  /** Fills in the form of a page, and sends it as the form says. */
  async submit(path, fields) {
    const page = await (await fetch(this.#origin + path, { headers: { Cookie: this.#cookie } })).text();
    const hidden = [...page.matchAll(/<input type="hidden" name="([^"]+)"(?: value="([^"]*)")?/g)].map(([, name, value = '']) => [name, value]);
    const [, target = path] = page.match(/<form[^>]* action="(\/[^"]*)"/) ?? [];
    const body = /<form[^>]*multipart/.test(page) ? new FormData() : new URLSearchParams();
    for (const [name, value] of [...hidden, ...Object.entries(fields)]) body.append(name, value);
    const answer = await this.post(target, body);
    assert.ok(answer.status < 400, `${target} was answered ${answer.status}`);
    this.#cookie = answer.headers.get('set-cookie')?.split(';')[0] ?? this.#cookie;
  }
}
