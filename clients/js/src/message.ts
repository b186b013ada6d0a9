// What the tab that holds the connection passes on to all tabs, itself among them.

import type { OnBlock } from './event-stream.js';
import type { Gap } from './types.js';

/** An event, as `format=json` writes it. */
export interface Event {
  topic: string;
  type: string;
  time?: string;
  data: string;
}

/** What the hub itself says in a stream. */
export type Notice =
  | ({ kind: 'gap' } & Gap)
  | { kind: 'hello'; heartbeat_secs?: number }
  | { kind: 'reconnect' | 'expiring' | 'expired' | 'revoked' | 'over-limit' | 'end' };

/** What moves a reader of the stream to the position `id`, an id of the hub. */
export interface Step {
  id: string;
  event?: Event;
  notice?: Notice;
  /** Whether it is read from the history. */
  replayed?: boolean;
  /** From here on, the stream has the events of these topics and patterns, and of no others. */
  covers?: string[];
}

/** A step that is passed on. A tab that is not at the position `from` has missed something, or has the step already. */
export interface PassedStep extends Step {
  from: string | undefined;
}

/** What a reader misses that cannot be read: the hub refuses to say what came after `requested`. */
export function missed(requested: string, newest: string): Step {
  return { id: newest, notice: { kind: 'gap', reason: 'unknown', requested, oldest: null, newest } };
}

/** Reads the blocks of a stream as steps. */
export function steps(take: (step: Step) => void): OnBlock {
  return (data, type, id) => take({ id, ...(data !== undefined && { [type === 'tidings' ? 'notice' : 'event']: JSON.parse(data) }) });
}
