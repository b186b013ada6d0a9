// It sends headers, such as a credential: `node event-source-plus.mjs URL KEY`.
import { EventSourcePlus } from 'event-source-plus';
import { opened, report, url } from './report.mjs';

const [key] = process.argv.slice(3);
const headers = key ? { Authorization: `Bearer ${key}` } : {};
new EventSourcePlus(url, { headers }).listen({
  onResponse: opened,
  onMessage: ({ event, id, data }) => report({ type: event, id, data }),
});
