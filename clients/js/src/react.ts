// Hooks for React 18 and later. What they subscribe to, they leave when the component is gone; on a server they subscribe to nothing.

import { useEffect, useRef, useSyncExternalStore } from 'react';
import type { HubState } from './state.js';
import type { Data, Hub, Matcher, Meta, Status, Subscribe } from './types.js';

/** Calls `handler` for every event while the component is mounted; always the handler of the latest rendering. */
export function useTopic<Events, Topic extends (keyof Events & string) | (string & {})>(
  hub: Hub<Events>,
  matcher: Matcher<Topic>,
  handler: (data: Data<Events, Topic>, meta: Meta) => void,
  { since }: Pick<Subscribe, 'since'> = {},
): void {
  const latest = useRef(handler);
  useEffect(() => {
    latest.current = handler;
  });
  const isPattern = typeof matcher === 'object';
  const name = isPattern ? matcher.pattern : matcher;
  useEffect(
    () => hub.on<Topic>(isPattern ? { pattern: name } : (name as Topic), (data, meta) => latest.current(data, meta), { since }),
    [hub, isPattern, name, since],
  );
}

/** The present value of a {@link HubState}; its initial one on a server, and while the page is hydrated. */
export function useHubState<State>(state: HubState<State>): State | undefined {
  return useSyncExternalStore(state.subscribe, state.get, state.get);
}

/** The status of the connection. */
export function useStatus(hub: Hub<any>): Status {
  return useSyncExternalStore(
    hub.onStatus,
    () => hub.status,
    () => 'connecting',
  );
}
