// One call of `on` or `onGap`: what it matches, and how far it is.

import type { Step } from './message.js';
import type { Gap, Matcher, Meta, Settings, Subscribe } from './types.js';

export interface Subscription extends Pick<Subscribe, 'onLive'> {
  /** Where it begins, or continues: a word of the hub. */
  since: string;
  /** The topic or pattern as a piece of a query; the same for equal ones. */
  key: string;
  /** `undefined` until the stream has its events; what arrives while its history is read; `null` once it is live. */
  queue_?: Set<Step> | null | undefined;
  /** Whether it is one of `onGap`. */
  isOfGaps_: boolean;
  take(step: Step): void;
}

/** What `on` and `onGap` are given. */
export interface Handlers extends Subscribe {
  event?: (data: any, meta: Meta) => void;
  gap?: (gap: Gap) => void;
}

/** Throws if the pattern is invalid, or if this browser has no URLPattern. `fixedKey` is the key of a source that has only one. */
export function subscription(
  matcher: Matcher,
  url: string,
  { event, gap, since = 'now', onLive }: Handlers,
  { parse, onError }: Settings,
  fixedKey?: string,
): Subscription {
  const { pattern } = matcher as { pattern?: string };
  const compiled = (pattern && new URLPattern(pattern, url)) as URLPattern | undefined;

  return {
    key: fixedKey ?? `${new URLSearchParams(pattern ? { pattern } : { topic: matcher as string })}`,
    since,
    onLive,
    isOfGaps_: !event,
    take({ kind, data, ...rest }) {
      const { topic } = rest as Meta;
      // An error of one handler must not keep the event from the others.
      try {
        if (kind === 'gap') gap?.(rest as unknown as Gap);
        if (data !== undefined && (compiled?.test(topic, url) ?? (matcher === '*' || matcher === topic))) event?.(parse(data, topic), rest as Meta);
      } catch (cause) {
        onError(new Error(`Event ${(rest as Meta).id} failed: ${cause}`, { cause }));
      }
    },
  };
}
