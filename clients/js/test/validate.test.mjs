// Validators that implement Standard Schema.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { validate } from '../dist/validate.js';

/** A schema whose values pass this check. */
function schema(check, message) {
  return { '~standard': { version: 1, vendor: 'test', validate: (value) => (check(value) ? { value } : { issues: [{ message }] }) } };
}

const parse = validate({ orders: schema(({ order }) => order > 0, 'no order'), '*': schema((value) => typeof value === 'string', 'no text') });

test('data is what the schema of its topic lets through, or that of all others', () => {
  assert.deepEqual(parse('{"order":17}', 'orders'), { order: 17 });
  assert.equal(parse('"hello"', 'chat'), 'hello');
  assert.equal(parse('"hello"', 'toString'), 'hello');
});

test('everything else is an error that says why', () => {
  assert.throws(() => parse('{"order":0}', 'orders'), /no order/);
  assert.throws(() => parse('17', 'chat'), /no text/);
  assert.throws(() => parse('{', 'orders'), SyntaxError);
  assert.throws(() => validate({})('1', 'chat'), /no schema for chat/);
  const later = { '~standard': { validate: async (value) => ({ value }) } };
  assert.throws(() => validate({ chat: later })('1', 'chat'), /asynchronously/);
});
