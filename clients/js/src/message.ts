// What tabs tell each other, and what they receive from the hub as steps. These names stay as they are in every build.

import type { Gap, Status } from './types.js';

/** An event, as `format=json` writes it. */
export interface Event {
  topic: string;
  type: string;
  time?: string;
  data: string;
}

/** What the hub itself says in a stream. */
export interface Notice extends Partial<Gap> {
  kind: 'gap' | 'hello' | 'reconnect' | 'expiring' | 'expired' | 'revoked' | 'over-limit' | 'end';
  /** In `hello`; missing if the hub sends no heartbeats. */
  heartbeat_secs?: number;
}

/** What moves a reader of the stream to the position `id`: an event, a notice, or nothing else. */
export interface Step extends Partial<Event>, Partial<Notice> {
  id: string;
  /** Whether it is read from the history. */
  replayed?: boolean;
}

/** What the tab that holds the connection tells all tabs, itself among them. */
export interface Report {
  step?: Step;
  /** The position from which the step leads. A tab that is not there has missed something, or has the step already. */
  from?: string | undefined;
  /** From this step on, what is passed on has the events of these topics and patterns, and of no others. */
  covers?: Set<string>;
  status?: Status;
  /** What do you want? */
  ask?: true;
}

/** What tabs tell the one that holds the connection. */
export interface Demand {
  /** Topics and patterns. */
  want: string[];
  /** The network may be back. */
  wake?: boolean | undefined;
}
