// How long to wait before the next attempt.

/** The delay after the first failure, if the server has not said one. */
export const RETRY_MILLIS = 1000;
/** No delay grows beyond this, unless the server wants it. */
const DELAY_MILLIS_MAX = 30_000;

/** The delay after this many failures in a row: it doubles, and is spread so that clients do not return together. */
export function backoff(failures: number, base = RETRY_MILLIS): number {
  return Math.max(base, Math.min(DELAY_MILLIS_MAX, base * 2 ** failures)) * (0.5 + Math.random() / 2);
}
