// A real Prometheus with the files of deploy/prometheus: only targets, paths and the pace differ.

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { RULES, accelerated } from './alerts.mjs';
import { read } from './document.mjs';
import { folder } from './folder.mjs';
import { PATIENCE_MS } from './journal.mjs';
import { start } from './service.mjs';

/** How many times faster than in production it scrapes, evaluates and fires. */
export const FACTOR = 30;
/** The interval of checks whether something has happened. */
const PACE_MS = 200;

export class Prometheus {
  #origin;

  /** Starts one for the duration of the test `t`, which scrapes these ports: without a key, and with this key. */
  static async start(t, { ports, keyed, key }) {
    const dir = await folder(t);
    const [, scraped] = read('deploy/prometheus/prometheus.yml').match(/^(?:[^]*?)(^global:[^]*)$/m);
    // Nobody is to be notified.
    let text = scraped.replace(/^alerting:[^]*?(?=^\S)/m, '');
    const replace = (written, other) => {
      assert.ok(text.includes(written), `prometheus.yml does not contain ${written}`);
      text = text.replace(written, other);
    };
    replace('tidings.yml', join(dir, 'tidings.yml'));
    replace('/etc/prometheus/tidings.key', join(dir, 'tidings.key'));
    replace("'127.0.0.1:9091'", ports.map((port) => `'127.0.0.1:${port}'`).join(', '));
    replace("'127.0.0.1:8080'", keyed.map((port) => `'127.0.0.1:${port}'`).join(', '));
    writeFileSync(join(dir, 'tidings.yml'), accelerated(RULES, FACTOR));
    writeFileSync(join(dir, 'tidings.key'), key);
    writeFileSync(join(dir, 'prometheus.yml'), accelerated(text, FACTOR));
    mkdirSync(join(dir, 'data'));
    const command = (port) => [
      'prometheus',
      [
        `--config.file=${dir}/prometheus.yml`,
        `--storage.tsdb.path=${dir}/data`,
        `--web.listen-address=127.0.0.1:${port}`,
        `--query.lookback-delta=${300 / FACTOR}s`,
      ],
    ];
    const { port } = await start(t, command, /ready to receive web requests/);
    const prometheus = new Prometheus();
    prometheus.#origin = `http://127.0.0.1:${port}`;
    return prometheus;
  }

  /** The series of an instant query, as `{ labels, value }`. */
  async query(expression) {
    const { result } = await this.#get(`/api/v1/query?${new URLSearchParams({ query: expression })}`);
    return result.map(({ metric, value: [, value] }) => ({ labels: metric, value: Number(value) }));
  }

  /** The alerts that fire, as `name@instance`, in order. */
  firing() {
    return this.#alerts('ALERTS{alertstate="firing"}');
  }

  /** Those that have fired at any time. */
  everFired() {
    return this.#alerts('max_over_time(ALERTS{alertstate="firing"}[1h])');
  }

  /** Waits until each target was scraped so many times with success. */
  scrapes(count, targets) {
    return this.until(`${count} scrapes`, async () => {
      const counts = await this.query('sum_over_time(up[1h])');
      return counts.length === targets && counts.every(({ value }) => value >= count);
    });
  }

  /** Waits until `holds` is true. */
  async until(what, holds) {
    const deadline = Date.now() + 3 * PATIENCE_MS;
    while (!(await holds())) {
      if (Date.now() > deadline) assert.fail(`timed out waiting for ${what}; firing: ${await this.firing()}`);
      await pause(PACE_MS);
    }
  }

  async #alerts(expression) {
    const alerts = await this.query(expression);
    return [...new Set(alerts.map(({ labels }) => `${labels.alertname}@${labels.instance}`))].sort();
  }

  async #get(path) {
    const response = await fetch(this.#origin + path);
    const { status, data, error } = await response.json();
    assert.equal(status, 'success', `${path}: ${error}`);
    return data;
  }
}
