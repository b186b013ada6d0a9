// What tools/public-api.mjs reads in the pages of rustdoc.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { declarations, textOf, withoutExample } from './public-api.mjs';

const PAGE = `<pre class="rust item-decl"><code>pub struct Hub { <span class="comment">/* private fields */</span> }</code></pre>
<h2 id="implementations"></h2><section id="impl-Hub" class="impl"><h3 class="code-header">impl Hub</h3></section>
<section id="method.close" class="method"><a class="src">Source</a><h4 class="code-header">pub fn <a>close</a>(&amp;self) -&gt; u8<div class="where">where
    Self: Sized,</div></h4></section>
<h2 id="trait-implementations"></h2><section id="impl-Clone-for-Hub" class="impl"><h3 class="code-header">impl Clone for Hub</h3></section>
<section id="method.clone" class="method trait-impl"><h4 class="code-header">fn clone(&amp;self) -&gt; Hub</h4></section>
<h2 id="synthetic-implementations"></h2><section id="impl-Send-for-Hub" class="impl"><h3 class="code-header">impl Send for Hub</h3></section>`;

test('an item, its methods and its traits are listed, and nothing that every type has', () => {
  assert.deepEqual(declarations('tidings::Hub', PAGE), [
    'tidings::Hub: pub struct Hub { /* private fields */ }',
    'tidings::Hub: pub fn close(&self) -> u8 where Self: Sized,',
    'tidings::Hub: impl Clone for Hub',
  ]);
});

test('a function that no example calls is found', () => {
  const lines = ['t::Hub: pub fn close(&self)', 't::Hub: pub fn open() -> Hub', 't::Hub: impl Fn for Hub'];
  assert.deepEqual(withoutExample(lines, ['<div><pre class="rust rust-example-rendered"><code>hub.<span>open</span>()</code></pre></div><p>close</p>']), [lines[0]]);
});

test('text has no tags and no entities', () => {
  assert.equal(textOf('fn <a href="x">f</a>(&amp;self)\n  -&gt; &lt;T&gt; ⓘ'), 'fn f(&self) -> <T>');
});
