// The alert rules, with metrics as a hub would have them: each alert fires when it must, and nothing else does.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ALERTS, RULES } from '../lib/alerts.mjs';
import { read } from '../lib/document.mjs';
import { folder } from '../lib/folder.mjs';

const execute = promisify(execFile);
const FILE = fileURLToPath(new URL('../../deploy/prometheus/alerts.yml', import.meta.url));
/** A sample a minute, for longer than every range and `for` together. */
const MINUTES = 80;

const DAY_SECS = 86_400;

const always = (value) => `${value}x${MINUTES}`;
const growing = (aMinute) => `0+${aMinute}x${MINUTES}`;
/** The buckets of a histogram in which all observations are longer than `secs`. */
const longer = (name, secs, labels = {}) =>
  Object.fromEntries([['0.0001', 0], [String(secs), 0], ['10', 600], ['+Inf', 600]].map(([le, count]) => [series(name, { ...labels, le }), growing(count)]));

function series(name, labels = {}) {
  const all = { job: 'tidings', instance: 'HUB:9091', ...labels };
  return `${name}{${Object.entries(all).map(([label, value]) => `${label}="${value}"`).join(',')}}`;
}

/** Of a hub that works, and has as much to do as it can have without an alert. */
const HEALTHY = {
  [series('up')]: always(1),
  [series('tidings_ready')]: always(1),
  [series('tidings_store_up')]: always(1),
  ...Object.fromEntries(['full', 'unavailable', 'outcome_unknown'].map((reason) => [series('tidings_store_errors_total', { reason }), always(0)])),
  [series('process_start_time_seconds')]: always(1700000000),
  [series('tidings_requests_total', { route: 'publish', method: 'POST', status: '2xx' })]: growing(6000),
  [series('tidings_requests_total', { route: 'publish', method: 'POST', status: '5xx' })]: growing(60),
  ...longer('tidings_publish_duration_seconds_bucket', 0.0001),
  [series('tidings_publish_duration_seconds_bucket', { le: '0.25' })]: growing(600),
  ...longer('tidings_delivery_lag_seconds_bucket', 0.0001),
  [series('tidings_delivery_lag_seconds_bucket', { le: '0.25' })]: growing(600),
  [series('tidings_fan_out_lag_bytes')]: always(1e6),
  [series('tidings_fan_out_lag_bytes_max')]: always(33554432),
  [series('tidings_streams_closed_total', { reason: 'slow' })]: growing(1),
  [series('tidings_subscribers')]: always(8000),
  [series('tidings_streams', { transport: 'http1' })]: always(8000),
  [series('tidings_streams_max')]: always(10000),
  [series('tidings_streams_opened_total', { transport: 'http1' })]: growing(100),
  [series('tidings_reader_lag_bytes_p99')]: always(1e6),
  [series('tidings_log_bytes_max')]: always(67108864),
  [series('tidings_gaps_total', { reason: 'expired' })]: growing(2),
  [series('tidings_ephemeral_dropped_total')]: growing(6),
  [series('tidings_stored_events_rejected_total')]: always(3),
  [series('tidings_connections_open')]: always(8400),
  [series('tidings_connections_max')]: always(10000),
  [series('tidings_connections_refused_total', { reason: 'full' })]: always(7),
  [series('tidings_connections_refused_total', { reason: 'silent' })]: growing(600),
  [series('tidings_connections_refused_total', { reason: 'malformed' })]: growing(30),
  [series('tidings_streams_rejected_total', { reason: 'full' })]: always(7),
  [series('tidings_streams_rejected_total', { reason: 'address' })]: growing(30),
  [series('tidings_streams_rejected_total', { reason: 'store' })]: growing(600),
  [series('tidings_accept_pauses_total')]: always(2),
  [series('tidings_authentication_failures_total', { reason: 'invalid_token' })]: growing(30),
  [series('tidings_authentication_failures_total', { reason: 'expired' })]: growing(600),
  [series('tidings_acme_certificate_expiry_timestamp_seconds', { acme: 'hub.example' })]: always(5 * DAY_SECS),
  [series('tidings_acme_failed_total', { acme: 'hub.example' })]: always(3),
  [series('tidings_acme_obtained_total', { acme: 'hub.example' })]: always(1),
  [series('tidings_upstream_up')]: always(1),
  [series('tidings_application_up', { application: 'app' })]: always(1),
  [series('tidings_upstream_requests_total', { outcome: 'answered' })]: growing(600),
  [series('tidings_upstream_requests_total', { outcome: 'failed' })]: growing(6),
  [series('tidings_authorizations_total', { outcome: 'subscribed' })]: growing(600),
  [series('tidings_authorizations_total', { outcome: 'failed' })]: growing(6),
  [series('tidings_issuers_without_keys', { keys: 'issuers' })]: always(0),
  [series('tidings_hook_pending_age_seconds', { hook: 'app' })]: always(60),
  [series('tidings_hook_dropped_total', { hook: 'app' })]: always(3),
  [series('tidings_bridge_listening', { bridge: 'redis://HUB' })]: always(0),
  [series('tidings_bridge_listening', { bridge: 'redis://HUB', instance: 'other-HUB:9091' })]: always(1),
  ...Object.fromEntries(
    ['dropped', 'no_room', 'undecodable', 'invalid', 'too_large'].map((reason) => [series(`tidings_bridge_${reason}_total`, { bridge: 'redis://HUB' }), always(4)]),
  ),
};

/** What differs when an alert has to fire: this one and no other. */
const FAULTS = {
  TidingsDown: { [series('up')]: always(0) },
  TidingsStoreDown: { [series('tidings_store_up')]: always(0), [series('tidings_ready')]: always(0), ...failing() },
  TidingsStoreFull: {
    [series('tidings_store_errors_total', { reason: 'full' })]: growing(5),
    [series('tidings_store_up')]: always(0),
    [series('tidings_ready')]: always(0),
    ...failing(),
  },
  TidingsNotReady: { [series('tidings_ready')]: always(0) },
  TidingsRestarts: { [series('process_start_time_seconds')]: `1700000000+600x${MINUTES}` },
  TidingsRequestsFail: failing(),
  TidingsCertificateNotRenewed: { [series('tidings_acme_failed_total', { acme: 'hub.example' })]: growing(1) },
  TidingsPublishingSlow: {
    ...longer('tidings_publish_duration_seconds_bucket', 0.5),
    [series('tidings_publish_duration_seconds_bucket', { le: '0.25' })]: always(0),
  },
  TidingsDeliverySlow: {
    ...longer('tidings_delivery_lag_seconds_bucket', 1),
    [series('tidings_delivery_lag_seconds_bucket', { le: '0.25' })]: always(0),
  },
  TidingsFanOutBehind: { [series('tidings_fan_out_lag_bytes')]: always(2e7) },
  TidingsSlowReaders: { [series('tidings_streams_closed_total', { reason: 'slow' })]: growing(60) },
  TidingsReadersBehind: { [series('tidings_reader_lag_bytes_p99')]: always(4e7) },
  TidingsGaps: { [series('tidings_gaps_total', { reason: 'expired' })]: growing(10) },
  TidingsEphemeralDropped: { [series('tidings_ephemeral_dropped_total')]: growing(120) },
  TidingsStoredEventsRejected: { [series('tidings_stored_events_rejected_total')]: growing(1) },
  TidingsConnectionsNearLimit: { [series('tidings_connections_open')]: always(8600) },
  TidingsStreamsNearLimit: { [series('tidings_streams', { transport: 'http2' })]: always(600) },
  TidingsFull: { [series('tidings_streams_rejected_total', { reason: 'full' })]: growing(1) },
  TidingsAcceptPaused: { [series('tidings_accept_pauses_total')]: growing(1) },
  TidingsClientLimits: { [series('tidings_streams_rejected_total', { reason: 'address' })]: growing(90) },
  TidingsAuthenticationFailures: { [series('tidings_authentication_failures_total', { reason: 'invalid_token' })]: growing(90) },
  TidingsHostileConnections: { [series('tidings_connections_refused_total', { reason: 'flood' })]: growing(90) },
  TidingsApplicationDown: { [series('tidings_upstream_up')]: always(0), [series('tidings_upstream_requests_total', { outcome: 'failed' })]: growing(600) },
  TidingsApplicationFails: { [series('tidings_upstream_requests_total', { outcome: 'failed' })]: growing(60) },
  TidingsAuthorizationFails: { [series('tidings_authorizations_total', { outcome: 'failed' })]: growing(60) },
  TidingsIssuerKeysMissing: { [series('tidings_issuers_without_keys', { keys: 'issuers' })]: always(1) },
  TidingsHookNotDelivered: { [series('tidings_hook_pending_age_seconds', { hook: 'app' })]: growing(10) },
  TidingsHookDropsChanges: { [series('tidings_hook_dropped_total', { hook: 'app' })]: growing(1) },
  TidingsBridgeDown: {
    [series('tidings_bridge_listening', { bridge: 'redis://HUB', instance: 'other-HUB:9091' })]: always(0),
    [series('tidings_ready')]: always(0),
  },
  TidingsBridgeLosesMessages: { [series('tidings_bridge_no_room_total', { bridge: 'redis://HUB' })]: growing(1) },
};

/** One request in ten is answered with an error. */
function failing() {
  return { [series('tidings_requests_total', { route: 'publish', method: 'POST', status: '5xx' })]: growing(600) };
}

/** The series of a hub of this name, with these differences from a healthy one. */
function hub(name, differences) {
  return Object.entries({ ...HEALTHY, ...differences }).map(([series, values]) => ({ series: series.replaceAll('HUB', name), values }));
}

/** With these series, exactly these alerts fire in the end. */
function expectation(series, alerts) {
  const samples = alerts.map((labels) => ({ labels, value: 1 }));
  return {
    interval: '1m',
    input_series: series,
    promql_expr_test: [{ expr: 'count by (alertname, instance) (ALERTS{alertstate="firing"})', eval_time: `${MINUTES}m`, exp_samples: samples }],
  };
}

async function promtool(t, tests) {
  // JSON is YAML.
  const file = join(await folder(t), 'tests.yml');
  writeFileSync(file, JSON.stringify({ rule_files: [FILE], evaluation_interval: '5m', tests }));
  await execute('promtool', ['test', 'rules', file]).catch(({ stdout, stderr }) => assert.fail(stdout + stderr));
}

test('each alert fires by its cause alone, and none for a hub that works', async (t) => {
  assert.deepEqual([...Object.keys(FAULTS), 'TidingsNoTargets'].sort(), [...ALERTS].sort());
  const hubs = Object.entries(FAULTS).flatMap(([alert, differences]) => hub(alert, differences));
  // An alert on a bridge is about all hubs.
  const fired = Object.keys(FAULTS).map((alert) => `{alertname="${alert}"${alert === 'TidingsBridgeDown' ? '' : `,instance="${alert}:9091"`}}`);
  await promtool(t, [expectation([...hub('healthy'), ...hubs], fired), expectation([], ['{alertname="TidingsNoTargets"}'])]);
});

test('a certificate that is not renewed is reported in its last week, or on its last day without failures', async (t) => {
  const certificate = (days, failures, renewals) => ({
    [series('tidings_acme_certificate_expiry_timestamp_seconds', { acme: 'hub.example' })]: always(days * DAY_SECS),
    [series('tidings_acme_failed_total', { acme: 'hub.example' })]: failures,
    [series('tidings_acme_obtained_total', { acme: 'hub.example' })]: renewals,
  });
  const hubs = {
    failing: certificate(6, growing(1), always(1)),
    forgotten: certificate(0.9, always(0), always(1)),
    early: certificate(20, growing(1), always(1)),
    'short-lived': certificate(2, always(0), always(1)),
    'renewed after failures': certificate(6, growing(1), growing(1)),
  };
  const fired = ['failing', 'forgotten'].map((name) => `{alertname="TidingsCertificateNotRenewed",instance="${name}:9091"}`);
  await promtool(t, [expectation(Object.entries(hubs).flatMap(([name, differences]) => hub(name, differences)), fired)]);
});

test('the runbook has a section for each alert, and no other', () => {
  const sections = [...read('docs/runbook.md').matchAll(/^### (Tidings\w+)$/gm)].map(([, name]) => name);
  assert.deepEqual(sections, ALERTS);
  const links = [...RULES.matchAll(/runbook_url: \S+\/runbook\.html#(\w+)$/gm)].map(([, anchor]) => anchor);
  assert.deepEqual(links, ALERTS.map((name) => name.toLowerCase()));
});

test('each section of the runbook says what the alert means, where to look and what to do', () => {
  for (const section of read('docs/runbook.md').split(/^### /m).slice(1)) {
    for (const part of ['**Meaning.**', '**Where to look.**', '**What to do.**']) {
      assert.equal(section.split(part).length, 2, `${section.split('\n')[0]}: ${part}`);
    }
  }
});
