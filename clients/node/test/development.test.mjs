// The hub for development: one for a project directory, shared, and gone when nobody needs it any more.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { atEnd } from '../../../tests/lib/ending.mjs';
import { folder } from '../../../tests/lib/folder.mjs';
import { Journal, PATIENCE_MS, lines } from '../../../tests/lib/journal.mjs';
import { built } from '../../../tests/lib/program.mjs';

const INDEX = new URL('../src/index.js', import.meta.url);
const SUPERVISOR = new URL('../src/supervisor.js', import.meta.url);
/** A process of an application: prints the hub's address and everything on the topic `chat`; publishes the lines of its input. */
const APPLICATION = `
import { Client, publish, subscribe } from ${JSON.stringify(INDEX.href)};
import { createInterface } from 'node:readline';
const { base } = await new Client().hub();
console.log(base);
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'end') process.exit();
  console.log((await publish('chat', line)).id);
}`;

/** A project directory, and a directory for sockets. */
async function project(t) {
  const directory = await folder(t);
  const runtime = await folder(t);
  // The supervisors that are left when a test fails end by themselves, seconds later.
  const env = { ...process.env, TIDINGS_BIN: built('tidings'), XDG_RUNTIME_DIR: runtime };
  for (const name of ['TIDINGS_URL', 'TIDINGS_TOKEN', 'TIDINGS_TICKET_SECRET', 'NODE_ENV']) delete env[name];
  return { directory, runtime: join(runtime, 'tidings'), env };
}

/** Starts a process of the application; resolves with it when it has a hub. */
async function application(t, { directory, env }) {
  const child = spawn(process.execPath, ['--input-type=module', '-e', APPLICATION], { cwd: directory, env, stdio: 'pipe' });
  atEnd(t, () => child.kill('SIGKILL'));
  const printed = new Journal();
  for (const stream of [child.stdout, child.stderr]) lines(stream, (line) => printed.add(line));
  child.on('exit', (code, signal) => printed.add(`(ended: ${code ?? signal})`));
  const address = await printed.until('the address of the hub', (all) => all.find((line) => /^http/.test(line)));
  return { child, printed, address };
}

/** Processes whose command line contains this text, as `{ pid, command }`. */
function processes(text) {
  const command = (pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
    } catch {
      return '';
    }
  };
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map((pid) => ({ pid: Number(pid), command: command(pid) })).filter(({ command }) => command.includes(text));
}

/** Waits until a condition holds; fails after a long time. */
async function until(what, condition) {
  for (const deadline = Date.now() + PATIENCE_MS; !condition(); await pause(20)) assert.ok(Date.now() < deadline, what());
}

/** Waits until no process of this project is left. */
function gone({ runtime }) {
  return until(() => `still there: ${JSON.stringify(processes(runtime))}`, () => processes(runtime).length === 0);
}

test('processes that start at once share one hub, which survives the death of its first and ends after the last', async (t) => {
  const mine = await project(t);
  const all = await Promise.all(Array.from({ length: 4 }, () => application(t, mine)));
  assert.equal(new Set(all.map(({ address }) => address)).size, 1);
  const hubs = processes(mine.runtime).filter(({ command }) => command.startsWith(built('tidings')));
  assert.equal(hubs.length, 1, JSON.stringify(hubs));
  // Neither the key nor the secret of tickets is visible to other users.
  assert.doesNotMatch(JSON.stringify(processes(mine.runtime)), /tk_/);

  const [first, second, ...others] = all;
  first.child.kill('SIGKILL');
  second.child.stdin.write('hello\n');
  await second.printed.until('an id', (entries) => entries.some((line) => line.startsWith('#')));
  const again = await application(t, mine);
  assert.equal(again.address, first.address);

  for (const { child } of [second, again, ...others]) child.kill('SIGKILL');
  await gone(mine);
  assert.deepEqual(readdirSync(mine.runtime).filter((name) => !name.endsWith('.log')), []);
});

test('another project has another hub', async (t) => {
  const mine = await project(t);
  const other = { ...mine, directory: await folder(t) };
  const [one, two] = await Promise.all([application(t, mine), application(t, other)]);
  assert.notEqual(one.address, two.address);
  for (const { child } of [one, two]) child.kill('SIGKILL');
  await gone(mine);
});

test('a supervisor that is killed takes its hub along, and the next publication starts another', async (t) => {
  const mine = await project(t);
  const { child, printed } = await application(t, mine);
  const [supervisor] = processes(mine.runtime).filter(({ command }) => command.includes('supervisor.js'));
  process.kill(supervisor.pid, 'SIGKILL');
  await gone(mine);
  child.stdin.write('hello\n');
  await printed.until('an id', (entries) => entries.some((line) => line.startsWith('#')));
  child.kill('SIGKILL');
  await gone(mine);
});

test('a socket and a lock that a crash left are replaced', async (t) => {
  const mine = await project(t);
  const { child } = await application(t, mine);
  const [supervisor] = processes(mine.runtime).filter(({ command }) => command.includes('supervisor.js'));
  child.kill('SIGKILL');
  process.kill(supervisor.pid, 'SIGKILL');
  await gone(mine);
  const socket = readdirSync(mine.runtime).find((name) => name.endsWith('.sock'));
  mkdirSync(join(mine.runtime, socket.replace('.sock', '.lock')));
  const again = await application(t, mine);
  again.child.kill('SIGKILL');
  await gone(mine);
});

test('an application that has ended does not wait for the hub', async (t) => {
  const mine = await project(t);
  const { child, printed } = await application(t, mine);
  child.stdin.end();
  await printed.until('its end', (all) => all.includes('(ended: 0)'));
  await gone(mine);
});

for (const [what, change, message] of [
  ['production without TIDINGS_URL', { NODE_ENV: 'production' }, /there is no hub: set TIDINGS_URL.*tidings run/],
  ['a program that is not there', { TIDINGS_BIN: '', PATH: '' }, /the program tidings is not installed.*TIDINGS_BIN/],
  ['a program that is no hub', { TIDINGS_BIN: '/bin/false' }, /the hub for development cannot start: \/bin\/false ended/],
]) {
  test(`${what} is an error that says what to do`, async (t) => {
    const mine = await project(t);
    const code = `await (await import(${JSON.stringify(INDEX.href)})).publish('chat', 'x').catch(({ message }) => console.log(message))`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', code], { cwd: mine.directory, env: { ...mine.env, ...change } });
    atEnd(t, () => child.kill('SIGKILL'));
    const printed = new Journal();
    lines(child.stdout, (line) => printed.add(line));
    await once(child, 'exit');
    assert.match(printed.entries.join('\n'), message);
    await gone(mine);
  });
}

test('a process that connects after the program has failed still learns why', async (t) => {
  const mine = await project(t);
  mkdirSync(mine.runtime, { mode: 0o700 });
  const place = join(mine.runtime, 'late');
  const supervisor = spawn(process.execPath, [fileURLToPath(SUPERVISOR), place, '/bin/false'], { env: mine.env, stdio: 'ignore' });
  atEnd(t, () => supervisor.kill('SIGKILL'));
  // It opens the log before it starts the program, and has closed it when the program has ended.
  const open = () => {
    try {
      return readdirSync(`/proc/${supervisor.pid}/fd`).some((number) => readlinkSync(`/proc/${supervisor.pid}/fd/${number}`) === `${place}.log`);
    } catch {
      return false;
    }
  };
  await until(() => 'the program never started', () => existsSync(`${place}.log`));
  await until(() => 'the program never ended', () => !open());
  const answer = await new Promise((resolve, reject) => {
    const socket = createConnection(`${place}.sock`);
    socket.on('error', reject).setEncoding('utf8').on('data', resolve);
  });
  assert.match(answer, /"error":"\/bin\/false ended"/);
  await gone(mine);
});

test('a directory for sockets that others can read is refused', async (t) => {
  const mine = await project(t);
  mkdirSync(mine.runtime, { mode: 0o755 });
  const code = `await (await import(${JSON.stringify(INDEX.href)})).publish('chat', 'x').catch(({ message }) => console.log(message))`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], { cwd: mine.directory, env: mine.env });
  atEnd(t, () => child.kill('SIGKILL'));
  const printed = new Journal();
  lines(child.stdout, (line) => printed.add(line));
  await once(child, 'exit');
  assert.match(printed.entries.join('\n'), /has to be a directory that is yours alone/);
});
