// docs/one-process.md: its application is run as it is written there; only the port differs. And the files of deploy/one-process.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { BROWSERS, launch, newPerson } from '../lib/browser.mjs';
import { PYTHON } from '../lib/client.mjs';
import { read, snippet } from '../lib/document.mjs';
import { folder } from '../lib/folder.mjs';
import { built } from '../lib/program.mjs';
import { start } from '../lib/service.mjs';

const execute = promisify(execFile);
const DOCUMENT = read('docs/one-process.md');
const PATH = `${dirname(built('tidings'))}:${dirname(PYTHON)}:${process.env.PATH}`;
const DEPLOYED = 'deploy/one-process';

/** Runs the application of the document with the command of the document; resolves with its origin and what was printed. */
async function run(t) {
  const directory = await folder(t);
  writeFileSync(join(directory, 'app.py'), snippet(DOCUMENT, 'Save this as `app.py`', 'python'));
  const command = snippet(DOCUMENT, 'Run it, and open', 'sh').trim();
  const environment = { ...process.env, PATH, PYTHONDONTWRITEBYTECODE: '1' };
  const withPort = (port) => {
    const env = { ...environment, TIDINGS_LISTEN: `127.0.0.1:${port}` };
    return ['sh', ['-c', `exec ${command}`], { cwd: directory, env }];
  };
  const { port, printed } = await start(t, withPort, /the application accepts connections/);
  return { origin: `http://127.0.0.1:${port}`, printed };
}

for (const name of BROWSERS) {
  test(`the application of the document chats on one port, and goes on after a crash, in ${name}`, async (t) => {
    const { origin, printed } = await run(t);
    const browser = await launch(t, name);
    const people = [];
    for (const user of [42, 7]) {
      const page = await newPerson(t, browser);
      const stream = page.waitForResponse((response) => new URL(response.url()).pathname === '/stream' && response.ok());
      await page.goto(`${origin}/login/${user}`);
      await stream;
      people.push(page);
    }
    const say = async (page, message) => {
      await page.type('#in', message);
      await page.keyboard.press('Enter');
      for (const person of people) {
        await person.waitForFunction((message) => document.getElementById('out').textContent.includes(`${message}\n`), {}, message);
      }
      await page.evaluate(() => (document.getElementById('in').value = ''));
    };
    await say(people[0], 'hello');

    const started = printed.entries.find((line) => line.includes('the application was started'));
    process.kill(Number(started.match(/pid=(\d+)/)[1]), 'SIGKILL');
    const accepted = (all) => all.filter((line) => line.includes('the application accepts connections')).length === 2;
    await printed.until('the application to be started again', accepted);
    await say(people[1], 'and again');
  });
}

test('the files for platforms are valid, and start the hub with settings that it knows', async () => {
  const script = `
import json, tomllib
compose, render = [__import__('yaml').safe_load(open(f'{name}.yaml')) for name in ('compose', 'render')]
fly = tomllib.load(open('fly.toml', 'rb'))
print(json.dumps({'compose': compose, 'render': render, 'fly': fly}))`;
  const directory = fileURLToPath(new URL(`../../${DEPLOYED}`, import.meta.url));
  const { stdout } = await execute(PYTHON, ['-c', script], { cwd: directory });
  const { compose, render, fly } = JSON.parse(stdout);
  const [, procfile] = read(`${DEPLOYED}/Procfile`).match(/^web: (.*)\n$/);
  const [service] = render.services;
  const secret = `1:${'s'.repeat(40)}`;
  const variables = Object.fromEntries(service.envVars.map(({ key, value }) => [key, value ?? secret]));
  const commands = [
    [procfile, { PORT: '5000' }],
    [fly.processes.web, fly.env],
    [service.startCommand, { PORT: '10000', ...variables }],
    [compose.services.app.command.join(' '), compose.services.app.environment],
  ];
  for (const [command, env] of commands) {
    assert.match(command, /^tidings run -- gunicorn /);
    const checked = await execute(built('tidings'), ['run', '--check', ...command.split(' ').slice(2)], { env: { PATH, ...env } });
    assert.equal(checked.stderr, '', command);
    assert.match(checked.stdout, new RegExp(`^listen = \\[":${env.PORT}"\\]`, 'm'));
  }
  assert.equal(fly.http_service.internal_port, Number(fly.env.PORT));
  assert.deepEqual(compose.services.app.ports, [`${compose.services.app.environment.PORT}:${compose.services.app.environment.PORT}`]);
  assert.deepEqual(compose.services.app.healthcheck.test, ['CMD', 'tidings', 'health']);
});
