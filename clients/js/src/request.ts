// One request for a stream.
//
// It is made with `fetch` and not with EventSource, which hides heartbeats, the status and Retry-After: a page could neither notice a
// dead connection nor see why it is refused. Without a token it has no header that another origin would have to permit first.

import { parser, type OnBlock } from './event-stream.js';
import type { Reading, Refusal } from './source.js';
import type { Options } from './types.js';

export async function request(
  url: string,
  token: string | undefined,
  { credentials }: Options<any>,
  { onRetry, onBytes, signal }: Reading,
  onBlock: OnBlock,
  headers: Record<string, string> = {},
): Promise<void> {
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(url, { headers, credentials, signal } as RequestInit);
  const { status } = response;
  if (status !== 200 || !/^text\/event-stream/.test(response.headers.get('content-type')!)) {
    const { detail } = await response.json().catch(() => response);
    throw Object.assign<Error, Omit<Refusal, keyof Error>>(new Error(`${url.split('?')[0]} was answered ${status}: ${detail}`), {
      status,
      isUnauthorized: status === 401 || status === 403,
      retryAfterSecs: +response.headers.get('retry-after')!,
    });
  }
  onBytes?.(true);
  const reader = response.body!.getReader();
  const parse = parser(onBlock, onRetry);
  for (let chunk; !(chunk = await reader.read()).done; parse(chunk.value)) onBytes?.();
}
