// One call of `on` or `onGap`: what it matches, and how far it is.

import type { Step } from './message.js';
import type { Gap, Matcher, Meta, Settings, Subscribe } from './types.js';

export interface Subscription extends Pick<Subscribe, 'onLive'> {
  /** Where it begins, or continues: a word of the hub. */
  since: string;
  /** The topic or pattern as a piece of a query; the same for equal ones. */
  key: string;
  /** `undefined` until the stream has its events; what arrives while its history is read; `null` once it is live. */
  queue?: Step[] | null | undefined;
  take(step: Step): void;
}

/** What `on` and `onGap` are given. */
export interface Handlers extends Subscribe {
  event?: (data: any, meta: Meta) => void;
  gap?: (gap: Gap) => void;
}

/** Throws a TypeError if the pattern is invalid, or if this browser has no URLPattern. */
export function subscription(
  matcher: Matcher,
  url: string,
  { event, gap, since = 'now', onLive }: Handlers,
  { parse, onError }: Settings,
): Subscription {
  const { pattern } = matcher as { pattern?: string };
  const compiled = pattern && new (globalThis as any).URLPattern(pattern, url);

  return {
    key: `${new URLSearchParams(pattern ? { pattern } : { topic: matcher as string })}`,
    since,
    onLive,
    take({ kind, data, ...rest }) {
      const { id, topic } = rest as Meta;
      // An error of one handler must not keep the event from the others.
      try {
        if (kind === 'gap') gap?.(rest as unknown as Gap);
        if (!event || data === undefined) return;
        if (compiled?.test(topic, url) ?? (matcher === '*' || matcher === topic)) event(parse(data, topic), rest as Meta);
      } catch (cause) {
        onError(new Error(`Event ${id} could not be handled: ${cause}`, { cause }));
      }
    },
  };
}
