// A computer that sleeps: all processes of a browser stop, and continue where they were.

import { atEnd } from './ending.mjs';

/** Stops a browser; returns a function that continues it. It continues at the end of the test `t`, too, to be closed. */
export function putToSleep(t, browser) {
  // Puppeteer starts it as the leader of a process group, which all of its processes are in.
  const group = -browser.process().pid;
  process.kill(group, 'SIGSTOP');
  const wake = () => process.kill(group, 'SIGCONT');
  atEnd(t, wake);
  return wake;
}
