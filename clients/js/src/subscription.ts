// One call of `on` or `onGap`: what it matches, and how far it is.

import type { Step } from './message.js';
import type { Gap, Matcher, Meta, Settings, Subscribe } from './types.js';

export interface Subscription extends Subscribe {
  /** The topic or pattern as a piece of a query; the same for equal ones. */
  key: string;
  /** `undefined` until the stream has its events; what arrives while its history is read; `null` once it is live. */
  queue?: Step[] | null | undefined;
  take(step: Step): void;
}

/** What `on` and `onGap` are given. */
export interface Handlers {
  event?: (data: any, meta: Meta) => void;
  gap?: (gap: Gap) => void;
}

/** Throws a TypeError if the pattern is invalid, or if this browser has no URLPattern. */
export function subscription(matcher: Matcher, url: string, { event, gap }: Handlers, { parse, onError }: Settings): Subscription {
  const pattern = typeof matcher === 'object' && matcher.pattern;
  const compiled = pattern && new (globalThis as any).URLPattern(pattern, url);

  return {
    key: `${new URLSearchParams(pattern ? { pattern } : { topic: matcher as string })}`,
    take({ id, event: received, notice, replayed = false }) {
      // An error of one handler must not keep the event from the others.
      try {
        if (notice?.kind === 'gap') gap?.(notice);
        if (!event || !received) return;
        const { data, ...meta } = received;
        const { topic } = meta;
        if (compiled ? compiled.test(topic, url) : matcher === '*' || matcher === topic) event(parse(data, topic), { ...meta, id, replayed });
      } catch (cause) {
        onError(new Error(`Event ${id} could not be handled: ${cause}`, { cause }));
      }
    },
  };
}
