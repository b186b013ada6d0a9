// State that a server has, kept up to date in the page: loaded once, and changed by every event after it.

import { backoff } from './backoff.js';
import type { Data, Gap, Hub, Meta } from './types.js';

export interface StateOptions<State, Event> {
  /**
   * Loads the state: resolves with it, or with a `Response` whose body is it in JSON. With the header `Tidings-Cursor` of that
   * response, exactly the events after this position are applied. Without it, so are events that the state may already include:
   * then `apply` must bear an event twice.
   */
  load: () => State | Response | Promise<State | Response>;
  /** The state after an event: a new value, not a changed one. */
  apply: (state: State, event: Event, meta: Meta) => State;
  /** What `get` returns until the state is loaded, such as what the server has put into the page. */
  initial?: State;
  /** Called when loading fails, which is then tried again. `console.error` by default. */
  onError?: (error: unknown) => void;
}

/** A store, in the form in which frameworks read them. */
export interface HubState<State> {
  /** The present value; `undefined` until it is loaded, if there is no initial one. */
  get(): State | undefined;
  /** Calls `listener` after every change; returns a function that ends this. Loads the state when it is called first. */
  subscribe(listener: () => void): () => void;
  /** Ends all updates. */
  close(): void;
}

/** Keeps the state of a topic up to date. It is loaded again when events are missing. */
export function state<Events, Topic extends keyof Events & string, State>(
  hub: Hub<Events>,
  topic: Topic,
  { load, apply, initial, onError = console.error }: StateOptions<State, Data<Events, Topic>>,
): HubState<State> {
  const listeners = new Set<() => void>();
  let value = initial;
  let endGaps: (() => void) | undefined;
  let endEvents = () => {};
  let isClosed = false;

  function set(next: State): void {
    value = next;
    for (const listener of [...listeners]) listener();
  }

  async function loaded(): Promise<[State, string | null]> {
    const result = await load();
    if (!(result instanceof Response)) return [result, null];
    if (!result.ok) throw new Error(`${result.url} was answered ${result.status}`);
    return [await result.json(), result.headers.get('tidings-cursor')];
  }

  /** Subscribes first, and loads once the subscription stands, so that no event falls between the two. */
  function start(): void {
    endEvents();
    let isCurrent = true;
    let pending: [Data<Events, Topic>, Meta][] | undefined = [];
    let isLoading = false;

    async function fill(failures = 0): Promise<void> {
      try {
        const [snapshot, cursor] = await loaded();
        if (!isCurrent) return;
        const applied = cursor ? [] : pending!;
        pending = undefined;
        if (cursor) follow(`id:${cursor}`);
        set(applied.reduce((state, [data, meta]) => apply(state, data, meta), snapshot));
      } catch (error) {
        if (!isCurrent) return;
        onError(error);
        setTimeout(() => isCurrent && fill(failures + 1), backoff(failures));
      }
    }

    function onLive(): void {
      if (!isLoading) void fill();
      isLoading = true;
    }

    function follow(since?: string): void {
      end();
      end = hub.on(topic, (data, meta) => (pending ? void pending.push([data, meta]) : set(apply(value!, data, meta))), {
        since,
        onLive: since ? undefined : onLive,
      });
    }

    let end = () => {};
    endEvents = () => {
      isCurrent = false;
      end();
    };
    follow();
  }

  return {
    get: () => value,
    subscribe(listener) {
      listeners.add(listener);
      if (!endGaps && !isClosed) {
        endGaps = hub.onGap(topic, start as (gap: Gap) => void);
        start();
      }
      return () => void listeners.delete(listener);
    },
    close() {
      isClosed = true;
      endGaps?.();
      endEvents();
      listeners.clear();
    },
  };
}
