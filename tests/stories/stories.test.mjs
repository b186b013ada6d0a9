// The main uses of Tidings, with the commands and ports of the documents.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { read } from '../lib/document.mjs';
import { run } from '../lib/own-network.mjs';

/** The document must contain exactly these lines, so that it and the story cannot diverge. */
function isIn(name, ...commands) {
  const document = read(name);
  for (const command of commands) assert.ok(document.includes(command), `${name} does not show: ${command}`);
}

test('a new user types make demo and two curls, and sees them meet', async (t) => {
  isIn('README.md', '`make demo`');
  await run(t, 'new-user.sh');
});

test('an application notifies one user, and no other user receives it', async (t) => {
  isIn('docs/auth.md', 'private_topics = ["user-*"]', 'tidings serve --config tidings.toml');
  await run(t, 'one-user.sh');
});

test('an answer published token by token survives a refresh and a killed hub', async (t) => {
  isIn('README.md', 'tidings serve --store ./events --retain 1h');
  await run(t, 'tokens.sh');
});

test('a Flask application continues to publish to Redis, and Tidings is its stream', async (t) => {
  isIn('docs/origin.md', `tidings serve --stream chat --bridge 'redis://localhost?channels=chat'`);
  await run(t, 'flask.sh');
});

test('an operator runs three nodes on one Redis behind nginx, and an EventSource survives the end of its node', async (t) => {
  isIn('docs/scaling-out.md', 'tidings serve --config tidings.toml --listen 0.0.0.0:8080 --store redis://redis.internal');
  await run(t, 'three-nodes.sh');
});
