// A third-party web site, on an origin of its own: pages and scripts that use the hub by its address.

import http from 'node:http';
import https from 'node:https';
import { once } from 'node:events';
import { extname } from 'node:path';
import { atEnd } from './ending.mjs';

const TYPES = { '.js': 'text/javascript', '.css': 'text/css', '.json': 'application/json', '.png': 'image/png', '.svg': 'image/svg+xml' };

/**
 * Serves `files`, a map from path to text or bytes, or to a function that takes response and request and returns the text, for the duration of the
 * test `t`; over HTTPS with the certificate and key `tls`. Resolves with the origin.
 */
export async function serve(t, files, tls) {
  const answer = (request, response) => {
    const path = new URL(request.url, 'http://site').pathname;
    const file = files[path];
    const text = typeof file === 'function' ? file(response, request) : file;
    // Browsers request an icon by themselves, and log an error in the page's console if there is none.
    if (path === '/favicon.ico') return response.writeHead(204).end();
    if (text === undefined) return response.writeHead(404).end();
    const type = TYPES[extname(path)] ?? 'text/html';
    response.setHeader('Content-Type', `${type}; charset=utf-8`);
    response.end(text);
  };
  const server = tls ? https.createServer(tls, answer) : http.createServer(answer);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  atEnd(t, () => {
    server.closeAllConnections();
    return new Promise((closed) => server.close(closed));
  });
  return `${tls ? 'https' : 'http'}://127.0.0.1:${server.address().port}`;
}
