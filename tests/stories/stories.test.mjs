// What people come for, with the commands as they are written in the README, on the port that they name.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { read } from '../lib/document.mjs';
import { run } from '../lib/own-network.mjs';

const readme = read('README.md');

/** The README must show these very lines, so that it and the story cannot drift apart. */
function isInReadme(...commands) {
  for (const command of commands) assert.ok(readme.includes(command), `the README does not show: ${command}`);
}

test('a newcomer types make demo and two curls, and sees them meet', async (t) => {
  isInReadme('make demo', 'curl -N http://127.0.0.1:8080/stream', 'curl -d message=hello http://127.0.0.1:8080/post');
  await run(t, 'newcomer.sh');
});

test('an application notifies one user, and nobody else hears it', async (t) => {
  isInReadme(
    `curl -d '{"unread":3}' -H "Authorization: Bearer $KEY" http://127.0.0.1:8080/topics/user-42`,
    'private_topics = ["user-*"]',
    'tidings serve --config tidings.toml',
  );
  await run(t, 'one-user.sh');
});

test('an answer that comes token by token survives a refresh and a killed hub', async (t) => {
  isInReadme('tidings serve --store ./events --retain 1h', 'http://127.0.0.1:8080/topics/answer-7?since=earliest');
  await run(t, 'tokens.sh');
});

test('a Flask application goes on publishing to Redis, and Tidings is its stream', async (t) => {
  isInReadme(`tidings serve --stream chat --bridge 'redis://localhost?channels=chat'`);
  await run(t, 'flask.sh');
});
