// What the network does to a hub, in networks that are made for it.

import { test } from 'node:test';
import { isPermitted, run } from '../lib/own-network.mjs';

const unlessForbidden = { skip: isPermitted() ? false : 'SKIPPED: this system permits no network namespaces' };

test('a peer that vanishes without a goodbye is found, and its descriptor given back', unlessForbidden, async (t) => {
  await run(t, 'vanished.sh');
});

test('4,000 who connect at once while the hub is busy are all answered', unlessForbidden, async (t) => {
  await run(t, 'burst.sh');
});
