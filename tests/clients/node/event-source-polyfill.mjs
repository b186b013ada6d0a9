import polyfill from 'event-source-polyfill';
import { listen, url } from './report.mjs';

listen(new polyfill.EventSourcePolyfill(url));
