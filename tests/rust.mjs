// Builds the Rust tests and runs their programs, several at a time: most of them wait for servers,
// and Cargo would run one after the other. Prints the output of each when it has ended, and fails if
// one of them did. Some run again with the nats-server that tests/setup has built. Then it runs the
// examples in the documentation.
//
// A program whose module documentation has a line `Needs: redis-server, curl.` is skipped, with the
// reason, where one of these commands is missing; with TIDINGS_REQUIRE_SERVERS=1 it fails instead.

import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { delimiter, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const CARGO = process.env.CARGO ?? 'cargo';
const SELECTION = ['--locked', '--workspace', '--all-features'];
/** A current nats-server, if there is one: Debian's, with which all programs run, is older. */
const NATS_SERVER = `${ROOT}tests/.cache/bin/nats-server`;
/** The programs that run with it as well, and the tests of theirs that do. */
const WITH_NATS_SERVER = new Map([
  ['crates/tidings-nats/tests/conformance.rs', []],
  ['crates/tidings-nats/tests/cluster.rs', []],
  ['crates/tidings-nats/tests/connecting.rs', []],
  ['crates/tidings-nats/tests/credentials.rs', []],
  ['crates/tidings-nats/tests/domain.rs', []],
  ['crates/tidings-cli/tests/nodes.rs', ['three_servers']],
]);
/** They use half of the processor time of as many processors: the rest of their time they wait. */
const PROGRAMS_AT_A_TIME = 2 * availableParallelism();
/** A program that takes longer is killed, and has failed. */
const PROGRAM_MILLIS_MAX = 600_000;

/** Debian installs servers in a directory that is not in the PATH of ordinary users; tests/setup builds others. */
process.env.PATH += `${delimiter}/usr/sbin${delimiter}${ROOT}tests/.cache/bin`;
/** Commands that tests/setup can only build where Go is installed: what needs them may always be skipped. */
const BUILT = ['pebble'];

/** The commands that a test program needs and that this machine lacks. */
function missingFor(source) {
  const needs = readFileSync(source, 'utf8').match(/^\/\/! Needs: (.+)\.$/m)?.[1].split(', ') ?? [];
  const directories = process.env.PATH.split(delimiter);
  return needs.filter((command) => !directories.some((directory) => existsSync(join(directory, command))));
}

/** Runs a program to its end. Resolves with its exit code and what it printed on stdout. */
function run(program, args, options) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, options);
    const printed = [];
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (data) => printed.push(data));
    const end = (code) => resolve({ code, printed: Buffer.concat(printed).toString() });
    child.on('error', reject);
    child.on('close', end);
    // Processes that it has started may still hold its output.
    child.on('exit', (code, signal) => signal && end(code));
  });
}

/** The programs that Cargo has built, each with the folder in which Cargo would run it. */
async function build() {
  const args = ['test', ...SELECTION, '--no-run', '--message-format=json-render-diagnostics'];
  const { code, printed } = await run(CARGO, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
  if (code !== 0) process.exit(code ?? 1);
  const messages = printed.split('\n').filter(Boolean).map((line) => JSON.parse(line));
  return messages
    .filter((message) => message.reason === 'compiler-artifact' && message.profile.test && message.executable)
    .map(({ executable, manifest_path: manifest, target }) => {
      const folder = dirname(manifest);
      return { executable, folder, name: relative(ROOT, target.src_path), missing: missingFor(target.src_path) };
    });
}

const programs = await build();
const requireServers = process.env.TIDINGS_REQUIRE_SERVERS === '1';
// It is for this script alone: a hub would warn of a variable that it does not know.
delete process.env.TIDINGS_REQUIRE_SERVERS;
const skipped = programs.filter(({ missing }) => missing.length > 0);
const again = existsSync(NATS_SERVER) ? programs.filter(({ name }) => WITH_NATS_SERVER.has(name)) : [];
const waiting = [
  ...programs.filter((program) => !skipped.includes(program)),
  ...again.map((program) => ({
    ...program,
    name: `${program.name} with a current nats-server`,
    args: WITH_NATS_SERVER.get(program.name),
    env: { ...process.env, TIDINGS_NATS_SERVER: NATS_SERVER },
  })),
];
const mustRun = ({ missing }) => requireServers && missing.some((command) => !BUILT.includes(command));
const failed = skipped.filter(mustRun).map(({ name, missing }) => `${name} (needs ${missing.join(', ')})`);

async function work() {
  for (let next = waiting.shift(); next; next = waiting.shift()) {
    const started = performance.now();
    const { code, printed } = await run(next.executable, next.args ?? [], {
      cwd: next.folder,
      env: next.env ?? process.env,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: PROGRAM_MILLIS_MAX,
      killSignal: 'SIGKILL',
    });
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.log(`     Running ${next.name} (${seconds} s)\n${printed}`);
    if (code !== 0) failed.push(next.name);
  }
}

await Promise.all(Array.from({ length: PROGRAMS_AT_A_TIME }, work));
const documentation = await run(CARGO, ['test', ...SELECTION, '--doc', '--no-fail-fast'], { cwd: ROOT, stdio: 'inherit' });
if (documentation.code !== 0) failed.push('the examples in the documentation');
for (const { name, missing } of skipped.filter((program) => !mustRun(program))) {
  console.log(`SKIPPED ${name}: ${missing.join(', ')} is not installed`);
}
if (failed.length > 0) {
  console.error(`FAILED: ${failed.join(', ')}`);
  process.exit(1);
}
