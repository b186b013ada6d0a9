// Streams of a hub, and the credential that they share until it has to be renewed.

import type { OnBlock } from './event-stream.js';
import type { Step } from './message.js';
import { request } from './request.js';
import type { Refusal, Source } from './source.js';

export const hubSource: Source = (url, options) => {
  let credential: (string | undefined)[] | undefined;
  const renew = async () => (credential = [await options.ticket?.(), await options.token?.()]);

  return {
    async read(reading) {
      const [ticket, token] = credential ?? (await renew());
      const { since = 'now', until } = reading;
      const query = new URLSearchParams({ format: 'json', since, ...(until ? { until: `id:${until}` } : { hello: 'true' }), ...(ticket && { ticket }) });
      let last: Step | undefined;
      const onBlock: OnBlock = (data, _, id) => reading.take((last = { ...(data && JSON.parse(data)), id, replayed: !!until }));
      const headers: Record<string, string> = token ? { Authorization: `Bearer ${token}` } : {};
      try {
        await request(`${url.replace(/\/?$/, '/stream?')}${[...reading.keys, query].join('&')}`, options, reading, onBlock, headers);
      } catch (error) {
        if ([401, 403].includes((error as Partial<Refusal>).status!)) credential = undefined;
        throw error;
      }
      // As if the network had failed.
      if (until && last?.kind !== 'end') throw new TypeError();
    },
    renew: (options.ticket || options.token) && renew,
  };
};
