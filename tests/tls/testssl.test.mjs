// What testssl.sh finds about a hub with TLS: protocols, cipher suites, certificate, vulnerabilities. It takes minutes: `make tls`.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { Authority } from '../lib/authority.mjs';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';

const MILLIS_MAX = 900_000;
const FAILING = new Set(['HIGH', 'CRITICAL', 'FATAL']);
/** Findings that do not count, with the reason. */
const EXCLUDED = new Map([
  ['cert_revocation', 'the authority of this test has neither OCSP nor revocation lists'],
]);
/** Some of what must be among the findings: without them testssl has not examined the hub. */
const EXAMINED = ['SSLv3', 'TLS1', 'TLS1_2', 'TLS1_3', 'cipherlist_NULL', 'cipherlist_STRONG', 'heartbleed', 'CCS', 'ROBOT', 'LOGJAM'];

test('testssl finds nothing of severity HIGH or CRITICAL', { timeout: MILLIS_MAX }, async (t) => {
  const authority = await Authority.create(t);
  const { certificate, key } = await authority.issue('DNS:localhost', 'IP:127.0.0.1');
  const hub = await Hub.start(t, 'serve', '--tls-certificate', certificate, '--tls-key', key);
  const report = join(await folder(t), 'report.json');
  const options = ['--quiet', '--color', '0', '--warnings', 'off', '--nodns', 'none', '--ip', '127.0.0.1', '--add-ca', authority.file];
  const args = [...options, '--jsonfile', report, `https://localhost:${hub.port}/`];
  // Its exit code is the number of problems that it had; what matters is in the report.
  const output = await promisify(execFile)('testssl', args, { maxBuffer: 1 << 24, timeout: MILLIS_MAX }).catch((error) => {
    if (error.code === 'ENOENT') throw new Error('testssl is not installed: `tests/setup tls` installs the Debian package testssl.sh');
    return error;
  });
  const findings = JSON.parse(readFileSync(report, 'utf8'));
  const ids = new Set(findings.map(({ id }) => id));
  const missing = EXAMINED.filter((id) => !ids.has(id));
  assert.deepEqual(missing, [], `testssl did not report these:\n${output.stdout}\n${output.stderr}`);
  for (const { id, severity, finding } of findings) {
    if (['OK', 'INFO'].includes(severity)) continue;
    t.diagnostic(`${severity} ${id}: ${finding}${EXCLUDED.has(id) ? ` (does not count: ${EXCLUDED.get(id)})` : ''}`);
  }
  t.diagnostic(`${findings.filter(({ severity }) => severity === 'OK').length} of ${findings.length} findings are OK`);
  assert.deepEqual(findings.filter(({ id, severity }) => FAILING.has(severity) && !EXCLUDED.has(id)), []);
});
