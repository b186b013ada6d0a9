// What tools/log-messages.mjs takes for a message, and which differences it finds.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { differences, messagesOf, rowsOf } from './log-messages.mjs';

for (const [what, source, expected] of [
  ['a message', 'tracing::warn!("it fails");', 'warn: it fails'],
  ['fields before it', 'tracing::info!(%error, kind = "x", path = %a.b("c", 1), ok = ?d, "it works")', 'info: it works'],
  ['a target', 'tracing::debug!(target: "a::b", "it works")', 'debug: it works'],
  ['values in it', 'tracing::error!("{count} of {} fail: {error:?}", 1)', 'error: … of … fail: …'],
  ['several lines', 'tracing::warn!(\n  a = 1,\n  "one \\\n    line: \\"x\\""\n)', 'warn: one line: "x"'],
  ['a macro that is imported', 'info!(record, "it works")', 'info: it works'],
  ['no text', 'tracing::warn!("{warning}")', 'warn: has no text of its own'],
  ['no level', 'tracing::event!(level, "it works")', 'event: has no level of its own: use the macro of its level'],
  ['the body of another macro', 'tracing::info!(a = 1, $($more)*)', undefined],
  ['a comment', '    // tracing::warn!("it fails")', undefined],
  ['a name that ends like a macro', 'my_warn!("it fails")', undefined],
]) {
  test(what, () => {
    const found = messagesOf(source).map(({ level, message, problem }) => `${level}: ${message ?? problem}`);
    assert.deepEqual(found, expected === undefined ? [] : [expected]);
  });
}

test('a message without a row, a row without a message and a row that is there twice are found', () => {
  const row = (message) => `| \`${message}\` | what | do |`;
  const page = `# Page\n${row('before')}\n## Warn\n${row('a')}\n${row('gone')}\n${row('a')}\n## Info\n${row('b')}\n## Other\n${row('c')}`;
  const messages = ['a', 'b', 'new'].map((message, line) => ({ file: 'f.rs', line, level: message === 'b' ? 'info' : 'warn', message }));
  const found = differences([...messages, { file: 'f.rs', line: 9, level: 'warn', problem: 'has no text of its own' }], rowsOf(page));
  assert.equal(found.length, 4, found.join('\n'));
  for (const [at, part] of ['warn of docs/reference/log-messages.md: new', 'f.rs:9: a message has no text', 'as warn: gone', 'twice: a'].entries()) {
    assert.ok(found[at].includes(part), found[at]);
  }
  const elsewhere = [{ file: 'f.rs', line: 1, level: 'error', message: 'a' }];
  assert.equal(differences(elsewhere, rowsOf('## Warn\n| `a` | what | do |')).length, 2, 'the level counts');
});
