// Code blocks of the documents, to be run.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** A document by its path in the repository, as in `docs/scaling-out.md`. */
export function read(path) {
  return readFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), 'utf8');
}

/** The first block of code in `language` after `words`. */
export function snippet(document, words, language) {
  const from = document.indexOf(words);
  const block = document.slice(from).match(new RegExp('^```' + language + '\n([^]*?)^```$', 'm'));
  if (from < 0 || !block) throw new Error(`there is no ${language} after ${JSON.stringify(words)}`);
  return block[1];
}

/** Every block of code, as `{ language, code }`. */
export function blocks(document) {
  return [...document.matchAll(/^```(\w*)\n([^]*?)^```$/gm)].map(([, language, code]) => ({ language, code }));
}
