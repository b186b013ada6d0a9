// The event stream format of the HTML standard, from bytes to blocks: https://html.spec.whatwg.org/multipage/server-sent-events.html

import { EVENT_LENGTH_MAX } from './limits.js';

/** What a blank line ends. `data` is undefined in a block without any, which only moves the last id. */
export type OnBlock = (data: string | undefined, type: string, id: string) => void;

/** A parser: a function that takes the stream in chunks, cut anywhere. */
export function parser(onBlock: OnBlock, onRetry?: (millis: number) => void): (chunk: Uint8Array) => void {
  // It removes one byte order mark, and replaces what is not UTF-8.
  const decoder = new TextDecoder();
  const fields: Record<string, string> = {};
  let data = '';
  let rest = '';
  let endsWithCr: boolean | undefined;

  function take(line: string): void {
    const [name, value = ''] = line.split(/: ?(.*)/s) as [string, string?];
    if (!line) {
      onBlock(data ? data.slice(0, -1) : undefined, fields.event || 'message', fields.id || '');
      data = fields.event = '';
    } else if (name === 'data') data += `${value}\n`;
    else if (name !== 'id' || !value.includes('\0')) fields[name] = value;
    if (/^retry: ?\d+$/.test(line)) onRetry?.(+value);
  }

  return (chunk) => {
    let text = decoder.decode(chunk, { stream: true });
    if (!text) return;
    // The other half of a line end whose CR has ended the line already.
    if (endsWithCr) text = text.replace(/^\n/, '');
    endsWithCr = text.endsWith('\r');
    const lines = (rest + text).split(/\r\n?|\n/);
    rest = lines.pop()!;
    lines.forEach(take);
    if (rest.length + data.length > EVENT_LENGTH_MAX) throw new Error('An event is too long');
  };
}
