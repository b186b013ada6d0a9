// A TCP proxy in front of a hub that stalls and cuts on command, and records what it sent to clients.

import net from 'node:net';
import { once } from 'node:events';
import { atEnd } from './ending.mjs';
import { Journal } from './journal.mjs';

export class Proxy {
  #paused = false;
  #sockets = new Set();
  #server;
  /** `{ connection, text }` for everything that was sent to a client; `{ connection, request }` for its first bytes. */
  passed = new Journal();
  /** The number of accepted connections. */
  connections = 0;

  static async start(t, port) {
    const proxy = new Proxy();
    proxy.#server = net.createServer((client) => proxy.#take(client, port));
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    proxy.origin = `http://127.0.0.1:${proxy.#server.address().port}`;
    atEnd(t, () => proxy.end());
    return proxy;
  }

  url(path) {
    return this.origin + path;
  }

  /** Stalls all connections without closing them, as on a sleeping machine. New connections stall too. */
  pause() {
    this.#paused = true;
    for (const socket of this.#sockets) socket.pause();
  }

  resume() {
    this.#paused = false;
    for (const socket of this.#sockets) socket.resume();
  }

  /** Resets every connection. */
  cut() {
    for (const socket of this.#sockets) {
      // Node spins forever at its exit if a socket is reset after its own end was sent.
      if (socket.writableEnded) socket.destroy();
      else socket.resetAndDestroy();
    }
  }

  /** Resolves once the proxy has accepted more than `count` connections. */
  moreConnectionsThan(count) {
    return this.passed.until(`connection number ${count + 1}`, () => this.connections > count);
  }

  /** What was sent to clients in answer to requests for targets that begin with `path`. */
  textOf(path) {
    const wanted = new Set(
      this.passed.entries.filter((entry) => entry.request?.split(' ')[1]?.startsWith(path)).map((entry) => entry.connection),
    );
    return this.passed.entries.filter((entry) => entry.text && wanted.has(entry.connection)).map((entry) => entry.text).join('');
  }

  async end() {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #take(client, port) {
    const connection = ++this.connections;
    const hub = net.connect(port, '127.0.0.1');
    this.passed.add({ connection });
    client.once('data', (bytes) => this.passed.add({ connection, request: bytes.toString('latin1') }));
    hub.on('data', (bytes) => this.passed.add({ connection, text: bytes.toString('utf8') }));
    for (const [from, to] of [[client, hub], [hub, client]]) {
      this.#sockets.add(from);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroySoon();
      });
      from.pipe(to);
      if (this.#paused) from.pause();
    }
  }
}
