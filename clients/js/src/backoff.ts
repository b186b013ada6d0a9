// How long to wait before the next attempt.

import { DELAY_MILLIS_MAX, RETRY_MILLIS } from './limits.js';

/** The delay after this many failures in a row: it doubles, and is spread so that clients do not return together. */
export function backoff(failures: number, base = RETRY_MILLIS): number {
  return Math.max(base, Math.min(DELAY_MILLIS_MAX, base * 2 ** failures)) * (1 + Math.random()) / 2;
}
