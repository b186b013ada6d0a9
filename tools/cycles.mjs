// Finds import cycles between the files of each Rust crate: where a reader cannot read one file before the other. `make lint` runs it.
//
//     node tools/cycles.mjs            every crate of the workspace
//     node tools/cycles.mjs FOLDER…    these crates
//
// A file needs another if it names an item that is defined there: by a path that begins with `crate`, `super`, `self` or the name of a
// module, in a `use` or anywhere else. Paths are followed through `use` to the file that defines the item. So these are no cycles:
//
// - A parent that declares `mod child;` and hands on `pub use child::Item;` needs the child only if its own code uses the item.
// - A child that imports from its parent what the parent imported itself needs the file that defines it, not the parent.
//
// What is compiled for tests only does not count: tests may name everything. Method calls name no file and do not count either.

import { existsSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const REPOSITORY = fileURLToPath(new URL('..', import.meta.url));

/** Words that begin an item whose name follows. */
const ITEMS = new Set(['fn', 'struct', 'enum', 'union', 'trait', 'type', 'const', 'static']);

/** The words and marks of a source text with their lines, without comments; strings are one mark each. */
function tokens(text) {
  const pattern =
    /\/\/[^\n]*|\/\*|(?:b|c|br|cr|r)?(?:"|r?#+")|b?'(?:\\(?:u\{[^}]*\}|x..|.)|[^'\\])'|'[A-Za-z_]\w*|(?:r#)?[A-Za-z_]\w*|\d[\w.]*|::|\s+|[^]/gy;
  const found = [];
  let line = 1;
  for (let match; (match = pattern.exec(text)); ) {
    let [word] = match;
    if (word === '/*') {
      // Comments nest.
      for (let depth = 1; depth > 0 && pattern.lastIndex < text.length; pattern.lastIndex += 1) {
        const two = text.substr(pattern.lastIndex, 2);
        if (two === '/*' || two === '*/') {
          depth += two === '/*' ? 1 : -1;
          pattern.lastIndex += 1;
        }
      }
      word = text.slice(match.index, pattern.lastIndex);
    } else if (word.endsWith('"') && !word.startsWith('//')) {
      const hashes = word.match(/#*/g).join('');
      if (hashes || /^[bc]?r/.test(word)) {
        const end = text.indexOf(`"${hashes}`, pattern.lastIndex);
        pattern.lastIndex = end + 1 + hashes.length;
      } else {
        while (text[pattern.lastIndex] !== '"') pattern.lastIndex += text[pattern.lastIndex] === '\\' ? 2 : 1;
        pattern.lastIndex += 1;
      }
      word = text.slice(match.index, pattern.lastIndex);
      found.push({ word: '""', text: word, line });
    } else if (!/^(\/\/|\s)/.test(word)) {
      found.push({ word: word.replace(/^r#/, ''), line });
    }
    line += word.split('\n').length - 1;
  }
  return found;
}

/** The index behind the bracket that closes the one at `index`. */
function behindBracket(list, index) {
  let depth = 0;
  for (; index < list.length; index += 1) {
    if ('([{'.includes(list[index].word)) depth += 1;
    if (')]}'.includes(list[index].word)) depth -= 1;
    if (depth === 0) return index + 1;
  }
  return index;
}

/** The index behind the item at `index`: its semicolon, or its body. */
function behindItem(list, index) {
  for (; index < list.length; index += 1) {
    const { word } = list[index];
    if (word === ';' || word === ',') return index + 1;
    if (word === '}') return index;
    if (word === '{') {
      index = behindBracket(list, index);
      return list[index]?.word === ';' ? index + 1 : index;
    }
    if (word === '(' || word === '[') index = behindBracket(list, index) - 1;
  }
  return index;
}

/** The paths of a `use`, which begins at `index`, as [{ path, name, line }]; `*` is a name. */
function useTree(list, index, prefix, found) {
  const segments = [...prefix];
  for (; index < list.length; index += 1) {
    const { word, line } = list[index];
    if (word === '{') {
      index += 1;
      while (list[index].word !== '}') {
        index = useTree(list, index, segments, found);
        if (list[index].word === ',') index += 1;
      }
      return index + 1;
    }
    if (word === '::') continue;
    if (word === 'as') {
      found.at(-1).name = list[index + 1].word;
      return index + 2;
    }
    if (word === ',' || word === ';' || word === '}') return index;
    segments.push(word);
    if (list[index + 1]?.word !== '::') {
      const item = word === 'self' ? segments.slice(0, -1) : segments;
      found.push({ path: item, name: item.at(-1), line });
    }
  }
  return index;
}

/** A module: where it is, what it declares, what it imports and which paths its code names. */
function newModule(file, parent) {
  return { file, parent, children: new Map(), defined: new Set(), imports: [], paths: [], words: new Set() };
}

/** Reads a file into a module, and the files of its child modules. `folder` is where those are. */
function readModule(module, folder) {
  const list = tokens(readFileSync(module.file, 'utf8'));
  let current = module;
  const open = [];
  let depth = 0;
  let exported = false;
  let attributePath;
  for (let index = 0; index < list.length; ) {
    const { word, line } = list[index];
    const next = list[index + 1]?.word;
    if (word === '#' && (next === '[' || (next === '!' && list[index + 2]?.word === '['))) {
      const end = behindBracket(list, index + (next === '!' ? 2 : 1));
      const words = list.slice(index, end);
      const attribute = words.map((token) => token.word).join('');
      index = end;
      if (/^#\[(cfg\((test\)|all\(test,)|test\]|\w+::test)/.test(attribute)) {
        while (list[index]?.word === '#') index = behindBracket(list, index + 1);
        index = behindItem(list, index);
      }
      if (attribute.startsWith('#[path=')) attributePath = words.find(({ text }) => text).text.slice(1, -1);
      continue;
    }
    if (word === 'pub') {
      exported = true;
      index += 1;
      if (list[index].word === '(' && ['crate', 'super', 'self', 'in'].includes(list[index + 1].word)) {
        index = behindBracket(list, index);
      }
      continue;
    }
    if (word === 'use' && next !== '<') {
      const found = [];
      index = useTree(list, index + 1, [], found) + 1;
      for (const use of found) current.imports.push({ ...use, exported });
    } else if (word === 'mod' && /^\w+$/.test(next ?? '')) {
      const child = newModule(current.file, current);
      current.children.set(next, child);
      if (list[index + 2].word === '{') {
        open.push({ outer: current, depth, name: next });
        current = child;
        depth += 1;
      } else {
        const inside = path.join(folder, ...open.map(({ name }) => name), next);
        const named = attributePath && path.resolve(path.dirname(module.file), attributePath);
        child.file = [named ?? `${inside}.rs`, path.join(inside, 'mod.rs')].find((file) => existsSync(file));
        if (!child.file) throw new Error(`${module.file}:${line}: there is no file of \`mod ${next}\``);
        readModule(child, named ? path.dirname(named) : inside);
      }
      index += 3;
    } else if (/^[A-Za-z_]\w*$/.test(word)) {
      const segments = [word];
      let end = index + 1;
      while (list[end]?.word === '::' && /^\w+$/.test(list[end + 1]?.word ?? '')) {
        segments.push(list[end + 1].word);
        end += 2;
      }
      const isMethod = list[index - 1]?.word === '.';
      if (!isMethod && segments.length > 1) current.paths.push({ path: segments, line });
      if (!isMethod && !ITEMS.has(list[index - 1]?.word)) current.words.add(word);
      if (ITEMS.has(word) && segments.length === 1 && /^\w+$/.test(next ?? '')) current.defined.add(next);
      if (word === 'macro_rules' && next === '!') current.defined.add(list[index + 2].word);
      index = end;
    } else {
      if (word === '{') depth += 1;
      if (word === '}') {
        depth -= 1;
        if (open.length > 0 && open.at(-1).depth === depth) current = open.pop().outer;
      }
      index += 1;
    }
    exported = false;
    attributePath = undefined;
  }
}

function rootOf(module) {
  return module.parent ? rootOf(module.parent) : module;
}

/** The module of which a path names an item, and that item's name; undefined if it is of another crate. A path that ends at a module has
 * no item. `visited` guards against imports that name each other. */
function resolve(module, segments, visited = new Set()) {
  let [first, ...rest] = segments;
  let current = module;
  if (first === 'crate') {
    current = rootOf(module);
  } else if (first === 'self' || first === 'super') {
    current = first === 'self' ? module : module.parent;
    while (rest[0] === 'super') {
      current = current?.parent;
      rest = rest.slice(1);
    }
  } else {
    rest = segments;
    const known = module.children.has(first) || module.imports.some(({ name }) => name === first);
    if (!known) return undefined;
  }
  for (const [place, segment] of rest.entries()) {
    if (!current) return undefined;
    if (current.children.has(segment)) {
      current = current.children.get(segment);
      continue;
    }
    const imported = current.imports.find(({ name }) => name === segment);
    if (!imported || current.defined.has(segment)) return { module: current, item: segment };
    const key = `${current.file} ${segment}`;
    if (visited.has(key)) return undefined;
    visited.add(key);
    // `use a::b;` where `b` is the name that is looked for: the path begins anew, in the module that has the `use`.
    const path = [...imported.path, ...rest.slice(place + 1)];
    const isOwn = imported.path[0] === segment && imported.path.length === 1;
    return isOwn ? undefined : resolve(current, path, visited);
  }
  return current && { module: current };
}

/** All modules below this one and itself. */
function modulesOf(module) {
  return [module, ...[...module.children.values()].flatMap(modulesOf)];
}

/** Which files a file needs and why: Map of file to Map of file to [lines]. */
function needs(root) {
  const graph = new Map();
  const add = (from, to, line, name) => {
    if (!to || to === from) return;
    if (!graph.has(from)) graph.set(from, new Map());
    const edges = graph.get(from);
    if (!edges.has(to)) edges.set(to, []);
    edges.get(to).push(`${line} ${name}`);
  };
  for (const module of modulesOf(root)) {
    for (const { path: segments, name, line, exported } of module.imports) {
      const found = resolve(module, name === '*' ? segments.slice(0, -1) : segments);
      if (!found) continue;
      // Of a module that was imported, the paths below name what is needed of it.
      const isPrefix = !found.item && name !== '*';
      if (isPrefix || (exported && !module.words.has(name))) continue;
      add(module.file, found.module.file, line, segments.join('::'));
    }
    for (const { path: segments, line } of module.paths) {
      const found = resolve(module, segments);
      if (found?.item) add(module.file, found.module.file, line, segments.join('::'));
    }
  }
  return graph;
}

/** Groups of files of which each can be reached from each other. */
function cycles(graph) {
  const reach = (from) => {
    const reached = new Set();
    const open = [from];
    while (open.length > 0) {
      for (const to of graph.get(open.pop())?.keys() ?? []) {
        if (!reached.has(to)) {
          reached.add(to);
          open.push(to);
        }
      }
    }
    return reached;
  };
  const reached = new Map([...graph.keys()].map((file) => [file, reach(file)]));
  const groups = [];
  const grouped = new Set();
  for (const file of graph.keys()) {
    if (grouped.has(file) || !reached.get(file).has(file)) continue;
    const group = [...reached.get(file)].filter((other) => reached.get(other)?.has(file)).sort();
    for (const member of group) grouped.add(member);
    groups.push(group);
  }
  return groups;
}

/** The roots of a package: its library and its programs. */
function rootsOf(folder) {
  const source = path.join(folder, 'src');
  const programs = path.join(source, 'bin');
  const more = existsSync(programs) ? readdirSync(programs).map((name) => path.join(programs, name)) : [];
  return [path.join(source, 'lib.rs'), path.join(source, 'main.rs'), ...more].filter((file) => existsSync(file));
}

/** The import cycles of a package: their files, and why each file needs another. */
export function cyclesOf(folder) {
  return rootsOf(folder).flatMap((file) => {
    const root = newModule(file);
    readModule(root, path.dirname(file));
    const graph = needs(root);
    return cycles(graph).map((files) => ({ files, graph }));
  });
}

function show({ files, graph }) {
  const lines = [`import cycle of ${files.length} files:`];
  for (const from of files) {
    for (const [to, why] of graph.get(from)) {
      if (!files.includes(to)) continue;
      for (const reason of why) {
        const [line, name] = reason.split(' ');
        lines.push(`  ${path.relative(REPOSITORY, from)}:${line}: ${name} (${path.relative(REPOSITORY, to)})`);
      }
    }
  }
  return lines.join('\n');
}

/** The folders of the members that Cargo.toml names. */
function members() {
  const manifest = readFileSync(path.join(REPOSITORY, 'Cargo.toml'), 'utf8');
  const names = [...manifest.match(/^members = \[(.*)\]$/m)[1].matchAll(/"([^"]+)"/g)].map(([, name]) => name);
  return names.flatMap((name) =>
    name.endsWith('/*')
      ? readdirSync(path.join(REPOSITORY, name.slice(0, -2))).map((one) => path.join(name.slice(0, -2), one))
      : [name],
  );
}

function main(chosen) {
  let failed = false;
  for (const folder of (chosen.length > 0 ? chosen : members()).toSorted()) {
    const found = cyclesOf(path.resolve(REPOSITORY, folder));
    if (found.length > 0) {
      failed = true;
      console.error(`${path.basename(folder)}: ${found.map(show).join('\n')}`);
    }
  }
  if (!failed) console.log('cycles: no crate has import cycles');
  return failed ? 1 : 0;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.exit(main(process.argv.slice(2)));
