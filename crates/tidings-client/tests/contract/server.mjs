// Serves the answers of cases.json with what Node has in itself. See main.rs.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const cases = new Map(JSON.parse(readFileSync(process.argv[2], 'utf8')).map((entry) => [entry.name, entry]));
/** How many requests each path has had. */
const requests = new Map();

function answerFor(path, name) {
  const { answers, repeats } = cases.get(name);
  const index = requests.get(path) ?? 0;
  requests.set(path, index + 1);
  return answers[repeats ? Math.min(index, answers.length - 1) : index];
}

async function serve(request, response) {
  const url = new URL(request.url, 'http://127.0.0.1');
  const [, run, name] = url.pathname.split('/');
  const body = Buffer.concat(await request.toArray()).toString();
  const answer = answerFor(url.pathname, name);
  if (!answer) return response.writeHead(204).end();

  const { port } = server.address();
  const headers = Object.entries(request.headers).map(([key, value]) => [key, Buffer.from(value, 'latin1').toString()]);
  const received = { method: request.method, query: url.search.slice(1), headers: Object.fromEntries(headers), body };
  const replacements = {
    '{first}': `http://127.0.0.1:${port}/${run}`,
    '{other}': `http://localhost:${port}/${run}`,
    '{other-with-user}': `http://ada:lovelace@localhost:${port}/${run}`,
    '{request}': JSON.stringify(received),
    '{payload}': 'x'.repeat(url.searchParams.get('payload')),
  };
  const fill = (text) => text.replace(/\{[a-z-]+\}/g, (placeholder) => replacements[placeholder] ?? placeholder);
  const lineEnd = { crlf: '\r\n', cr: '\r' }[url.searchParams.get('line_end')] ?? '\n';

  response.statusCode = answer.status ?? 200;
  if (response.statusCode === 200) response.setHeader('Content-Type', 'text/event-stream');
  for (const [key, value] of Object.entries(answer.headers ?? {})) response.setHeader(key, fill(value));
  response.flushHeaders();
  // Each write is a chunk of HTTP, which arrives as it was sent.
  for (const text of answer.chunks ?? []) {
    const bytes = Buffer.from(fill(text).replaceAll('\n', lineEnd));
    const size = Number(url.searchParams.get('split')) || bytes.length;
    for (let start = 0; start < bytes.length; start += size) response.write(bytes.subarray(start, start + size));
  }
  if (answer.end === 'cut') response.socket.end();
  else if (answer.end !== 'silent') response.end();
}

const server = createServer(serve);
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
// The test has ended, in whichever way.
process.stdin.resume().on('end', () => process.exit());
