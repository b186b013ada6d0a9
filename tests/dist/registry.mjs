// A registry that has the npm packages of dist/ and nothing else, as the public one will have them after a release.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import { atEnd } from '../lib/ending.mjs';
import { DIST } from './machine.mjs';

/** Serves the packages during the test `t`; resolves with the URL of the registry. */
export async function registry(t) {
  const packages = new Map();
  const archives = new Map();
  for (const file of readdirSync(DIST).filter((name) => name.endsWith('.tgz'))) {
    const bytes = readFileSync(join(DIST, file));
    const manifest = JSON.parse(execFileSync('tar', ['-xzOf', join(DIST, file), 'package/package.json']));
    packages.set(manifest.name, { file, manifest, integrity: `sha512-${createHash('sha512').update(bytes).digest('base64')}` });
    archives.set(`/${file}`, bytes);
  }
  const server = http.createServer((request, response) => {
    const path = decodeURIComponent(request.url);
    const found = packages.get(path.slice(1));
    if (archives.has(path)) return response.end(archives.get(path));
    if (!found) return response.writeHead(404).end('{}');
    const { file, manifest, integrity } = found;
    const dist = { tarball: `http://${request.headers.host}/${file}`, integrity };
    const versions = { [manifest.version]: { ...manifest, dist } };
    response.setHeader('Content-Type', 'application/json');
    return response.end(JSON.stringify({ name: manifest.name, 'dist-tags': { latest: manifest.version }, versions }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  atEnd(t, () => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${server.address().port}/`;
}
