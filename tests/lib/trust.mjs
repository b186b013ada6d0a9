// Browsers that trust the certificate authority of a test, and find names below `.test` on this machine.
//
// The authority is in the store of certificates that each browser keeps for its user, as that of a company is: `certutil` (Debian package
// libnss3-tools) writes both. So the browsers check chains, names and dates as always. Chromium's `--ignore-certificate-errors-spki-list`
// and `acceptInsecureCerts` would switch such checks off, and a policy of Firefox is a file of the whole system.
//
// Names are resolved by settings of the browsers: nothing on the machine changes, and pages have the sites that their names say.

import { execFile } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { launch } from './browser.mjs';
import { folder } from './folder.mjs';

const execute = promisify(execFile);

/** A browser with an empty profile, for the duration of the test `t`. */
export async function launchTrusting(t, name, authority) {
  return launch(t, name, await TRUSTING[name](await folder(t), authority));
}

const TRUSTING = {
  async chromium(home, authority) {
    await trust(join(home, 'pki/nssdb'), authority);
    // Other names do not resolve at all: the browser asks no server.
    const args = ['--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'];
    return { args, env: { ...process.env, HOME: home, XDG_DATA_HOME: home } };
  },

  async firefox(profile, authority) {
    await trust(profile, authority);
    const extraPrefsFirefox = {
      'network.dns.forceResolve': '127.0.0.1',
      // Puppeteer would have third-party cookies accepted. This is what Firefox does for its users.
      'browser.contentblocking.category': 'custom',
      'network.cookie.cookieBehavior': 5,
    };
    return { userDataDir: profile, extraPrefsFirefox };
  },
};

/** Makes a database of certificates in this directory, with the authority in it. */
async function trust(directory, authority) {
  await mkdir(directory, { recursive: true });
  await execute('certutil', ['-N', '-d', `sql:${directory}`, '--empty-password']);
  await execute('certutil', ['-A', '-d', `sql:${directory}`, '-n', 'authority of a test', '-t', 'C,,', '-i', authority.file]);
}
