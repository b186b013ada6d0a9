// The parser, with the streams of the web platform tests (eventsource/format-*) and what else the standard says of them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parser } from '../dist/event-stream.js';

const LONG = 'x'.repeat(2048);

/** A stream, and the events that it has, as `[data, type, id]`; type and id are left out where they are the usual ones. */
const STREAMS = {
  data: ['data:msg\ndata: msg\n\n:\nfalsefield:msg\n\nfalsefield:msg\nData:data\n\ndata\n\ndata:end\n\n', ['msg\nmsg'], [''], ['end']],
  'a byte order mark': ['\uFEFFdata:1\n\n\uFEFFdata:2\n\ndata:3\n\n', ['1'], ['3']],
  'two byte order marks': ['\uFEFF\uFEFFdata:1\n\ndata:2\n\ndata:3\n\n', ['2'], ['3']],
  comments: [`data:1\r:\0\n:\r\ndata:2\n:${LONG}\rdata:3\n:data:fail\r:${LONG}\ndata:4\n\n`, ['1\n2\n3\n4']],
  'an unfinished block': ['data:test1\n\nid:test\ndata:test2\n', ['test1']],
  'empty data': ['data:\n\ndata\ndata\n\ndata:test\n\n', [''], ['\n'], ['test']],
  'an empty type': ['event: \ndata:data\n\n', ['data']],
  types: ['event:test\ndata:x\n\ndata:x\n\n', ['x', 'test'], ['x']],
  'a type without data': ['event:test\n\ndata:x\n\n', ['x']],
  ids: ['id: 1\ndata: 1\n\ndata: 2\n\nid: 2\ndata:3\n\ndata:4\n\n', ['1', 'message', '1'], ['2', 'message', '1'], ['3', 'message', '2'], ['4', 'message', '2']],
  'an empty id': ['id: 1\ndata: 1\n\nid\ndata: 2\n\n', ['1', 'message', '1'], ['2']],
  'an id with NUL': ['id: x\0y\ndata:1\n\n', ['1']],
  parsing: [
    'data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n',
    ['\0\n 2\n1\n3\n\n4'],
  ],
  'unknown fields': ['data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n', ['test\n\ntest']],
  'leading spaces': ['data:\ttest\rdata: \ndata:test\n\n', ['\ttest\n\ntest']],
  'line ends': ['data:test\r\ndata\ndata:test\r\n\r\n', ['test\n\ntest']],
  'other line ends of Unicode': ['data:a\u2028b\u2029c\u0085d\ve\ff\n\n', ['a\u2028b\u2029c\u0085d\ve\ff']],
  'letters of several bytes': ['data:ok…🙂\n\n', ['ok…🙂']],
  'a field named like a property of objects': ['__proto__: x\nconstructor: y\ndata:1\n\n', ['1']],
};

/** The events of a stream that arrives in pieces of this many bytes. */
function events(stream, size) {
  const found = [];
  const parse = parser((data, type, id) => data !== undefined && found.push([data, type, id]));
  const bytes = new TextEncoder().encode(stream);
  for (let start = 0; start < bytes.length; start += size) parse(bytes.subarray(start, start + size));
  return found;
}

for (const [name, [stream, ...expected]] of Object.entries(STREAMS)) {
  test(`parses ${name}, however it is cut`, () => {
    const full = expected.map(([data, type = 'message', id = '']) => [data, type, id]);
    for (const size of [1, 2, 3, 7, Infinity]) assert.deepEqual(events(stream, size), full, `in pieces of ${size}`);
  });
}

test('dispatches at a CR without waiting for what follows', () => {
  assert.deepEqual(events('data:1\r\r', Infinity), [['1', 'message', '']]);
});

test('replaces bytes that are not UTF-8', () => {
  const found = [];
  parser((data) => found.push(data))(Uint8Array.from([...new TextEncoder().encode('data:a'), 0xff, 0xc3, ...new TextEncoder().encode('b\n\n')]));
  assert.deepEqual(found, ['a\uFFFD\uFFFDb']);
});

test('reports a block without data, which moves the id', () => {
  const found = [];
  parser((...block) => found.push(block))(new TextEncoder().encode('id: 7\n\n'));
  assert.deepEqual(found, [[undefined, 'message', '7']]);
});

test('takes digits as a delay, and nothing else', () => {
  const delays = [];
  const stream = 'retry:03000\nretry:1000x\nretry\nretry:-1\nretry: 5\n';
  parser(() => {}, (millis) => delays.push(millis))(new TextEncoder().encode(stream));
  assert.deepEqual(delays, [3000, 5]);
});

test('ends with an error when an event is too long', () => {
  const parse = parser(() => {});
  const line = new TextEncoder().encode(`data:${'x'.repeat(1 << 22)}\n`);
  assert.throws(() => {
    for (let count = 0; count < 8; count += 1) parse(line);
  }, /too long/);
});
