// One request for a stream.
//
// It is made with `fetch` and not with EventSource, which hides heartbeats, the status and Retry-After: a page could neither notice a
// dead connection nor see why it is refused. Without a token it has no header that another origin would have to permit first.

import { parser, type OnBlock } from './event-stream.js';
import type { Reading, Refusal } from './source.js';
import type { Options } from './types.js';

export async function request(
  url: string,
  { credentials }: Options<any>,
  reading: Reading,
  onBlock: OnBlock,
  headers: Record<string, string>,
): Promise<void> {
  const response = await fetch(url, { headers, credentials, signal: reading.signal } as RequestInit);
  const { status } = response;
  if (!/^200 text\/event-stream/.test(`${status} ${response.headers.get('content-type')}`)) {
    const { detail } = await response.json().catch(() => response);
    throw Object.assign<Error, Omit<Refusal, keyof Error>>(new Error(`${url.split('?')[0]} was answered ${status}: ${detail}`), {
      status,
      retryAfterSecs: +response.headers.get('retry-after')!,
    });
  }
  const reader = response.body!.getReader();
  const parse = parser(onBlock, reading.onRetry);
  for (let chunk; reading.onBytes?.(), !(chunk = await reader.read()).done; parse(chunk.value));
}
