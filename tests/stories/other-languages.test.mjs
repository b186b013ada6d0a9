// docs/other-languages.md: its code publishes, makes tickets that are those of the test vectors, and answers the route of a real hub. A
// language that is not installed is skipped by name.

import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { read, snippet } from '../lib/document.mjs';
import { folder } from '../lib/folder.mjs';
import { Node } from '../lib/hub.mjs';
import { serve } from '../lib/site.mjs';
import { Stream } from '../lib/stream.mjs';
import { KEY, SECRET, configuration } from '../lib/tickets.mjs';

const execute = promisify(execFile);
const DOCUMENT = read('docs/other-languages.md');
const USER = '4&2 ü';
const { secrets, valid } = JSON.parse(read('tests/tickets/vectors.json'));

/** A program of each language: it runs the example with `USER`, prints the header and the ticket, or signs its input. */
const LANGUAGES = {
  PHP: {
    command: ['php', '--version'],
    write(directory) {
      writeFileSync(join(directory, 'tidings.php'), snippet(DOCUMENT, 'Save this as `tidings.php`', 'php'));
      // On the command line PHP has no headers to show, so the example prints its header.
      const example = snippet(DOCUMENT, 'answer the route `/stream`, and make a ticket', 'php').replace(/header\('Tidings-Subscribe: ' \. (.*)\);/, 'echo $1 . "\\n";');
      const program = `<?php require 'tidings.php'; if ($argc > 1) { echo tidings_sign(stream_get_contents(STDIN)); exit; }\n$user = getenv('APP_USER');\n${example}`;
      writeFileSync(join(directory, 'program.php'), program);
      return ['php', ['program.php']];
    },
  },
  Ruby: {
    command: ['ruby', '--version'],
    write(directory) {
      writeFileSync(join(directory, 'tidings.rb'), snippet(DOCUMENT, 'Save this as `tidings.rb`', 'ruby'));
      const example = snippet(DOCUMENT, 'answer the route `/stream` in Rails', 'ruby').replace('response.headers["Tidings-Subscribe"] =', 'puts');
      const program = `require_relative "tidings"\nif ARGV.any? then print Tidings.sign($stdin.read); exit end\nuser = ENV["APP_USER"]\n${example}`;
      writeFileSync(join(directory, 'program.rb'), program);
      return ['ruby', ['program.rb']];
    },
  },
  Go: {
    command: ['go', 'version'],
    write(directory) {
      mkdirSync(join(directory, 'tidings'));
      writeFileSync(join(directory, 'go.mod'), 'module example\n\ngo 1.19\n');
      writeFileSync(join(directory, 'tidings/tidings.go'), snippet(DOCUMENT, 'Save this as `tidings/tidings.go`', 'go'));
      const [before, after] = DOCUMENT.split('## Go\n')[1].split('Publish, answer the route');
      assert.ok(before && after);
      const example = snippet(after, 'and make a ticket', 'go');
      const program = `package main

import (
	"example/tidings"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
)

${example}
func main() {
	if len(os.Args) > 1 {
		contents, _ := io.ReadAll(os.Stdin)
		fmt.Print(tidings.Sign(string(contents)))
		return
	}
	recorder := httptest.NewRecorder()
	defer func() { fmt.Fprintln(os.Stdout, recorder.Header().Get("Tidings-Subscribe")) }()
	example(recorder, os.Getenv("APP_USER"))
}
`;
      writeFileSync(join(directory, 'main.go'), program);
      execFileSync('go', ['build', '-o', 'program', '.'], { cwd: directory, env: { ...process.env, GOFLAGS: '-mod=mod', GOTOOLCHAIN: 'local' } });
      return [join(directory, 'program'), []];
    },
  },
};

function isInstalled([command, ...args]) {
  try {
    execFileSync(command, args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

for (const [language, { command, write }] of Object.entries(LANGUAGES)) {
  test(`${language} publishes, answers the route and makes tickets`, { skip: !isInstalled(command) && `${command[0]} is not installed` }, async (t) => {
    const directory = await folder(t);
    const [program, args] = write(directory);

    for (const { name, secret_id: id, contents, ticket } of valid) {
      const { secret } = secrets.find((secret) => secret.id === id);
      const env = { ...process.env, TIDINGS_TICKET_SECRET: `${id}:${secret}` };
      assert.equal(execFileSync(program, [...args, 'sign'], { cwd: directory, env, input: contents, encoding: 'utf8' }), ticket, name);
    }

    const hub = await Node.start(t, '--config', await configuration(t));
    const env = { ...process.env, APP_USER: USER, TIDINGS_URL: `http://:${KEY}@127.0.0.1:${hub.port}`, TIDINGS_TICKET_SECRET: `1:${SECRET}` };
    const { stdout } = await execute(program, args, { cwd: directory, env });
    const header = stdout.match(/^topic=.*$/m)[0];
    const ticket = stdout.match(/tt1\.1\.\S+/)[0];
    const stream = await Stream.open(t, hub.url(`/stream?ticket=${ticket}&since=earliest`));
    await stream.receive('{"paid":17}');

    const application = await serve(t, { '/stream': (response) => response.setHeader('Tidings-Subscribe', header) && '' });
    const asking = await Node.start(t, '--authorize', `${application}/stream`);
    const mine = await Stream.open(t, asking.url('/stream'));
    await asking.publish(encodeURIComponent(`user-${USER}`), 'mine', { private: '' });
    await mine.receive('mine');

    const wrong = execute(program, args, { cwd: directory, env: { ...env, TIDINGS_URL: `http://:wrong@127.0.0.1:${hub.port}` } });
    await wrong.then(
      ({ stdout }) => assert.match(stdout, /publishing on \S*user-42\S* failed: .*401/),
      ({ stderr, stdout }) => assert.match(`${stderr}${stdout}`, /publishing on user-42 failed/),
    );
  });
}
