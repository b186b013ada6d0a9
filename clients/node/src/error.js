// What goes wrong, for people: what it was, which value, what to do.

/** How much of an answer that is no problem document an error shows. */
const EXCERPT_CHARACTERS_MAX = 300;

/** The hub refused something, could not be reached, or was used incorrectly. */
export class TidingsError extends Error {
  /**
   * @param {string} message
   * @param {{ cause?: unknown, status?: number, outcome?: Outcome, retryAfterMillis?: number }} [details]
   */
  constructor(message, { cause, status, outcome = 'not-published', retryAfterMillis } = {}) {
    super(message, { cause });
    this.name = 'TidingsError';
    /** The status of the hub's answer, if there was one. */
    this.status = status;
    /**
     * What is known about a publication that failed: `unknown` means that it may have been published.
     * @type {Outcome}
     */
    this.outcome = outcome;
    /** How long the hub asks to wait before the next attempt. */
    this.retryAfterMillis = retryAfterMillis;
  }
}

/** @typedef {'not-published' | 'unknown'} Outcome */

/**
 * The error for an answer that is no success.
 *
 * @param {string} what what was requested, as in `publishing on "chat"`
 * @param {Response} response
 */
export async function refusal(what, response) {
  const text = await response.text().catch(() => '');
  const seconds = Number(response.headers.get('retry-after') ?? Number.NaN);
  const { status } = response;
  // A proxy that gave up does not know what the hub did. A hub says so where nothing happened.
  const isUnknown = status >= 500 && status !== 507 && !text.includes('Nothing was');
  return new TidingsError(`${what} was answered ${status}: ${detail(text)}`, {
    status,
    outcome: isUnknown ? 'unknown' : 'not-published',
    retryAfterMillis: Number.isFinite(seconds) ? seconds * 1000 : undefined,
  });
}

/** @param {string} text the body of an answer: a problem document of the hub, or something of a proxy */
function detail(text) {
  try {
    const { detail, title } = JSON.parse(text);
    return detail ?? title ?? text;
  } catch {
    return text.slice(0, EXCERPT_CHARACTERS_MAX).trim() || '(no text)';
  }
}
