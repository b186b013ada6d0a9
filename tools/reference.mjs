// Writes the pages of the reference that the program itself says: configuration.md, commands.md, exit-codes.md and metrics.md of
// docs/reference. `make reference` runs it.
// tests/site/reference.test.mjs compares them with the program.
//
//     node tools/reference.mjs PROGRAM

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** All pages, by their paths, as this program describes itself. */
export function reference(program) {
  return {
    'docs/reference/configuration.md': configuration(program),
    'docs/reference/commands.md': commands(program),
    'docs/reference/exit-codes.md': exitCodes(program),
    'docs/reference/metrics.md': metrics(program),
  };
}

const NOTICE = '<!-- Written by `make reference` from the program; change what it says. -->';

function configuration(program) {
  const folder = mkdtempSync(join(tmpdir(), 'tidings-'));
  try {
    run(program, ['config', 'init'], folder);
    const file = readFileSync(join(folder, 'tidings.toml'), 'utf8');
    return `# Configuration

${NOTICE}

\`tidings config init\` writes this file, in which every setting stands with its default, commented out.
A hub reads the file that \`--config\` or \`TIDINGS_CONFIG\` names, or else \`./tidings.toml\`, or else \`/etc/tidings/tidings.toml\`.
Flags override the environment, and the environment overrides the file; \`--retain-bytes\` is \`TIDINGS_RETAIN_BYTES\` and \`retain_bytes\`.
\`tidings serve --check\` checks a configuration and prints the effective one.

\`\`\`toml
${file.trimEnd()}
\`\`\`
`;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function commands(program) {
  const sections = [];
  const describe = (names) => {
    const help = run(program, [...names, '--help']);
    if (names.length > 0) sections.push(`## tidings ${names.join(' ')}\n\n\`\`\`text\n${help.trimEnd()}\n\`\`\``);
    for (const [, name] of subcommands(help).matchAll(/^ {2}([a-z][a-z-]*)\b/gm)) if (name !== 'help') describe([...names, name]);
  };
  describe([]);
  return `# Commands

${NOTICE}

\`tidings completions SHELL\` prints completions, \`tidings man COMMAND\` a manual page.
\`-h\` prints a few words about each option, \`--help\` everything, which is what follows.
[Exit codes](exit-codes.md) have a page of their own.

${sections.join('\n\n')}
`;
}

function metrics(program) {
  return `# Metrics

${NOTICE}

\`/metrics\` answers in the text format of Prometheus (0.0.4), or in OpenMetrics where the \`Accept\` header asks for it.
It is [for operators](../operations.md#addresses).
\`tidings metrics\` prints this page for the installed version.

Every series exists from the start of a hub, with 0 if it counts.
No label has a value that a client chooses, so the number of series depends on the configuration alone.
The values of labels that a section does not list are those of the configuration.

${run(program, ['metrics']).trimEnd()}
`;
}

function exitCodes(program) {
  const help = run(program, ['--help']);
  const listed = help.match(/^Exit codes:\n([^]*)$/m)[1];
  const rows = [...listed.matchAll(/^ {2}(\d+) {2}(.*)$/gm)].map(([, code, meaning]) => `| ${code} | ${meaning} |`);
  return `# Exit codes

${NOTICE}

| code | |
|---|---|
${rows.join('\n')}
| others | \`tidings run\` ends with [the code of its application](../one-process.md#signals-and-the-end) |

Codes 3 and 4 are those of \`publish\`, \`subscribe\`, \`topics\` and \`health\`, which send requests to a hub.
An error is one line on standard error, \`error: …\`, which says what was wrong and what to do.

- \`publish\` sends an event once.
  With \`--idempotency-key\`, and always with \`--lines\` and \`--ndjson\`, it sends it up to four times within 30 seconds before it ends with 4.
- \`subscribe\` ends with 3 if the hub refuses the subscription.
  While the hub cannot be reached it waits and reconnects, so it never ends with 4; Ctrl-C ends it with 0.
- \`topics\` sends each request once, and waits 30 seconds for the answer.
- \`health\` ends with 0 only if the hub is ready.
  A hub that is not ready, or does not answer within 5 seconds, is 4.
  Docker and Kubernetes take every code but 0 for a failure.
- A command whose standard output is closed by its reader, as \`head\` does, ends with 0, except \`publish --lines\` and \`--ndjson\`, which then leave lines unpublished, and end with 1.

In a script:

\`\`\`sh
tidings publish orders '{"paid":42}' --idempotency-key "$ORDER"
case $? in
  0) ;;
  4) echo "try again later, with the same key" ;;
  *) echo "give up: the reason is on standard error" ;;
esac
\`\`\`
`;
}

function subcommands(help) {
  return help.match(/^Commands:\n([^]*?)\n\n/m)?.[1] ?? '';
}

/** Runs it without a terminal and without the settings of the caller. The width of lines is that of a page. */
function run(program, args, cwd) {
  const env = { PATH: process.env.PATH, COLUMNS: '100' };
  return execFileSync(program, args, { cwd, env, encoding: 'utf8' }).replaceAll(/\btidings-debug\b/g, 'tidings');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [path, text] of Object.entries(reference(process.argv[2]))) {
    writeFileSync(fileURLToPath(new URL(`../${path}`, import.meta.url)), text);
    console.log(path);
  }
}
