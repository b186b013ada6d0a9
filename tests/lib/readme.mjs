// The README, as something to be run.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const readme = readFileSync(fileURLToPath(new URL('../../README.md', import.meta.url)), 'utf8');

/** The first block of code in `language` after `words`. */
export function snippet(words, language) {
  const from = readme.indexOf(words);
  const block = readme.slice(from).match(new RegExp('^```' + language + '\n([^]*?)^```$', 'm'));
  if (from < 0 || !block) throw new Error(`the README has no ${language} after ${JSON.stringify(words)}`);
  return block[1];
}
