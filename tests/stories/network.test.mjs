// Network failures, in networks that the tests create.

import { test } from 'node:test';
import { isPermitted, run } from '../lib/own-network.mjs';

const unlessForbidden = { skip: isPermitted() ? false : 'SKIPPED: this system permits no network namespaces' };

test('a client that vanishes is detected, and its file descriptor released', unlessForbidden, async (t) => {
  await run(t, 'vanished.sh');
});

test('4,000 clients that connect at once while the hub is busy are all answered', unlessForbidden, async (t) => {
  await run(t, 'burst.sh');
});
