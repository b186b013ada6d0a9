// Compares the messages that a hub logs with docs/reference/log-messages.md: each has a row in the section of its level.
//
//     node tools/log-messages.mjs
//
// A message is the text of a macro of `tracing` in the crates of the program. What a macro puts into it is written as `…`.

import { readFileSync, readdirSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const PAGE = 'docs/reference/log-messages.md';
const LEVELS = ['error', 'warn', 'info', 'debug', 'trace'];
/** Crates that are no part of a hub. */
const OTHER_CRATES = ['bench', 'delayed-log', 'replay-to-live', 'testkit'].map((name) => `tidings-${name}`);

/** Every message of a source in Rust: `{ level, message, line }`, with `problem` in place of `message` where there is no text. */
export function messagesOf(source) {
  const found = [];
  for (const { index, 0: call, 1: level } of source.matchAll(/\b(?:tracing::)?(error|warn|info|debug|trace|event)!\(/g)) {
    const line = source.slice(0, index).split('\n').length;
    const text = source.slice(source.lastIndexOf('\n', index) + 1, index);
    if (/^\s*\/\//.test(text)) continue;
    const { texts, isOfMacro } = argumentsOf(source, index + call.length);
    // The messages of a macro are those of its calls.
    if (isOfMacro) continue;
    const message = texts.at(-1)?.replace(/\{[^{}]*\}/g, '…');
    if (level === 'event') found.push({ level, line, problem: 'has no level of its own: use the macro of its level' });
    else if (message === undefined || /^…*$/.test(message)) found.push({ level, line, problem: 'has no text of its own' });
    else found.push({ level, line, message });
  }
  return found;
}

/**
 * Of a macro whose parenthesis has just been opened: the texts among its arguments, but for values of fields, and whether it is the body
 * of another macro, whose arguments it passes on.
 */
function argumentsOf(source, begin) {
  const texts = [];
  let depth = 1;
  let at = begin;
  for (; depth > 0 && at < source.length; at += 1) {
    const character = source[at];
    if (character === '"') {
      let end = at + 1;
      while (source[end] !== '"') end += source[end] === '\\' ? 2 : 1;
      const isField = /[=:]\s*[%?]?$/.test(source.slice(begin, at));
      if (depth === 1 && !isField) texts.push(unescaped(source.slice(at + 1, end)));
      at = end;
    } else if ('([{'.includes(character)) depth += 1;
    else if (')]}'.includes(character)) depth -= 1;
  }
  return { texts, isOfMacro: source.slice(begin, at).includes('$(') };
}

/** A text as Rust reads it: a backslash at the end of a line skips the line feed and the indentation. */
function unescaped(text) {
  return text.replace(/\\\n\s*/g, '').replace(/\\(["\\])/g, '$1');
}

/** The rows of the page: `{ level, message, line }`. */
export function rowsOf(page) {
  const rows = [];
  let level;
  for (const [index, line] of page.split('\n').entries()) {
    const heading = line.match(/^## (.*)$/)?.[1].toLowerCase();
    if (heading) level = LEVELS.find((known) => known === heading);
    // A message with backticks stands between two of them.
    const cells = line.match(/^\| (?:`([^`]+)`|`` (.+?) ``) \| \S.* \| \S.* \|$/);
    if (level && cells) rows.push({ level, message: cells[1] ?? cells[2], line: index + 1 });
  }
  return rows;
}

/** What differs between the messages and the rows, each in a sentence. */
export function differences(messages, rows) {
  const key = ({ level, message }) => `${level}: ${message}`;
  const [logged, described] = [messages, rows].map((all) => new Set(all.map(key)));
  const missing = messages.filter((message) => message.problem || !described.has(key(message)));
  return [
    ...missing.map(({ file, line, level, message, problem }) =>
      `${file}:${line}: ${problem ? `a message ${problem}` : `no row in the section ${level} of ${PAGE}: ${message}`}`),
    ...rows.filter((row) => !logged.has(key(row))).map(({ line, level, message }) => `${PAGE}:${line}: nothing logs this as ${level}: ${message}`),
    ...rows.filter((row, at) => rows.findIndex((other) => key(other) === key(row)) < at).map(({ line, message }) => `${PAGE}:${line}: twice: ${message}`),
  ];
}

function sources() {
  const crates = readdirSync(join(ROOT, 'crates')).filter((name) => !OTHER_CRATES.includes(name));
  return crates.flatMap((name) => {
    const folder = join(ROOT, 'crates', name, 'src');
    const files = readdirSync(folder, { recursive: true }).filter((file) => file.endsWith('.rs'));
    return files.map((file) => relative(ROOT, join(folder, file)));
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const messages = sources().flatMap((file) => messagesOf(readFileSync(join(ROOT, file), 'utf8')).map((message) => ({ file, ...message })));
  const problems = differences(messages, rowsOf(readFileSync(join(ROOT, PAGE), 'utf8')));
  for (const problem of problems) console.error(problem);
  console.log(`log messages: ${messages.length} calls, ${problems.length} to change`);
  process.exitCode = problems.length > 0 ? 1 : 0;
}
