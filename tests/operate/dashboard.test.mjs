// The dashboard of deploy/grafana, and the metrics that it and the alerts are about.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RULES, metricsIn } from '../lib/alerts.mjs';
import { read } from '../lib/document.mjs';

const TEXT = read('deploy/grafana/tidings.json');
const { panels } = JSON.parse(TEXT);
/** Pages of Prometheus itself. */
const PAGES = ['Targets', 'Service discovery'];
/** The suffixes of the samples of a histogram. */
const OF_HISTOGRAM = /_(?:bucket|sum|count)$/;

test('the metrics of alerts and dashboard exist', () => {
  const documented = new Set([...read('docs/reference/metrics.md').matchAll(/^### (\w+)$/gm)].map(([, name]) => name));
  const used = [...metricsIn(RULES), ...panels.flatMap(({ targets = [] }) => targets.flatMap(({ expr }) => [...metricsIn(expr)]))];
  const missing = used.filter((name) => !documented.has(name) && !documented.has(name.replace(OF_HISTOGRAM, '')));
  assert.deepEqual([...new Set(missing)], []);
});

test('every panel has its own id and place, and the data source that the operator chooses', () => {
  assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
  const taken = new Set();
  for (const { title, gridPos, type, datasource, targets } of panels) {
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x += 1) {
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y += 1) {
        assert.ok(x < 24 && !taken.has(`${x},${y}`), `${title} overlaps another panel`);
        taken.add(`${x},${y}`);
      }
    }
    if (type === 'row') continue;
    for (const source of [datasource, ...targets.map((target) => target.datasource)]) {
      assert.deepEqual(source, { type: 'prometheus', uid: '${datasource}' }, title);
    }
  }
});

test('the panels that the runbook names are on the dashboard', () => {
  const titles = panels.map(({ title }) => title);
  const places = [...read('docs/runbook.md').matchAll(/^\*\*Where to look\.\*\*.*$/gm)].join('\n');
  const named = [...places.matchAll(/(?<!\*)\*([^*]+)\*(?!\*)/g)].map(([, name]) => name).filter((name) => !PAGES.includes(name));
  assert.ok(named.length > 0);
  assert.deepEqual(named.filter((name) => !titles.includes(name)), []);
});
