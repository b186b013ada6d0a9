// The application's own route for streams, for handlers that write to a response: Express, Connect, `node:http`, Next's pages router.

import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { answer } from './route.js';

/**
 * Answers a request for a stream with these topics:
 *
 *     app.get('/stream', (request, response) => stream(request, response, `user-${request.session.user}`));
 *
 * @param {import('node:http').IncomingMessage} request
 * @param {import('node:http').ServerResponse} response
 * @param {...(string | import('./route.js').StreamOptions)} wanted topics, and options at the end
 * @returns {Promise<void>}
 */
export async function stream(request, response, ...wanted) {
  const left = new AbortController();
  response.once('close', () => left.abort());
  const answered = await answer(request.headers, wanted, left.signal);
  response.statusCode = answered.status;
  answered.headers.forEach((value, name) => response.setHeader(name, value));
  if (!answered.body) {
    response.end();
    return;
  }
  // A browser that leaves is no error, nor is a hub that ends.
  await pipeline(Readable.fromWeb(/** @type {any} */ (answered.body)), response).catch(() => response.destroy());
}
