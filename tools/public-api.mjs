// The public API of a crate as text, one line for each item, from what `cargo doc` has written. `make doc` compares it with the
// file in docs/public-api, so that each change of the API is a diff, and can be described in CHANGELOG.md. It also fails if no
// example of the documentation calls a function.
//
//     node tools/public-api.mjs            compares
//     node tools/public-api.mjs --write    writes
//
// rustdoc has the same as JSON, in nightly toolchains only.

import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const REPOSITORY = fileURLToPath(new URL('..', import.meta.url));
/** The crates that applications use. */
const CRATES = ['tidings'];
/** Pages of items; a page of a module lists what the pages of its items say. */
const ITEM = /^(?:struct|enum|union|trait|fn|type|constant|static|macro|attr|derive)\.(.+)\.html$/;
/** What every type has anyway begins here. */
const ANYWAY = /<h2 id="(?:synthetic|blanket)-implementations"/;
const TRAITS = '<h2 id="trait-implementations"';
const ENTITIES = { lt: '<', gt: '>', amp: '&', quot: '"', '#39': "'", '#x27': "'", nbsp: ' ' };

/** The text of a piece of HTML, on one line. */
export function textOf(html) {
  const text = html.replace(/<div class="where">/g, ' ').replace(/<[^>]*>| ⓘ/g, '').replace(/&(#?\w+);/g, (entity, name) => ENTITIES[name] ?? entity);
  return text.replace(/\s+/g, ' ').trim();
}

/** What the page of an item declares: the item, its methods, and the traits that it implements. */
export function declarations(path, page) {
  const html = page.split(ANYWAY)[0];
  const [own, traits = ''] = html.split(TRAITS);
  const all = (text, pattern) => [...text.matchAll(pattern)].map(([, found]) => textOf(found));
  return [
    ...all(own, /<pre class="rust item-decl"><code>([\s\S]*?)<\/code><\/pre>/g).slice(0, 1).map((item) => `${path}: ${item}`),
    ...all(own, /<section id="[^"]*" class="method"[^>]*>[\s\S]*?<h4 class="code-header">([\s\S]*?)<\/h4>/g).map((method) => `${path}: ${method}`),
    ...all(traits, /<section id="impl-[^"]*" class="impl"[^>]*>[\s\S]*?<h3 class="code-header">([\s\S]*?)<\/h3>/g).map((item) => `${path}: ${item}`),
  ];
}

/** The functions among these declarations that no example in these pages calls. */
export function withoutExample(lines, pages) {
  const examples = pages.flatMap((page) => [...page.matchAll(/<pre class="rust rust-example-rendered">([\s\S]*?)<\/pre>/g)].map(([, code]) => textOf(code)));
  const words = new Set(examples.join(' ').match(/\w+/g));
  return lines.filter((line) => !/: impl\b/.test(line) && line.match(/\bfn (\w+)/) && !words.has(line.match(/\bfn (\w+)/)[1]));
}

/** The public API of a crate, sorted, and what of it has no example. */
function publicApi(crate) {
  const root = join(process.env.CARGO_TARGET_DIR ?? join(REPOSITORY, 'target'), 'doc', crate.replaceAll('-', '_'));
  const [lines, pages] = [[], []];
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith('.html')) continue;
    const page = readFileSync(join(entry.parentPath, entry.name), 'utf8');
    pages.push(page);
    const name = entry.name.match(ITEM)?.[1];
    const module = relative(dirname(root), entry.parentPath).split(sep).join('::');
    if (name) lines.push(...declarations(`${module}::${name}`, page));
  }
  if (lines.length === 0) throw new Error(`${root} has no items: run cargo doc first`);
  return { now: `${[...new Set(lines)].sort().join('\n')}\n`, missing: withoutExample(lines, pages) };
}

function main() {
  for (const crate of CRATES) {
    const file = join(REPOSITORY, 'docs/public-api', `${crate}.txt`);
    const { now, missing } = publicApi(crate);
    if (missing.length > 0) {
      console.error(`No example in the documentation of ${crate} calls:\n${missing.join('\n')}`);
      process.exitCode = 1;
    }
    if (process.argv.includes('--write')) {
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, now);
      continue;
    }
    const [before, after] = [readFileSync(file, 'utf8'), now].map((text) => new Set(text.trim().split('\n')));
    const changes = [...[...before].filter((line) => !after.has(line)).map((line) => `- ${line}`), ...[...after].filter((line) => !before.has(line)).map((line) => `+ ${line}`)];
    if (changes.length === 0) continue;
    console.error(`The public API of ${crate} differs from ${relative(REPOSITORY, file)}:\n${changes.join('\n')}`);
    console.error('If that is what you want, say so in CHANGELOG.md and run `make doc && node tools/public-api.mjs --write`.');
    process.exitCode = 1;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
