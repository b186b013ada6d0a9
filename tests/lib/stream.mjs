// One connection to a stream: it does not reconnect by itself, and shows the answer unchanged.

import { once } from 'node:events';
import http from 'node:http';
import { atEnd } from './ending.mjs';
import { Journal } from './journal.mjs';

/** What Chromium and Firefox send for an EventSource. */
export const AS_BROWSER = { Accept: 'text/event-stream', 'Cache-Control': 'no-cache' };

export class Stream {
  #request;
  #response;
  /** Received events, as `{ type, id, data }`; then `{ ended: true }` when the connection has ended. */
  received = new Journal();

  /** Requests `url` during the test `t`; resolves when the response headers have arrived. */
  static async open(t, url, headers = { Accept: 'text/event-stream' }) {
    const stream = new Stream();
    stream.#request = http.get(url, { headers, agent: false });
    atEnd(t, () => stream.close());
    const [response] = await once(stream.#request, 'response');
    stream.status = response.statusCode;
    stream.headers = response.headers;
    stream.#response = response;
    stream.#take(response);
    return stream;
  }

  /** The data of all events so far. */
  get data() {
    return this.received.entries.filter((entry) => entry.type).map((entry) => entry.data);
  }

  /** Resolves with the event that has this data. */
  receive(data) {
    return this.received.until(`an event with the data ${JSON.stringify(data)}`, (all) => all.find((entry) => entry.data === data));
  }

  /** Resolves once the server has ended the response. */
  ended() {
    return this.received.until('the end of the stream', (all) => all.some((entry) => entry.ended));
  }

  close() {
    this.#request.destroy();
  }

  /** Stays connected, and reads nothing more. */
  stopReading() {
    this.#response.pause();
    this.#response.socket.pause();
  }

  #take(response) {
    let rest = '';
    let event = {};
    response.setEncoding('utf8');
    response.on('data', (text) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop();
      for (const line of lines) {
        if (line === '' && event.data !== undefined) this.received.add({ type: 'message', ...event });
        if (line === '') event = {};
        const [, field, value] = line.match(/^(event|id|data|retry): (.*)$/) ?? [];
        if (field === 'retry') this.retry = Number(value);
        else if (field) event[field === 'event' ? 'type' : field] = value;
      }
    });
    for (const end of ['close', 'error']) response.on(end, () => this.received.add({ ended: true }));
  }
}
