// Events that applications publish with their existing libraries, received by a browser.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eavesdrop, forSuite, received, messages, newPerson } from '../lib/browser.mjs';
import { Hub } from '../lib/hub.mjs';
import { Redis, background, python } from '../lib/service.mjs';
import { serve } from '../lib/site.mjs';

const chromium = forSuite('chromium');

async function bridged(t, redis, parameters) {
  const hub = await Hub.start(t, 'serve', '--bridge', `${redis.url}?${parameters}`);
  await hub.output.until('the bridge to listen', (all) => all.some((line) => line.includes('the bridge is listening')));
  return hub;
}

/** A page that subscribes at `path`, once it is connected. */
async function listening(t, hub, path) {
  const script = `new EventSource(${JSON.stringify(hub.url(path))})`;
  const site = await serve(t, { '/': `<!doctype html><title>bridge</title><script>${script}</script>` });
  const page = await newPerson(t, chromium(), eavesdrop);
  await page.goto(site);
  await received(page, { type: 'open' });
  return page;
}

const FLASK_SSE = `
import os
from flask import Flask
from flask_sse import sse
app = Flask("app")
app.config["REDIS_URL"] = os.environ["REDIS_URL"]
app.register_blueprint(sse, url_prefix="/stream")
`;

test('Flask-SSE publishes, and a browser receives the same events as before', async (t) => {
  const redis = await Redis.start(t);
  const hub = await bridged(t, redis, 'format=flask-sse&channels=sse,users.social');
  const page = await listening(t, hub, '/stream?channel=sse');
  const other = await listening(t, hub, '/stream?channel=users.social');
  const publish = `
with app.app_context():
    sse.publish({"message": "grüße", "n": [1, 2.5, None, True]}, type="note", id=7)
    sse.publish("two\\nlines")
    sse.publish({"for": "others"}, channel="users.social")
`;
  await python(FLASK_SSE + publish, { REDIS_URL: redis.url });
  const data = '{"message": "gr\\u00fc\\u00dfe", "n": [1, 2.5, null, true]}';
  assert.equal((await received(page, { type: 'note', data })).id, '7');
  await received(page, { type: 'message', data: 'two\nlines' });
  await received(other, { type: 'message', data: '{"for": "others"}' });
  assert.deepEqual(await messages(page), ['two\nlines']);
});

test('events of the hub reach subscribers of Flask-SSE, each line once', async (t) => {
  const redis = await Redis.start(t);
  const hub = await bridged(t, redis, 'format=flask-sse&both_ways=true');
  const page = await listening(t, hub, '/stream?channel=sse');
  const listen = `
with app.app_context():
    pubsub = sse.redis.pubsub()
    pubsub.subscribe("sse")
    pubsub.get_message(timeout=10)
    print("ready")
    from flask import json
    from flask_sse import Message
    for message in pubsub.listen():
        print(json.dumps(str(Message(**json.loads(message["data"])))))
`;
  const printed = await background(t, FLASK_SSE + listen, { REDIS_URL: redis.url });
  await hub.publish('sse', 'from the hub', { type: 'note', id: 'order-1' });
  await python(`${FLASK_SSE}\nwith app.app_context():\n    sse.publish("from Flask")\n`, { REDIS_URL: redis.url });
  await printed.until('the last line', (all) => all.some((line) => line.includes('from Flask')));
  assert.deepEqual(
    printed.entries.filter((line) => line !== 'ready').map((line) => JSON.parse(line)),
    ['event:note\ndata:from the hub\nid:order-1\n\n', 'data:from Flask\n\n'],
  );
  await received(page, { type: 'message', data: 'from Flask' });
  assert.deepEqual(await messages(page), ['from Flask']);
});

const DJANGO = `
import os
import django
from django.conf import settings
host, port = "127.0.0.1", int(os.environ["REDIS_PORT"])
where = {"host": host, "port": port, "db": 0}
storage = {}
if "STORAGE" in os.environ:
    storage = {"EVENTSTREAM_STORAGE_CLASS": os.environ["STORAGE"], "EVENTSTREAM_STORAGE_CONNECTION": where}
settings.configure(INSTALLED_APPS=["django_eventstream"], EVENTSTREAM_REDIS=where, **storage)
django.setup()
from django_eventstream import send_event
`;

test('django-eventstream publishes, and a browser receives the same events as before', async (t) => {
  const redis = await Redis.start(t);
  const hub = await bridged(t, redis, 'format=django-eventstream');
  const page = await listening(t, hub, '/stream?topic=time+line');
  const environment = { REDIS_PORT: String(redis.port) };
  await python(`${DJANGO}\nsend_event("time line", "message", {"n": 1})\nsend_event("other", "message", {})`, environment);
  await received(page, { type: 'message', data: '{"n": 1}' });
  const STORAGE = 'django_eventstream.storage.RedisStorage';
  await python(`${DJANGO}\nsend_event("time line", "note", {"n": 2})`, { ...environment, STORAGE });
  assert.equal((await received(page, { type: 'note', data: '{"n": 2}' })).id, 'time%20line:1');
  assert.deepEqual(await messages(page), ['{"n": 1}']);
});

test('a message of Juggernaut reaches its channels, and not the connection that it excepts', async (t) => {
  const redis = await Redis.start(t);
  const hub = await bridged(t, redis, 'format=juggernaut');
  const sender = await listening(t, hub, '/stream?topic=chat&hello=true');
  const other = await listening(t, hub, '/stream?topic=chat&topic=news&hello=true');
  const hello = JSON.parse((await received(sender, { type: 'tidings' })).data);
  const publish = (message) => redis.cli('PUBLISH', 'juggernaut', JSON.stringify(message));
  await publish({ channels: ['chat', 'news'], data: { body: 'hi' }, kind: 'update', except: hello.connection });
  await publish({ channel: 'chat', data: 'for all' });
  const seen = async (page) => {
    await received(page, { type: 'message', data: '{"channel":"chat","data":"for all"}' });
    return (await messages(page)).map((data) => JSON.parse(data));
  };
  assert.deepEqual(await seen(sender), [{ channel: 'chat', data: 'for all' }]);
  assert.deepEqual(await seen(other), [
    { channel: 'chat', data: { body: 'hi' }, kind: 'update' },
    { channel: 'news', data: { body: 'hi' }, kind: 'update' },
    { channel: 'chat', data: 'for all' },
  ]);
});
