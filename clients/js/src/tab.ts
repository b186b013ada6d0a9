// What one tab receives: it follows the steps of the connection, whichever tab holds it, and reads by itself what it missed.

import { backoff } from './backoff.js';
import { REMEMBERED_MAX } from './limits.js';
import type { Step } from './message.js';
import type { Refusal, Requests } from './source.js';
import type { Subscription } from './subscription.js';
import type { Settings } from './types.js';

export interface Tab {
  subscriptions_: Set<Subscription>;
  /** The id up to which everything was received. */
  position_(): string | undefined;
  /** What the stream has events of. */
  covered_(): Set<string>;
  /** Takes a step that leads on from a position. */
  receive_(step: Step, from?: string): void;
  /**
   * From here on, the stream has the events of these only: begins what waits for them. Other subscriptions continue from here once it
   * has theirs again.
   */
  cover_(keys: Iterable<string>): void;
  /** Continues where this tab was, after `cover`; until `signal`. */
  resume_(signal: AbortSignal): void;
}

export function tab(requests: Requests, { onError }: Settings): Tab {
  const subscriptions = new Set<Subscription>();
  let position: string | undefined;
  let covered: Set<string>;
  let reading: AbortSignal;
  const remembered: string[] = [];

  function receive(step: Step, from?: string): void {
    const { id } = step;
    if (position !== from) {
      if (remembered.includes(id)) return;
      // What lies between is read by this tab.
      const keys = covered;
      cover([]);
      position = from ?? id;
      cover(keys);
    }
    position = id;
    // Those that are read together have one queue.
    for (const { queue_: queue } of subscriptions) queue?.add(step);
    give(step, null);
  }

  /**
   * Gives a step to the subscriptions that have this queue. Those of gaps get a gap in its place among the events of their topic: with
   * the first that receives these, or with any whose history it was read from.
   */
  function give(step: Step, queue: Set<Step> | null, isHistory?: boolean): void {
    if (remembered.push(step.id) > REMEMBERED_MAX) remembered.shift();
    const all = [...subscriptions];
    const takes = (subscription: Subscription) => subscription.queue_ === queue;
    for (const subscription of all) {
      const others = all.filter((other) => subscription.isOfGaps_ && !other.isOfGaps_ && other.key === subscription.key);
      if (takes(others[0] ?? subscription) || (isHistory && others.some(takes))) subscription.take(step);
    }
  }

  function cover(keys: Iterable<string>): void {
    // A new tab does not know yet where the stream is.
    covered = new Set(position === undefined ? [] : keys);
    for (const subscription of subscriptions) {
      if (covered.has(subscription.key)) continue;
      if (subscription.queue_ === null) subscription.since = `id:${position}`;
      subscription.queue_ = undefined;
    }
    begin();
  }

  function begin(): void {
    /** Those that continue after the same id are read together. */
    const queues: Record<string, Set<Step>> = {};
    for (const subscription of subscriptions) {
      const { key, since, queue_: queue } = subscription;
      if (queue !== undefined || !covered.has(key)) continue;
      // At the position of the stream there may be a gap to read as well: its id need not differ from the one before it.
      if (since === 'now') goLive(subscription);
      else subscription.queue_ = queues[/^id:./.test(since) ? since : key + since] ??= new Set();
    }
    for (const name in queues) load(queues[name]!);
  }

  function goLive(subscription: Subscription): void {
    subscription.queue_ = null;
    subscription.onLive?.();
  }

  /** Reads the history of the subscriptions that have this queue, up to the position. */
  function load(queue: Set<Step>): void {
    const group = () => [...subscriptions].filter((subscription) => subscription.queue_ === queue);
    const keys = new Set(group().map(({ key }) => key));
    const take = (step: Step): void => {
      for (const subscription of group()) subscription.since = `id:${step.id}`;
      give(step, queue, true);
    };
    const { since } = group()[0]!;
    requests
      .read({ keys, since, until: position!, take, signal: reading })
      .catch((error: Refusal) => {
        // Such a beginning would be refused for ever. The position is not: the hub has another log than this tab knows of yet.
        if (error.status === 400 && !/until/.test(error.message)) return onError(error);
        for (const subscription of group()) subscription.queue_ = undefined;
        setTimeout(begin, backoff(1));
      })
      .then(() => {
        for (const step of queue) give(step, queue);
        group().forEach(goLive);
      });
  }

  return {
    subscriptions_: subscriptions,
    position_: () => position,
    covered_: () => covered,
    receive_: receive,
    cover_: cover,
    resume_(signal) {
      reading = signal;
      cover([]);
    },
  };
}
