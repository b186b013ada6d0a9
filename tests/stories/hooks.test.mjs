// The published libraries of Standard Webhooks verify what a hook sends, with either secret while one replaces another.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { Webhook } from 'standardwebhooks';
import { folder } from '../lib/folder.mjs';
import { Hub } from '../lib/hub.mjs';
import { python } from '../lib/service.mjs';

const SECRETS = [7, 42].map((byte) => `whsec_${Buffer.alloc(32, byte).toString('base64')}`);
const OTHER = `whsec_${Buffer.alloc(32, 1).toString('base64')}`;

/** Verifies with the library from PyPI; prints the topics, or the name of the error. */
const VERIFY = `
import json, os
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

body, headers = os.environ["BODY"], json.loads(os.environ["HEADERS"])
try:
    message = Webhook(os.environ["SECRET"]).verify(body, headers)
    print([event["topic"] for event in message["data"]["events"]])
except WebhookVerificationError as error:
    print(type(error).__name__)
`;

/** The next message that an application receives, and a hub whose hook leads there. */
async function received(t) {
  const server = createServer();
  t.after(() => server.close());
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const file = join(await folder(t), 'tidings.toml');
  const hook = { url: `http://127.0.0.1:${server.address().port}/hook`, secret: SECRETS.join(' '), allow_http: true, allow_private: true };
  const lines = Object.entries(hook).map(([name, value]) => `${name} = ${JSON.stringify(value)}`);
  writeFileSync(file, ['[[hook]]', ...lines, ''].join('\n'));
  const hub = await Hub.start(t, 'serve', '--config', file);
  const message = new Promise((resolve) => {
    server.once('request', async (request, response) => {
      let body = '';
      for await (const chunk of request.setEncoding('utf8')) body += chunk;
      response.writeHead(204, { connection: 'close' }).end();
      resolve({ body, headers: request.headers });
    });
  });
  const leaving = new AbortController();
  t.after(() => leaving.abort());
  await fetch(hub.url('/topics/grüße'), { signal: leaving.signal });
  return message;
}

test('the libraries of Standard Webhooks from npm and PyPI verify a hook, and nothing that was changed', async (t) => {
  const { body, headers } = await received(t);
  assert.equal(headers['content-type'], 'application/json');
  const inPython = (secret, text) => python(VERIFY, { SECRET: secret, BODY: text, HEADERS: JSON.stringify(headers) });
  for (const secret of SECRETS) {
    const message = new Webhook(secret).verify(body, headers);
    assert.deepEqual(message.data.events.map(({ type, topic }) => [type, topic]), [['topic.occupied', 'grüße']]);
    assert.match(await inPython(secret, body), /grüße/);
  }
  const changed = body.replace('grüße', 'chat');
  assert.throws(() => new Webhook(SECRETS[0]).verify(changed, headers));
  assert.match(await inPython(SECRETS[0], changed), /WebhookVerificationError/);
  assert.throws(() => new Webhook(OTHER).verify(body, headers));
  assert.match(await inPython(OTHER, body), /WebhookVerificationError/);
});
