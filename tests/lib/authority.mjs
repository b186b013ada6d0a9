// A certificate authority of a test, for HTTPS with names.

import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { folder } from './folder.mjs';

const execute = promisify(execFile);

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '90'];
// Without the defaults of the system: what a certificate may be used for is written here alone.
const CONFIGURATION = '[req]\ndistinguished_name = subject\n[subject]\n';

export class Authority {
  #directory;
  #issued = 0;
  /** The file of its certificate, in PEM. */
  file;

  /** A new one, for the duration of the test `t`. */
  static async create(t) {
    const authority = new Authority();
    authority.#directory = await folder(t);
    authority.file = join(authority.#directory, 'authority.pem');
    writeFileSync(join(authority.#directory, 'openssl.cnf'), CONFIGURATION);
    await authority.#request('authority', [], ['basicConstraints=critical,CA:TRUE', 'keyUsage=critical,keyCertSign,cRLSign']);
    return authority;
  }

  /** Resolves with the files `certificate` and `key` for these names and addresses, such as `DNS:hub.x.test` and `IP:127.0.0.1`. */
  async issue(...names) {
    this.#issued += 1;
    const signed = ['-CA', this.file, '-CAkey', join(this.#directory, 'authority.key')];
    const uses = ['basicConstraints=critical,CA:FALSE', 'keyUsage=critical,digitalSignature', 'extendedKeyUsage=serverAuth'];
    return this.#request(String(this.#issued), signed, [...uses, `subjectAltName=${names.join(',')}`]);
  }

  /** Sends a request to a port of this machine as a client that trusts this authority; resolves with `{ status, text }`. */
  request(url, { method = 'GET', headers = {}, body } = {}) {
    const { hostname, port, pathname, search, host } = new URL(url);
    const to = { host: '127.0.0.1', port, servername: hostname, ca: readFileSync(this.file), agent: false };
    return new Promise((resolve, reject) => {
      const request = https.request({ ...to, path: pathname + search, method, headers: { Host: host, ...headers } }, (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (part) => (text += part));
        response.on('end', () => resolve({ status: response.statusCode, text }));
        response.on('error', reject);
      });
      request.on('error', reject);
      request.end(body);
    });
  }

  async #request(name, signed, extensions) {
    const [certificate, key] = [`${name}.pem`, `${name}.key`].map((file) => join(this.#directory, file));
    const all = extensions.flatMap((extension) => ['-addext', extension]);
    const args = ['req', '-x509', '-config', join(this.#directory, 'openssl.cnf'), ...KEY, ...signed, '-subj', `/CN=${name} of a test`, ...all];
    await execute('openssl', [...args, '-keyout', key, '-out', certificate]);
    return { certificate, key };
  }
}
