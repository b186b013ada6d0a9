// openapi.yaml is what a hub does: schemathesis makes requests of it, valid and invalid ones, and compares the responses.
// schemathesis.toml names the checks that are off, with their reasons. TIDINGS_API_EXAMPLES=100 makes many more requests.

import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { folder } from '../lib/folder.mjs';
import { Node } from '../lib/hub.mjs';

const KEY = 'tk_a-key-that-may-do-everything';
/** A stream is answered when it ends. */
const CONFIGURATION = `
stream_lifetime_secs_max = 1
presence = true
[[key]]
name = "all"
secret = "${KEY}"
publish = ["*"]
subscribe = ["*"]
admin = true
[[issuer]]
iss = "https://issuer.example"
audience = "https://hub.example/.well-known/mercure"
secret = "another secret of more than thirty-two bytes"
[[ticket_secret]]
id = "1"
secret = "a secret of more than thirty-two bytes"
`;
/** How many requests are generated for each operation. */
const EXAMPLES = process.env.TIDINGS_API_EXAMPLES;
/** The operations, in parts that run at the same time. Each stream takes a second, so by default there are few requests for them. */
const STREAMS = ['stream', 'streamOfBody', 'topic', 'mercureSubscribe'];
const FEW = ['--phases', 'examples,fuzzing', '--max-examples', '10'];
const PARTS = {
  'the requests for streams': STREAMS.flatMap((id) => ['--include-operation-id', id]).concat(EXAMPLES ? [] : FEW),
  'all other requests': STREAMS.flatMap((id) => ['--exclude-operation-id', id]),
};

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

suite('openapi.yaml describes', { concurrency: true }, () => {
  for (const [name, operations] of Object.entries(PARTS)) {
    test(name, async (t) => {
      const directory = await folder(t);
      const file = join(directory, 'tidings.toml');
      writeFileSync(file, CONFIGURATION);
      const hub = await Node.start(t, '--config', file);
      const common = ['--url', hub.origin, '--seed', process.env.TIDINGS_SEED ?? '1', '--max-examples', EXAMPLES ?? '5'];
      const args = ['--config-file', here('schemathesis.toml'), 'run', here('../../openapi.yaml'), ...common, ...operations];
      const env = { ...process.env, TIDINGS_KEY: KEY, SCHEMATHESIS_HOOKS: here('openapi_hooks.py'), PYTHONDONTWRITEBYTECODE: '1' };
      const options = { cwd: directory, env, maxBuffer: 1 << 26 };
      await promisify(execFile)(here('../.cache/site/bin/schemathesis'), args, options).catch((error) => {
        throw new Error(error.stdout || error.message);
      });
    });
  }
});
