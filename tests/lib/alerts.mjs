// The alert rules of deploy/prometheus, as a document.

import { read } from './document.mjs';

/** The text of the rules. */
export const RULES = read('deploy/prometheus/alerts.yml');

/** The names of all alerts, in the order of the file. */
export const ALERTS = [...RULES.matchAll(/^ *- alert: (\w+)$/gm)].map(([, name]) => name);

/** The same rules, or another configuration, with every duration divided by `factor`: alerts fire so many times faster. */
export function accelerated(text, factor) {
  const millis = { s: 1000, m: 60_000, h: 3_600_000 };
  const faster = (amount, unit) => `${Math.round((amount * millis[unit]) / factor)}ms`;
  return text.replace(/(\[|\b(?:for|\w+_interval): )(\d+)([smh])(\]|$)/gm, (_, before, amount, unit, after) => {
    return before + faster(amount, unit) + after;
  });
}

/** The names of metrics in an expression or a document. */
export function metricsIn(text) {
  return new Set(text.match(/\b(?:tidings|process)_[a-z0-9_]+\b/g));
}
