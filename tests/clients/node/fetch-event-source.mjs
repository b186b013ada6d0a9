// A library for web pages: it asks the page for its timers and its visibility.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };

const { fetchEventSource } = await import('@microsoft/fetch-event-source');
const { opened, report, url } = await import('./report.mjs');

await fetchEventSource(url, {
  async onopen(response) {
    if (response.headers.get('content-type') !== 'text/event-stream') throw new Error('not an event stream');
    opened();
  },
  onmessage: ({ event, id, data }) => report({ type: event || 'message', id, data }),
});
