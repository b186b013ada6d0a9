// Request smuggling, straight to the hub and through nginx, HAProxy and Caddy: a request that hides in another one is never answered
// as a request of its own, and no client gets the response that is for another.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { test } from 'node:test';
import { AMBIGUOUS, WITH_A_BODY } from '../lib/framing.mjs';
import { Node } from '../lib/hub.mjs';
import { exchange } from '../lib/raw.mjs';
import { caddy, haproxy, nginx } from '../lib/service.mjs';

/** Connections at the same time. */
const AT_A_TIME = 40;

/**
 * Each proxy refuses the topic of what is smuggled, keeps few connections to the hub and uses them for all clients, and gives up on a
 * client that sends nothing for a second.
 */
const PROXIES = {
  nginx: {
    start: nginx,
    configure: (port, hub) => `
      upstream hub { server 127.0.0.1:${hub}; keepalive 1; }
      server {
        listen 127.0.0.1:${port};
        client_header_timeout 1s; client_body_timeout 1s; keepalive_timeout 1s; send_timeout 1s; lingering_timeout 1s;
        client_max_body_size 10m;
        underscores_in_headers on; ignore_invalid_headers off;
        location /topics/smuggled { return 403; }
        location / {
          proxy_pass http://hub; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
          proxy_request_buffering off;
          proxy_buffering off; proxy_read_timeout 1s;
        }
      }`,
  },
  haproxy: {
    start: haproxy,
    configure: (port, hub) => `
defaults
  mode http
  timeout client 1s
  timeout server 1s
  timeout connect 5s
  timeout http-request 1s
  timeout http-keep-alive 1s
frontend clients
  bind 127.0.0.1:${port}
  http-request deny if { path_beg /topics/smuggled }
  default_backend hub
backend hub
  http-reuse always
  retry-on all-retryable-errors
  server hub 127.0.0.1:${hub}
`,
  },
  caddy: {
    start: caddy,
    configure: (port, hub) => `
{
  admin off
  auto_https off
  default_bind 127.0.0.1
  grace_period 1s
  servers {
    timeouts {
      read_body 1s
      read_header 1s
      write 2s
      idle 1s
    }
  }
}
http://:${port} {
  respond /topics/smuggled* 403
  reverse_proxy 127.0.0.1:${hub} {
    flush_interval -1
    transport http {
      versions 1.1
      keepalive_idle_conns 1
      max_conns_per_host 4
    }
  }
}
`,
  },
};

/** A hub that any client may publish to: what protects the topic is the proxy alone. */
const hubOf = (t, ...args) => Node.start(t, '--no-auth', '--body-secs', '1', '--request-headers-secs', '1', ...args);

/** The state of a topic, over a connection of its own. */
async function summary(origin, topic) {
  const request = http.get(`${origin}/topics/${topic}`, { headers: { Accept: 'application/json' }, agent: false });
  const [response] = await once(request, 'response');
  assert.equal(response.statusCode, 200);
  const parts = await response.toArray();
  return JSON.parse(Buffer.concat(parts).toString());
}

/** Sends every request to the port, some at a time, and calls `check` after these with what they were. */
async function send(cases, port, check) {
  for (let at = 0; at < cases.length; at += AT_A_TIME) {
    const some = cases.slice(at, at + AT_A_TIME);
    const answers = await Promise.all(some.map(([, bytes]) => exchange(port, bytes)));
    await check(some.map(([what]) => what), answers);
  }
}

test('a request in an ambiguous one is not answered, and neither is one in a body', async (t) => {
  const hub = await hubOf(t, '--keep-alive-secs', '1');
  // To the hub, a name with an underscore is one of many that mean nothing to it; to an application it may be the other one.
  await send(AMBIGUOUS.filter(([, bytes]) => !/(Transfer|Content)_/.test(bytes)), hub.port, async (what, answers) => {
    for (const [index, answer] of answers.entries()) {
      assert.match(answer, /^HTTP\/1\.1 400 /, what[index]);
      assert.equal(answer.match(/^HTTP\/1\.1 \d/gm).length, 1, what[index]);
    }
  });
  await send(WITH_A_BODY, hub.port, async (what, answers) => {
    for (const [index, answer] of answers.entries()) {
      const responses = answer.match(/^HTTP\/1\.1 [2-5]/gm) ?? [];
      assert.equal(responses.length, 1, `${what[index]}: ${answer}`);
    }
  });
  assert.deepEqual((await summary(hub.origin, 'smuggled')).events, []);
});

for (const [name, { start, configure }] of Object.entries(PROXIES)) {
  test(`behind ${name} nothing is smuggled past it, and every client gets its own response`, async (t) => {
    const hub = await hubOf(t);
    const { port, end } = await start(t, (own) => configure(own, hub.port));
    const origin = `http://127.0.0.1:${port}`;
    const refused = await fetch(`${origin}/topics/smuggled`, { method: 'POST', body: 'x' });
    assert.equal(refused.status, 403, 'the proxy refuses the topic');
    let number = 0;
    await send([...AMBIGUOUS, ...WITH_A_BODY], port, async (what) => {
      // As many as the proxy may have connections to the hub, and more.
      for (let repeat = 0; repeat < 8; repeat += 1) {
        const topic = `innocent-${++number}`;
        assert.equal((await summary(origin, topic)).topic, topic, `the response after one of: ${what.join('; ')}`);
      }
      assert.deepEqual((await summary(hub.origin, 'smuggled')).events, [], what.join('; '));
    });
    // What the proxy still had in hand has arrived when it has ended.
    await end();
    assert.deepEqual((await summary(hub.origin, 'smuggled')).events, []);
  });
}
