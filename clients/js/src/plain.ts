// Streams of any server, or of a route of the application: what `on` names is then the type of events. What such a server resumes, it
// resumes after the header `Last-Event-ID`.

import { request } from './request.js';
import type { Source } from './source.js';

/** For the option `source`: the URL is that of the stream itself. `since` and tickets are for hubs only. */
export const plain: Source = (url, options) => ({
  key: '',
  async read(reading, signal) {
    // A plain stream has no history that could be read separately.
    const { lastId = '', onBlock, onBytes } = reading;
    if ('until' in reading.query) return onBlock('{"kind":"end"}', 'tidings', reading.query.until!);
    const plainReading: typeof reading = {
      ...reading,
      onBytes(isResponse) {
        onBytes?.();
        if (isResponse) onBlock('{"kind":"hello"}', 'tidings', lastId);
      },
      onBlock(data, type, id) {
        const isEvent = data !== undefined && type !== 'tidings';
        onBlock(isEvent ? JSON.stringify({ topic: type, type, data }) : data, isEvent ? 'message' : type, id || lastId);
      },
    };
    await request(url, await options.token?.(), options, plainReading, signal, lastId ? { 'Last-Event-ID': lastId } : {});
  },
  // A token is asked for with each request.
  renew: async () => {},
  forget: () => {},
});
