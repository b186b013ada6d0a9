// Rejects words that are never right in this repository, in prose, identifiers and file names, and says what to write instead: one
// word for each concept, and the one that the field uses (docs/glossary.md). `make lint` runs it.
//
//     node tools/words.mjs            everything that git tracks
//     node tools/words.mjs FILE…      these files

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const REPOSITORY = fileURLToPath(new URL('..', import.meta.url));

/** Words and what to write instead. Identifiers are split at underscores and capitals. */
const WORDS = {
  bell: 'notifier',
  bells: 'notifiers',
  companion: 'component',
  companions: 'components',
  complaint: 'warning; in code ThrottledLog',
  complaints: 'warnings; in code ThrottledLog',
  desk: 'presence registry',
  door: 'entry point; in code what it is (Authorizer, Publisher, Sink)',
  doors: 'entry points',
  face: 'API (native API, Mercure API)',
  faces: 'APIs',
  farewell: 'closing frames, rejected connection',
  farewells: 'closing frames, rejected connections',
  heard: 'received',
  hear: 'receive',
  hears: 'receives',
  newcomer: 'new subscriber, new connection, new user',
  newcomers: 'new subscribers, new connections, new users',
  overhear: 'observe',
  owed: 'pending',
  pour: 'ingest',
  pours: 'ingests',
  poured: 'ingested',
  roster: 'presence list',
  rosters: 'presence lists',
  salvage: 'repair',
  salvaged: 'repaired',
  salvages: 'repairs',
  seam: 'replay-to-live (test)',
  surroundings: 'environment',
  told: 'notified (a subscriber), reported (a gap)',
  untold: 'unreported',
  wandering: 'failover (test)',
  wary: 'lease health',
  whoever: 'the thing itself: the subscriber, the client, the publisher',
};

/** Phrases, in prose. */
const PHRASES = [
  [/\blast words\b/i, 'closing frames'],
  [/\bwell-kept\b/i, 'well-maintained'],
  [/\blives here\b/i, 'is in this crate, in this folder'],
  [/\bthe house\b/i, 'the code base, the crates'],
];

/** What is not ours to word, or is about these words. */
const EXEMPT = [
  /^(Cargo\.lock|tests\/package-lock\.json|LICENSE-.*)$/,
  /^tools\/words\.mjs$/,
  /\.(png|ico|pem)$/,
];

function problems(text) {
  const found = [];
  for (const [phrase, instead] of PHRASES) {
    const match = text.match(phrase);
    if (match) found.push([match[0], instead]);
  }
  for (const word of text.match(/[A-Z]?[a-z]+|[A-Z]+(?![a-z])/g) ?? []) {
    const instead = Object.hasOwn(WORDS, word.toLowerCase()) && WORDS[word.toLowerCase()];
    if (instead) found.push([word, instead]);
  }
  return found;
}

const tracked = () => execFileSync('git', ['ls-files'], { cwd: REPOSITORY, encoding: 'utf8' }).split('\n').filter(Boolean);
const named = process.argv.slice(2);
const files = (named.length > 0 ? named : tracked()).filter((file) => !EXEMPT.some((pattern) => pattern.test(file)));

let count = 0;
for (const file of files.filter((file) => existsSync(`${REPOSITORY}/${file}`))) {
  const report = (where, text) => {
    for (const [word, instead] of problems(text)) {
      count += 1;
      console.log(`${where}: "${word}": write ${instead}`);
    }
  };
  report(file, file);
  readFileSync(`${REPOSITORY}/${file}`, 'utf8').split('\n').forEach((line, index) => report(`${file}:${index + 1}`, line));
}
console.log(count === 0 ? `words: ${files.length} files, none of the words that are never right` : `words: ${count} to change`);
process.exit(count === 0 ? 0 : 1);
