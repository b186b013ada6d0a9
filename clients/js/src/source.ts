// Where streams come from: a hub (`hub-source.ts`), or any server (`plain.ts`).

import type { Step } from './message.js';
import type { Options } from './types.js';

/** One stream. */
export interface Reading {
  /** Topics and patterns, each as a piece of a query. */
  keys: Iterable<string>;
  /** The history after this word of the hub, up to this id. Without them, a live stream, which begins with a notice `hello`. */
  since?: string;
  until?: string;
  take: (step: Step) => void;
  signal: AbortSignal;
  /** The last id that was received, for sources that continue after it by themselves. */
  lastId?: string | undefined;
  onRetry?: (millis: number) => void;
  /** Called for everything that arrives: first for the response, then for each piece of it. */
  onBytes?: () => void;
}

export interface Requests {
  /**
   * Resolves when the server has ended the stream, and all of the history arrived; rejects with a {@link Refusal}, or with what
   * interrupted it. A refused credential is not used again.
   */
  read(reading: Reading): Promise<void>;
  /** Gets another credential for the requests that follow, if they have one that ends. */
  renew?: (() => Promise<unknown>) | undefined;
  /** The one key of a source without topics. */
  key?: string;
}

/** Streams from the server at `url`. */
export type Source = (url: string, options: Options<any>) => Requests;

/** A response that is no stream. */
export interface Refusal extends Error {
  /** Of the response: 401 and 403 refuse the credential, 400 the beginning, or the end if `message` names `until`. */
  status: number;
  /** How long the server wants the client to wait; 0 or NaN if it does not say. */
  retryAfterSecs: number;
}
