// What tools/cycles.mjs takes for a cycle, and what not.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';

import { cyclesOf } from './cycles.mjs';

/** The cycles of a crate with these files: names without folder and ending. */
function found(files) {
  const folder = mkdtempSync(path.join(tmpdir(), 'cycles-'));
  try {
    for (const [name, text] of Object.entries(files)) {
      const file = path.join(folder, 'src', `${name}.rs`);
      mkdirSync(path.dirname(file), { recursive: true });
      writeFileSync(file, text);
    }
    const short = (file) => path.relative(path.join(folder, 'src'), file).replace(/\.rs$/, '');
    return cyclesOf(folder).map(({ files }) => files.map(short));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const CYCLE = [['a', 'b']];

for (const [what, files, expected] of [
  ['two files that import from each other', { a: 'use crate::b::B; pub struct A;', b: 'use crate::a::A; pub struct B;' }, CYCLE],
  ['paths outside of imports', { a: 'fn f() -> crate::b::B { todo!() }', b: 'pub struct B; fn g() { crate::a::f(); }' }, CYCLE],
  ['lists of imports', { a: 'use crate::{b::{self, B}}; pub fn f(_: B) { b::g() }', b: 'use super::a::f; pub struct B;' }, CYCLE],
  ['renamed imports', { a: 'use crate::b::B as C; pub struct A;', b: 'use crate::a::A as C; pub struct B;' }, CYCLE],
  ['everything of a module', { a: 'use crate::b::*; pub struct A;', b: 'use crate::a::*;' }, CYCLE],
  ['a file that an attribute names', { lib: '#[path = "far/c.rs"]\nmod a;\nmod b;', 'far/c': 'use crate::b::B; pub struct A;', b: 'use crate::a::A; pub struct B;' }, [['b', 'far/c']]],
  ['one direction', { a: 'use crate::b::B;', b: 'pub struct B;' }, []],
  ['comments and strings', { a: 'use crate::b::B; pub struct A;', b: '// crate::a::A "\n/* /* */ crate::a::A */\npub struct B; const C: &str = "crate::a::A"; const D: &str = r#"" crate::a::A"#; const E: char = \'"\';' }, []],
  ['tests', { a: 'use crate::b::B; pub struct A;', b: 'pub struct B;\n#[cfg(test)]\nuse crate::a::A;\n#[cfg(test)]\nmod tests { use crate::a::A; fn f() { crate::a::g(); } }' }, []],
]) {
  test(what, () => assert.deepEqual(found({ lib: 'mod a; mod b;', ...files }), expected));
}

for (const [what, files, expected] of [
  ['a parent that uses an item of its child, which uses one of the parent', { a: 'mod b; pub struct A(b::B);', 'a/b': 'use super::A; pub struct B;' }, [['a', 'a/b']]],
  ['a parent that only hands on an item of its child', { a: 'mod b; pub use b::B; pub struct A;', 'a/b': 'use super::A; pub struct B;' }, []],
  ['a parent that hands on an item and uses it', { a: 'mod b; pub use b::B; pub struct A(B);', 'a/b': 'use super::A; pub struct B;' }, [['a', 'a/b']]],
  ['a child that uses what its parent imported', { a: 'mod b; mod c; use self::{b::B, c::C};', 'a/b': 'use super::C; pub struct B;', 'a/c': 'pub struct C;' }, []],
  ['a module within a file', { a: 'mod b; use b::B; mod inner { pub struct I; }', 'a/b': 'use super::inner::I; pub struct B;' }, [['a', 'a/b']]],
  ['what another crate defines', { a: 'mod b; use std::fmt; use b::B;', 'a/b': 'use super::fmt; pub struct B(fmt::Error);' }, []],
]) {
  test(what, () => assert.deepEqual(found({ lib: 'mod a;', ...files }), expected));
}
