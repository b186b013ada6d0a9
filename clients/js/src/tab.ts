// What one tab receives: it follows the steps of the connection, whichever tab holds it, and reads by itself what it missed.

import { backoff } from './backoff.js';
import { readHistory } from './history.js';
import { missed, type PassedStep, type Step } from './message.js';
import type { Refusal, Requests } from './source.js';
import type { Subscription } from './subscription.js';
import type { Settings } from './types.js';

/** How many ids are remembered. Only a tab that took over passes on again what others have, and it is behind by less than that. */
const REMEMBERED_MAX = 1000;

export interface Tab {
  subscriptions: Set<Subscription>;
  /** The id up to which everything was received. */
  position(): string | undefined;
  /** What the stream has events of. */
  covered(): Set<string>;
  /** Begins what waits for the stream. */
  begin(): void;
  receive(step: PassedStep): void;
  /** From here on, the stream has the events of these only. Other subscriptions continue from here once it has theirs again. */
  cover(keys: Iterable<string>): void;
  /** Ends what is being read; it is read again after `cover` and `begin`. */
  suspend(): void;
}

export function tab(requests: Requests, { onError }: Settings): Tab {
  const subscriptions = new Set<Subscription>();
  let position: string | undefined;
  let covered = new Set<string>();
  let reading = new AbortController();
  const remembered = new Set<string>();

  function remember(id: string): void {
    remembered.add(id);
    if (remembered.size > REMEMBERED_MAX) remembered.delete(remembered.values().next().value!);
  }

  function receive(step: PassedStep): void {
    const isNext = position === undefined || position === step.from;
    if (isNext || !remembered.has(step.id)) {
      if (!isNext) {
        const keys = covered;
        cover([]);
        covered = keys;
        position = step.from ?? step.id;
        begin();
      }
      position = step.id;
      remember(step.id);
      for (const subscription of [...subscriptions]) {
        const { queue } = subscription;
        if (queue === null) subscription.take(step);
        // Those that are read together have one queue.
        else if (queue && queue.at(-1) !== step) queue.push(step);
      }
    }
    if (step.covers) {
      cover(step.covers);
      begin();
    }
  }

  function cover(keys: Iterable<string>): void {
    covered = new Set(keys);
    for (const subscription of subscriptions) {
      if (covered.has(subscription.key)) continue;
      if (subscription.queue === null) subscription.since = `id:${position}`;
      subscription.queue = undefined;
    }
  }

  function begin(): void {
    /** Those that continue after the same id are read together. */
    const queues: Record<string, Step[]> = {};
    for (const subscription of subscriptions) {
      const { key, since, queue } = subscription;
      if (queue !== undefined || !covered.has(key)) continue;
      if (since && since !== `id:${position}`) subscription.queue = queues[since.startsWith('id:') ? since : key + since] ??= [];
      else goLive(subscription);
    }
    for (const name in queues) load(queues[name]!, position!);
  }

  function goLive(subscription: Subscription): void {
    subscription.queue?.forEach(subscription.take);
    subscription.queue = null;
    subscription.onLive?.();
  }

  /** Reads the history up to a position of the subscriptions that have this queue. */
  async function load(queue: Step[], until: string): Promise<void> {
    const { signal } = reading;
    const group = () => [...subscriptions].filter((subscription) => subscription.queue === queue);
    const keys = new Set(group().map(({ key }) => key));
    const take = (step: Step): void => {
      remember(step.id);
      for (const subscription of subscriptions) {
        const isOfGroup = subscription.queue === queue;
        if (isOfGroup) subscription.since = `id:${step.id}`;
        // A gap is one of all that is read.
        if (isOfGroup || (step.notice && keys.has(subscription.key))) subscription.take(step);
      }
    };
    const since = group()[0]!.since!;
    const error: Partial<Refusal> | undefined = await readHistory(requests, keys, since, until, take, signal).catch((error) => error);
    if (signal.aborted) return;
    if (error?.status === 401) requests.forget();
    if (error?.status === 400) {
      // It would be refused for ever.
      onError(error as Error);
      for (const subscription of group()) subscription.take(missed(since, until));
    } else if (error) {
      for (const subscription of group()) subscription.queue = undefined;
      setTimeout(begin, backoff(1));
    }
    group().forEach(goLive);
  }

  return {
    subscriptions,
    position: () => position,
    covered: () => covered,
    begin,
    receive,
    cover,
    suspend() {
      cover([]);
      reading.abort();
      reading = new AbortController();
    },
  };
}
