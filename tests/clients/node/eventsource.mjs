import { EventSource } from 'eventsource';
import { listen, url } from './report.mjs';

listen(new EventSource(url));
