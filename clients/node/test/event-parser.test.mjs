// The parser of event streams: its events depend on the text alone, not on how it was split.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EventParser } from '../src/event-parser.js';

const STREAM =
  '\ufeff: comment\r\nretry: 1500\r\n\r\nid: 1\ndata: one\r\rdata:two\ndata: lines\nid\n\nevent: note\ndata\n\nevent: dropped\n\n' +
  'data: {"a":"ü 🗞️"}\nid: 4\n\nid: 5\0\ndata: x\n\ndata: unfinished\n';

const EVENTS = [
  { type: 'message', data: 'one', id: '1' },
  { type: 'message', data: 'two\nlines', id: '' },
  { type: 'note', data: '', id: '' },
  { type: 'message', data: '{"a":"ü 🗞️"}', id: '4' },
  { type: 'message', data: 'x', id: '4' },
];

test('the same events come out however the text was split', () => {
  for (let first = 0; first <= STREAM.length; first += 1) {
    for (const second of [first, first + 1, Math.min(first + 7, STREAM.length)]) {
      const parser = new EventParser('before');
      const parts = [STREAM.slice(0, first), STREAM.slice(first, second), STREAM.slice(second)];
      assert.deepEqual(parts.flatMap((part) => [...parser.push(part)]), EVENTS, `split at ${first} and ${second}`);
      assert.equal(parser.retryMillis, 1500);
      assert.equal(parser.lastId, '4');
    }
  }
});

test('an event without an id has that of the event before the connection', () => {
  assert.deepEqual([...new EventParser('before').push('data: x\n\n')], [{ type: 'message', data: 'x', id: 'before' }]);
});

test('an endless line is refused', () => {
  const parser = new EventParser('');
  const megabyte = 'x'.repeat(1 << 20);
  assert.throws(() => {
    for (let count = 0; count < 10; count += 1) assert.deepEqual([...parser.push(megabyte)], []);
  }, /longer than/);
});
