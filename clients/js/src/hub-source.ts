// Streams of a hub, and the credential that they share until it has to be renewed.

import { request } from './request.js';
import type { Source } from './source.js';

export const hubSource: Source = (url, options) => {
  let credential: (string | undefined)[] | undefined;
  const ask = async () => (credential = [await options.ticket?.(), await options.token?.()]);

  return {
    async read(reading, signal) {
      const [ticket, token] = credential ?? (await ask());
      const query = new URLSearchParams({ format: 'json', ...reading.query, ...(ticket && { ticket }) });
      await request(`${url.replace(/\/?$/, '/stream?')}${[...reading.keys, query].join('&')}`, token, options, reading, signal);
    },
    renew: ask,
    forget: () => (credential = undefined),
  };
};
