// The pages of the documentation site: what is in docs/ and the documents of the top folder, with links that hold on the site, and
// the files that they link to. It knows nothing of what makes HTML of them (decision 21).

import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, extname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';

export const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));

/** Documents outside of docs/ that are pages. */
const PAGES = {
  'README.md': 'index.md',
  'ARCHITECTURE.md': 'architecture.md',
  'CHANGELOG.md': 'changelog.md',
  'CONTRIBUTING.md': 'contributing.md',
  'SECURITY.md': 'security.md',
};
/** Folders whose files are on the site as well, since readers copy them. */
const PUBLISHED = /^(deploy|examples|tests\/adopt|tests\/tickets)(\/|$)|^openapi\.yaml$/;
/** The page that lists the records of docs/decisions. */
const DECISIONS = 'decisions/index.md';
const LANGUAGES = { '': 'text', '.mjs': 'js', '.cfg': 'text', '.tpl': 'text', '.toml': 'toml', '.yml': 'yaml', '.service': 'ini', '.socket': 'ini' };

/** Writes all pages into the folder `to`, which then is what a generator of sites takes. */
export function writePages(to) {
  const tracked = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { cwd: REPOSITORY, encoding: 'utf8' });
  const site = new Site(to, tracked.split('\n').filter(Boolean));
  for (const path of site.tracked) {
    if (path in PAGES) site.add(path, PAGES[path]);
    else if (path.startsWith('docs/')) site.add(path, path.slice('docs/'.length));
  }
  site.write(DECISIONS, decisions(site.tracked));
  site.write('style.css', readFileSync(new URL('style.css', import.meta.url)));
  // Pages for files may link to further files.
  for (const path of site.linked) site.addSource(path);
}

class Site {
  #to;
  /** Files and folders of the repository that pages link to, as they are found. */
  linked = new Set();

  constructor(to, tracked) {
    this.#to = to;
    this.tracked = tracked;
  }

  write(page, content) {
    mkdirSync(dirname(join(this.#to, page)), { recursive: true });
    writeFileSync(join(this.#to, page), content);
  }

  add(path, page) {
    if (extname(path) === '.md') this.write(page, this.#page(read(path), path, page));
    else this.#copy(path, page);
  }

  /** A linked file as it is, or a page with all files of a linked folder. */
  addSource(path) {
    if (!statSync(join(REPOSITORY, path)).isDirectory()) return this.#copy(path, `source/${path}`);
    const page = `source/${path}/index.md`;
    const files = this.tracked.filter((file) => file.startsWith(`${path}/`) && !basename(file).startsWith('.'));
    const shown = files.map((file) => {
      const name = file.slice(path.length + 1);
      if (extname(file) === '.md') return this.#page(read(file), file, page).replace(/^# .*\n/, '');
      return `## ${name}\n\n${fenced(read(file), language(file))}`;
    });
    this.write(page, `---\nsearch:\n  exclude: true\n---\n\n# ${path}\n\n${shown.join('\n\n')}\n`);
  }

  #copy(path, page) {
    mkdirSync(dirname(join(this.#to, page)), { recursive: true });
    cpSync(join(REPOSITORY, path), join(this.#to, page));
  }

  #page(text, path, page) {
    return outsideOfCode(tabs(text), (prose) => separated(prose).replace(/(!?)\[((?:[^[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)/g, (all, image, words, target) => {
      if (/^([a-z]+:|#)/.test(target)) return all;
      const [file, anchor] = target.split('#');
      const found = this.#onSite(posix.join(posix.dirname(path), file).replace(/\/$/, ''));
      if (!found) return words;
      const link = posix.relative(posix.dirname(page), found) || posix.basename(found);
      return `${image}[${words}](${link}${anchor ? `#${anchor}` : ''})`;
    }));
  }

  /** Where a file or a folder of the repository is on the site. */
  #onSite(path) {
    if (path in PAGES) return PAGES[path];
    if (path === 'docs/decisions') return DECISIONS;
    if (path.startsWith('docs/')) return path.slice('docs/'.length);
    if (!PUBLISHED.test(path)) return undefined;
    this.linked.add(path);
    return statSync(join(REPOSITORY, path)).isDirectory() ? `source/${path}/index.md` : `source/${path}`;
  }
}

function read(path) {
  return readFileSync(join(REPOSITORY, path), 'utf8');
}

/** The list of all decisions, by their titles. */
function decisions(tracked) {
  const records = tracked.filter((path) => /^docs\/decisions\/\d+-.*\.md$/.test(path)).sort();
  const rows = records.map((path) => {
    const [, number, title] = read(path).match(/^# (\d+)\. (.*)$/m);
    return `| ${number} | [${title}](${basename(path)}) |`;
  });
  return `# Decisions\n\nWhat is costly to reverse: the context, the choice, its cost, and what was measured.\n\n| | |\n|---|---|\n${rows.join('\n')}\n`;
}

/**
 * Blocks of code that follow each other, each behind a paragraph that begins with the name of a language or a library in bold, become
 * tabs. In the repository they are read one below the other.
 */
function tabs(text) {
  const block = /^\*\*([^*\n]+)\*\*([^\n]*)\n\n?(```\w+\n[^]*?^```)$/.source;
  const several = new RegExp(`(?:${block.replaceAll(/\((?!\?)/g, '(?:')}\n{1,2}){2,}`, 'gm');
  return text.replace(several, (all) => {
    const tab = (_, name, rest, code) => `=== "${name}"\n\n${indented(`${rest.replace(/^[,:]? */, '')}\n\n${code}`.trim())}\n`;
    return `${all.trimEnd().replaceAll(new RegExp(block, 'gm'), tab)}\n\n`;
  });
}

/** Lists and tables need an empty line in front of them here, and none on the pages of a code host. */
function separated(prose) {
  return prose.replace(/^([^\n\s|>#*-][^\n]*)\n(?=(?:[-*] |\d+\. |\|))/gm, (all, line) => (/^\d+\. /.test(line) ? all : `${line}\n\n`));
}

function outsideOfCode(text, change) {
  return text.split(/(^ *```[^]*?^ *```$)/m).map((part, index) => (index % 2 ? part : change(part))).join('');
}

function indented(text) {
  return text.replace(/^(?=.)/gm, '    ');
}

function fenced(text, name) {
  return `\`\`\`\`${name}\n${text.trimEnd()}\n\`\`\`\``;
}

function language(path) {
  const extension = extname(path);
  return LANGUAGES[extension] ?? (extension.slice(1) || 'text');
}
