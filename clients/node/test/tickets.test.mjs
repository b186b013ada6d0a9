// Tickets, made by the client or by the hub, and revoked.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { read } from '../../../tests/lib/document.mjs';
import { Stream } from '../../../tests/lib/stream.mjs';
import { signTicket } from '../src/tickets.js';
import { TICKET_SECRET, clientOf, startHub } from './hubs.mjs';

test('the test vectors are signed in the same way', () => {
  const { secrets, valid } = JSON.parse(read('tests/tickets/vectors.json'));
  assert.ok(valid.length > 3);
  for (const { name, secret_id: id, contents, ticket } of valid) {
    const { secret } = secrets.find((secret) => secret.id === id);
    assert.equal(signTicket({ id, secret }, contents), ticket, name);
  }
});

for (const [how, options] of Object.entries({ 'made by the client': { ticketSecret: TICKET_SECRET }, 'made by the hub': {} })) {
  test(`a ticket ${how} allows its topics alone, until its label is revoked`, async (t) => {
    const hub = await startHub(t);
    const client = clientOf(hub, options);
    const ticket = await client.ticket(['user-42', 'grüße'], { label: 'user-42', expires: 600, streamsMax: 2, patterns: ['/rooms/:room'] });
    const stream = await Stream.open(t, hub.url(`/stream?ticket=${ticket}`));
    await client.publish('user-43', 'of another');
    await client.publish('grüße', 'hello', { private: true });
    await client.publish('/rooms/7', 'in the room', { private: true });
    await client.publish('user-42', 'mine');
    await stream.receive('mine');
    assert.deepEqual(stream.data, ['hello', 'in the room', 'mine']);
    await client.revoke({ label: 'user-42' });
    await stream.ended();
    assert.deepEqual(stream.received.entries.at(-2).data, '{"kind":"revoked"}');
    assert.equal((await fetch(hub.url(`/stream?ticket=${ticket}`))).status, 401);
  });
}

test('a ticket that no hub would accept is refused', async () => {
  const client = clientOf({ origin: 'http://127.0.0.1:1' }, { ticketSecret: TICKET_SECRET });
  const wrong = [
    [[[]], /needs a topic or a pattern/],
    [['chat', { expires: 86_401 }], /expires is 86401: give whole seconds from 1 to 86400/],
    [['chat', { expires: 1.5 }], /expires is 1.5/],
    [['chat', { label: 'ü'.repeat(129) }], /give 1 to 256 bytes/],
    [['chat', { streamsMax: 0 }], /streamsMax is 0/],
    [['chat', { labl: 'x' }], /no option "labl": a ticket takes patterns, label/],
  ];
  for (const [args, message] of wrong) await assert.rejects(client.ticket(...args), { name: 'TidingsError', message });
});

test('a secret without an id is refused and not shown', async () => {
  const client = clientOf({ origin: 'http://127.0.0.1:1' }, { ticketSecret: 'just-a-secret' });
  await assert.rejects(client.ticket('chat'), ({ message }) => /ID:SECRET/.test(message) && !message.includes('just-a-secret'));
});
