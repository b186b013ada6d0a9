// The pages of the reference that the program itself says.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { reference } from '../../tools/reference.mjs';
import { read } from '../lib/document.mjs';
import { built } from '../lib/program.mjs';

for (const [path, text] of Object.entries(reference(built('tidings')))) {
  test(`${path} is what the program says of itself: otherwise run make reference`, () => assert.equal(read(path), text));
}
