// What an application sees of a hub: nothing here exists at run time.

import type { Source } from './source.js';

/** Whether events arrive: see {@link Hub.status}. */
export type Status = 'connecting' | 'connected' | 'replaying' | 'offline' | 'unauthorized';

/** What is known of an event besides its data. */
export interface Meta {
  /** The id of the event; empty if a server that is not a hub gave none. */
  id: string;
  /** Its first topic; from a server that is not a hub, its type. */
  topic: string;
  /** Its type; `message` if the publisher gave none. */
  type: string;
  /** When it was published, in the form of RFC 3339; a server that is not a hub does not say it. */
  time?: string | undefined;
  /** Whether it was read from the history: from before the subscription, or after an interruption. */
  replayed: boolean;
}

/** Events are missing: the hub no longer had them. */
export interface Gap {
  /** Where the stream continues, after what is missing: an application that stores ids to continue later stores this one too. */
  id: string;
  reason: 'expired' | 'unknown' | 'other-log';
  /** The id after which the client wanted to continue. */
  requested: string;
  /** The oldest event that is kept. */
  oldest: string | null;
  /** The end of the log. */
  newest: string;
}

/** What to receive: a topic, `*` for all, or the topics that a URL Pattern matches. */
export type Matcher<Topic extends string = string> = Topic | { pattern: string };

/** Turns the text of an event into what handlers receive; throws if it is not valid. */
export interface Parse<Events> {
  (text: string, topic: string): unknown;
  /** Never set; it carries the type of the data of each topic. */
  events?: Events;
}

/** How a subscription begins. */
export interface Subscribe {
  /** Where it begins: `now` by default, or `earliest`, `-50`, `10m`, a time, an id of the hub, `id:` and an id. */
  since?: string | undefined;
  /** Called whenever it has received all of its history, and continues with what is published. */
  onLive?: (() => void) | undefined;
}

export interface Options<Events = Record<string, any>> {
  /** Resolves with a ticket. Called for the first connection, before the ticket expires, and after a refusal. */
  ticket?: () => string | Promise<string>;
  /** The same for a token, which is sent as `Authorization: Bearer …`. */
  token?: () => string | Promise<string>;
  /** `include` sends cookies to a hub of another origin; `same-origin` by default. */
  credentials?: RequestCredentials;
  /** `shared`: one connection for all tabs with the same URL and `session`. In an insecure context every tab has its own. */
  tabs?: 'shared' | 'separate';
  /** With shared tabs: what tells the users of this browser apart. Tabs of different sessions share nothing. */
  session?: string;
  /** How data is read: as JSON by default; `String` leaves it text. */
  parse?: Parse<Events>;
  /** Where streams come from: a hub by default. */
  source?: Source;
  /** Called with what a developer should know: refused requests, data that is not valid. `console.error` by default. */
  onError?: (error: Error) => void;
}

/** Options with their defaults. */
export type Settings = Options<any> & Required<Pick<Options<any>, 'parse' | 'onError' | 'source'>>;

/** The data of a topic: what `Events` says. A pattern, or a topic that it does not name, may have that of any. */
export type Data<Events, Topic> = Topic extends keyof Events ? Events[Topic] : Events[keyof Events];

/** A connection to a hub, from `connect`. */
export interface Hub<Events = Record<string, any>> {
  /**
   * `connecting` before the first connection and after a regular end; `connected`; `replaying` while missed events are read;
   * `offline` while the hub cannot be reached; `unauthorized` while it refuses the credential. The client never gives up.
   */
  readonly status: Status;
  /** Calls `listener` when the status changes; returns a function that ends this. */
  onStatus(listener: (status: Status) => void): () => void;
  /**
   * Calls `handler` for every event, in the order of the hub; returns a function that ends this.
   * Throws if the pattern is invalid, or the connection is closed.
   */
  on<Topic extends (keyof Events & string) | (string & {})>(
    matcher: Matcher<Topic>,
    handler: (data: Data<Events, Topic>, meta: Meta) => void,
    options?: Subscribe,
  ): () => void;
  /**
   * Calls `handler` when the hub reports that events are missing in a stream that has this topic or pattern: what the page shows has
   * to be loaded anew. A report does not say which of the topics of a stream it is about.
   */
  onGap(matcher: Matcher<(keyof Events & string) | (string & {})>, handler: (gap: Gap) => void): () => void;
  /** Ends all subscriptions, and the connection. */
  close(): void;
}
