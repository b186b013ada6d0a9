// The types of the package, as an application in TypeScript uses them: `tsc` compiles this, and nothing runs it.

import { createServer } from 'node:http';
import { Client, TidingsError, publish, publishLater, publishMany, revoke, stream, subscribe, ticket } from 'tidings';
import type { Item, NewEvent, Receipt } from 'tidings';
import { stream as answerStream } from 'tidings/express';
import { record } from 'tidings/testing';

export async function used(): Promise<void> {
  const receipt: Receipt = await publish('chat', { any: ['value', 1] }, { private: true, type: 'note' });
  const events: NewEvent[] = [{ topic: ['a', 'b'], data: receipt.id }];
  const receipts: Receipt[] = await publishMany(events, { idempotencyKey: 'order-17' });
  const nothing: void = publishLater('chat', receipts.length);
  const text: string = await ticket(['user-42'], { label: 'user-42', expires: 60 });
  await revoke({ label: text });

  for await (const item of subscribe('chat', { since: '-50', signal: AbortSignal.timeout(1000) })) {
    if (item.kind === 'gap') console.log(item.reason satisfies 'expired' | 'unknown' | 'other-log');
    else console.log(item.data.length, item.time.getTime(), nothing);
  }
  const items: AsyncGenerator<Item, void, void> = new Client({ url: 'http://:KEY@127.0.0.1:8080', timeoutMillis: 500 }).subscribe([]);
  await items.return();

  const recorded = record();
  recorded.published satisfies { topic: string; data: string; private: boolean }[];
  recorded.end();
}

export const GET = (request: Request): Promise<Response> => stream(request, 'chat', { label: 'user-42' });
createServer((request, response) => void answerStream(request, response, 'chat', 'news', { since: '-50' }));

export function outcome(error: unknown): 'unknown' | 'not-published' | number | undefined {
  return error instanceof TidingsError ? (error.status ?? error.outcome) : undefined;
}

// @ts-expect-error a misspelt option
void publish('chat', 'x', { privat: true });
// @ts-expect-error a topic is text
void publish(42, 'x');
// @ts-expect-error a stream has topics of text
void stream(new Request('http://app/'), 42);
// @ts-expect-error expires is a number of seconds
void ticket('chat', { expires: '10m' });
