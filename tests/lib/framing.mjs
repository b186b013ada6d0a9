// Requests whose end two servers may see in different places, each with a second request behind, or inside, that one of them may take
// for a request of its own.

/** What is smuggled: an event on a topic that every proxy of the tests refuses. */
const SMUGGLED = 'POST /topics/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx';
/** The same as the body of a chunked request, which ends before it, or the other way round. */
const LAST_CHUNK = `0\r\n\r\n${SMUGGLED}`;

const post = (fields, body, version = '1.1') =>
  `POST /topics/outer HTTP/${version}\r\nHost: localhost\r\n${fields}\r\n\r\n${body}`;
const length = (text) => `Content-Length: ${text.length}`;

/** `[what is wrong, the bytes]`. */
export const AMBIGUOUS = [
  ...[
    'Transfer-Encoding: chunked',
    'Transfer-Encoding : chunked',
    'Transfer-Encoding: xchunked',
    'Transfer-Encoding: chunked, identity',
    'Transfer-Encoding: identity, chunked',
    'Transfer-Encoding: chunked, chunked',
    'Transfer-Encoding: identity',
    'Transfer-Encoding: gzip',
    'Transfer-Encoding: "chunked"',
    'Transfer-Encoding: chunked;x=y',
    'Transfer-Encoding: \x0bchunked',
    'Transfer-Encoding: chunked\x00',
    'Transfer-Encoding:\r\n chunked',
    'Transfer-Encoding\r\n: chunked',
    ' Transfer-Encoding: chunked',
    'X: y\nTransfer-Encoding: chunked',
    'X: y\rTransfer-Encoding: chunked',
    'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity',
    'Transfer_Encoding: chunked',
    'Transfer-Encoding: ',
  ].flatMap((field) => [
    [`the length of everything and ${JSON.stringify(field)}`, post(`${length(LAST_CHUNK)}\r\n${field}`, LAST_CHUNK)],
    [`${JSON.stringify(field)} and a length of 5`, post(`${field}\r\nContent-Length: 5`, LAST_CHUNK)],
  ]),
  ...[
    `Content-Length: 0\r\n${length(SMUGGLED)}`,
    `${length(SMUGGLED)}\r\nContent-Length: 0`,
    `Content-Length: 0, ${SMUGGLED.length}`,
    `Content-Length: +${SMUGGLED.length}`,
    `Content-Length: -1`,
    `Content-Length: 0x${SMUGGLED.length.toString(16)}`,
    `Content-Length: ${SMUGGLED.length} 0`,
    `Content-Length : ${SMUGGLED.length}`,
    `Content-Length:\r\n ${SMUGGLED.length}`,
    ` ${length(SMUGGLED)}`,
    `X: y\n${length(SMUGGLED)}`,
    'Content-Length: 18446744073709551616',
    'Content-Length: ',
    `Content_Length: ${SMUGGLED.length}`,
  ].map((fields) => [JSON.stringify(fields), post(fields, SMUGGLED)]),
  ...[
    ['a chunk size in the wrong notation', `0x0\r\n\r\n${SMUGGLED}`],
    ['a negative chunk size', `-0\r\n\r\n${SMUGGLED}`],
    ['a chunk size with a plus', `+0\r\n\r\n${SMUGGLED}`],
    ['a chunk size that wraps around', `10000000000000000\r\n\r\n${SMUGGLED}`],
    ['chunk lines that end in a bare LF', `1\nx\n0\n\n${SMUGGLED}`],
    ['a chunk extension with a bare LF', `1;\nx\r\n0\r\n\r\n${SMUGGLED}`],
    ['a chunk without its line end', `1\r\nx0\r\n\r\n${SMUGGLED}`],
    ['a chunk that is longer than its size', `1\r\nxyz\r\n0\r\n\r\n${SMUGGLED}`],
    ['a trailer that ends in a bare LF', `0\r\nX: y\n\r\n${SMUGGLED}`],
    ['a trailer without a colon', `0\r\nX\r\n\r\n${SMUGGLED}`],
    ['a chunk size behind a space', ` 0\r\n\r\n${SMUGGLED}`],
    ['chunk lines that end in a bare CR', `0\r\r${SMUGGLED}`],
  ].map(([what, body]) => [what, post('Transfer-Encoding: chunked', body)]),
  ['chunks over HTTP/1.0', post('Connection: keep-alive\r\nTransfer-Encoding: chunked', LAST_CHUNK, '1.0')],
  ['two hosts', `GET / HTTP/1.1\r\nHost: localhost\r\nHost: other\r\n${length(SMUGGLED)}\r\n\r\n${SMUGGLED}`],
  ['no host', `GET / HTTP/1.1\r\n${length(SMUGGLED)}\r\n\r\n${SMUGGLED}`],
];

const request = (line, fields, body) => `${line} HTTP/1.1\r\nHost: localhost\r\n${fields}\r\n\r\n${body}`;
const LONG = SMUGGLED.padStart(2_000_000, 'x');

/** Requests whose end is clear: the second one is their body, also where the request is refused before it is read. */
export const WITH_A_BODY = [
  ['GET with a body', request('GET /topics/outer', `Accept: application/json\r\n${length(SMUGGLED)}`, SMUGGLED)],
  ['a stream with a body', request('GET /stream?topic=outer', length(SMUGGLED), SMUGGLED)],
  ['HEAD with a body', request('HEAD /topics/outer', `Accept: application/json\r\n${length(SMUGGLED)}`, SMUGGLED)],
  ['OPTIONS with a body', request('OPTIONS /topics/outer', length(SMUGGLED), SMUGGLED)],
  ['DELETE with a body', request('DELETE /topics/outer', length(SMUGGLED), SMUGGLED)],
  ['an unknown path', request('POST /nowhere', length(SMUGGLED), SMUGGLED)],
  ['an unknown parameter', request('POST /topics/outer?x=y', length(SMUGGLED), SMUGGLED)],
  ['an encoded body', request('POST /topics/outer', `Content-Encoding: gzip\r\n${length(SMUGGLED)}`, SMUGGLED)],
  ['a wrong credential', request('POST /topics/outer', `Authorization: Bearer wrong\r\n${length(SMUGGLED)}`, SMUGGLED)],
  ['a body that is sent although it has to wait', request('POST /nowhere', `Expect: 100-continue\r\n${length(SMUGGLED)}`, SMUGGLED)],
  ['an unknown expectation', request('POST /topics/outer', `Expect: 200-ok\r\n${length(SMUGGLED)}`, SMUGGLED)],
  ['a body that is too large', request('POST /topics/outer', length(LONG), LONG)],
  ['chunks that are too large', request('POST /topics/outer', 'Transfer-Encoding: chunked', `${LONG.length.toString(16)}\r\n${LONG}\r\n0\r\n\r\n`)],
  ['an upgrade', request('POST /topics/outer', `Connection: Upgrade\r\nUpgrade: websocket\r\n${length(SMUGGLED)}`, SMUGGLED)],
  ['an upgrade to h2c', request('POST /topics/outer', `Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n${length(SMUGGLED)}`, SMUGGLED)],
  ['a length that Connection names', request('POST /topics/outer', `Connection: Content-Length\r\n${length(SMUGGLED)}`, SMUGGLED)],
];
