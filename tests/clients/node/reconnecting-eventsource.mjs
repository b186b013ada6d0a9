// It wraps the EventSource of its environment.
import { EventSource } from 'eventsource';
import reconnecting from 'reconnecting-eventsource';
import { listen, url } from './report.mjs';

const ReconnectingEventSource = reconnecting.default ?? reconnecting;
listen(new ReconnectingEventSource(url, { eventSourceClass: EventSource }));
