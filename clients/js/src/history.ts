// What happened between two positions: a request that ends.

import { steps, type Step } from './message.js';
import type { Requests } from './source.js';

/** Reads the events after `since` up to the id `until`. Rejects if not all of them arrived. */
export async function readHistory(
  requests: Requests,
  keys: Iterable<string>,
  since: string,
  until: string,
  take: (step: Step) => void,
  signal: AbortSignal,
): Promise<void> {
  let isComplete = false;
  const onBlock = steps((step) => {
    isComplete ||= step.notice?.kind === 'end';
    take({ ...step, replayed: true });
  });
  await requests.read({ keys, query: { since, until }, onBlock }, signal);
  // As if the network had failed.
  if (!isComplete) throw new TypeError('A response was cut');
}
