import { EventSource } from 'launchdarkly-eventsource';
import { listen, url } from './report.mjs';

const source = new EventSource(url);
// An error without a listener would end the process: the source is an EventEmitter.
source.addEventListener('error', () => {});
listen(source);
