import { createEventSource } from 'eventsource-client';
import { opened, report, url } from './report.mjs';

createEventSource({ url, onConnect: opened, onMessage: ({ event, id, data }) => report({ type: event ?? 'message', id, data }) });
