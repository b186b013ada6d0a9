#!/usr/bin/env node
// Checks a hub against the Mercure protocol, from outside: `node mercure.mjs --help`.

import { parseArgs } from 'node:util';
import { CURRENT } from './current.mjs';
import { OLDER } from './older.mjs';
import { NotOffered, Target, Violation } from './target.mjs';

const HELP = `Checks a hub against the Mercure protocol and prints a table of what holds.

  node mercure.mjs --url URL [--secret SECRET --issuer ISS] [--older-secret SECRET]

  --url URL             the hub, such as http://127.0.0.1:3000/.well-known/mercure; repeat it for the nodes of a cluster, which are asked
                        in turn
  --secret SECRET       a shared secret (HS256) with which the hub verifies tokens of the revision 1.0
  --issuer ISS          the issuer whose secret that is
  --audience URL        the audience that the hub requires [default: the first URL]
  --cookie NAME         the cookie that the hub reads [default: __Secure-mercure_access_token]
  --keep-alive-secs N   how long to wait for a comment that keeps an idle stream alive [default: 60]
  --older-secret SECRET a shared secret for tokens of the revision 0.x
  --only N              only the checks of this number; repeatable
  --json                print JSON instead of a table

The revision 1.0 is checked if there is --secret, and 0.x if there is --older-secret. The hub must have a history, let tokens publish
everything, and have no events that matter: the checks publish to topics below https://topics.example/.
The exit code is 1 if a requirement (must) does not hold, and 2 if the checks could not be made.`;

const { values } = parseArgs({
  options: {
    url: { type: 'string', multiple: true, default: [] },
    secret: { type: 'string' },
    issuer: { type: 'string' },
    audience: { type: 'string' },
    cookie: { type: 'string', default: '__Secure-mercure_access_token' },
    'keep-alive-secs': { type: 'string', default: '60' },
    'older-secret': { type: 'string' },
    only: { type: 'string', multiple: true, default: [] },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

if (values.help) {
  console.log(HELP);
  process.exit(0);
}
if (values.url.length === 0) refuse('--url is missing');
for (const url of values.url) if (!URL.canParse(url)) refuse(`--url ${url} is not a URL`);
if (!values.secret && !values['older-secret']) refuse('neither --secret nor --older-secret is given, so no revision can be checked');
if (!(Number(values['keep-alive-secs']) > 0)) refuse(`--keep-alive-secs is ${values['keep-alive-secs']}: give a number of seconds`);
if (values.secret && !values.issuer) refuse('--secret needs --issuer');

function refuse(reason) {
  console.error(`mercure.mjs: ${reason}\n\n${HELP}`);
  process.exit(2);
}

const target = new Target({
  nodes: values.url,
  secret: values.secret,
  issuer: values.issuer,
  audience: values.audience ?? values.url[0],
  cookie: values.cookie,
  keepAliveSecs: Number(values['keep-alive-secs']),
  olderSecret: values['older-secret'],
});

/** Makes a check, and resolves with what came out of it. */
async function outcome(check) {
  try {
    await check.run(target);
    return { result: 'holds' };
  } catch (error) {
    if (error instanceof NotOffered) return { result: 'not offered' };
    if (error instanceof Violation) return { result: 'fails', reason: error.message };
    // The hub closed the connection, or answered something that is no HTTP.
    return { result: 'fails', reason: `${error}${error.cause ? `: ${error.cause}` : ''}` };
  } finally {
    target.close();
  }
}

for (const url of values.url) {
  try {
    await target.ask('GET', '');
  } catch (error) {
    refuse(`there is no hub at ${url}: ${error.cause ?? error}`);
  }
}

const revisions = [
  ...(values.secret ? [['1.0', CURRENT]] : []),
  ...(values['older-secret'] ? [['0.x', OLDER]] : []),
];
const rows = [];
for (const [revision, checks] of revisions) {
  for (const check of checks.filter(({ number }) => values.only.length === 0 || values.only.includes(String(number)))) {
    const row = { number: check.number, revision, level: check.level, title: check.title, ...(await outcome(check)) };
    rows.push(row);
    if (!values.json) console.log(`${line(row)}${row.reason ? `\n      ${row.reason}` : ''}`);
  }
}
if (rows.length === 0) refuse(`--only ${values.only.join(' ')}: there is no such check`);
if (values.json) console.log(JSON.stringify(rows, null, 1));

const failed = rows.filter(({ result, level }) => result === 'fails' && level === 'must').length;
if (!values.json) {
  const held = rows.filter(({ result }) => result === 'holds').length;
  console.log(`\n${rows.length} checks: ${held} hold, ${failed} required ones fail`);
}
// Connections of ended streams would keep the process.
process.exit(failed > 0 ? 1 : 0);

function line({ number, revision, level, title, result }) {
  return `${String(number).padStart(4)}  ${revision}  ${level.padEnd(6)}  ${result.padEnd(11)}  ${title}`;
}
