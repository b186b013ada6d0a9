// Streams of any server, or of a route of the application: what `on` names is then the type of events. What such a server resumes, it
// resumes after the header `Last-Event-ID`.

import type { OnBlock } from './event-stream.js';
import { request } from './request.js';
import type { Source } from './source.js';

/** For the option `source`: the URL is that of the stream itself. `since` and tickets are for hubs only. */
export const plain: Source = (url, options) => ({
  key: '',
  async read(reading) {
    const { lastId = '', take, onBytes } = reading;
    // A plain stream has no history that could be read separately.
    if (reading.until) return;
    let begin: typeof take | undefined = take;
    const plainReading: typeof reading = {
      ...reading,
      onBytes() {
        onBytes?.();
        begin?.({ kind: 'hello', id: lastId });
        begin = undefined;
      },
    };
    const onBlock: OnBlock = (data, type, id) =>
      take({ ...(type === 'tidings' ? data && JSON.parse(data) : data !== undefined && { topic: type, type, data, replayed: false }), id: id || lastId });
    const token = await options.token?.();
    const headers = {
      Accept: 'text/event-stream',
      ...(lastId && { 'Last-Event-ID': lastId }),
      ...(token && { Authorization: `Bearer ${token}` }),
    };
    await request(url, options, plainReading, onBlock, headers);
  },
  // A token is asked for with each request.
  renew: options.token && (async () => {}),
});
