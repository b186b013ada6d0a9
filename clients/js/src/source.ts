// Where streams come from: a hub (`hub-source.ts`), or any server (`plain.ts`).

import type { OnBlock } from './event-stream.js';
import type { Options } from './types.js';

/** One stream. */
export interface Reading {
  /** Topics and patterns, each as a piece of a query. */
  keys: Iterable<string>;
  /** Further parameters. With `until`, the stream ends there with a notice `end`; otherwise it begins with a notice `hello`. */
  query: Record<string, string>;
  onBlock: OnBlock;
  /** The last id that was received, for sources that continue after it by themselves. */
  lastId?: string | undefined;
  onRetry?: (millis: number) => void;
  /** Called for everything that arrives: for the response, and for what follows. */
  onBytes?: (isResponse?: boolean) => void;
}

export interface Requests {
  /** Resolves when the server has ended the stream; rejects with a {@link Refusal}, or with what interrupted it. */
  read(reading: Reading, signal: AbortSignal): Promise<void>;
  /** Gets another credential for the requests that follow. */
  renew(): Promise<unknown>;
  /** The same, with the next request. */
  forget(): unknown;
  /** The one key of a source without topics. */
  key?: string;
}

/** Streams from the server at `url`. */
export type Source = (url: string, options: Options<any>) => Requests;

/** A response that is no stream. */
export interface Refusal extends Error {
  status: number;
  /** How long the server wants the client to wait. */
  retryAfterSecs: number;
}
