// Which tab holds the connection: the one that has the lock. It passes everything on through a channel of this origin, and the browser
// gives the lock to the next tab when it is closed, crashes, or leaves.

import { live } from './live.js';
import type { Demand, Report } from './message.js';
import type { Requests } from './source.js';
import type { Tab } from './tab.js';
import type { Settings, Status } from './types.js';

export interface Connection {
  status(): Status;
  /** Connects, or waits for its turn to, and says what this tab wants. To be called whenever it wants more. */
  enter_(): void;
  /** Leaves the connection to others; `enter_` continues where this tab was. */
  leave_(): void;
  /** To be called when the network may be back. */
  wake(): void;
}

/** A connection that tabs share that know it by the same name; without a name it belongs to this one alone. */
export function connection(
  tab: Tab,
  requests: Requests,
  settings: Settings,
  listeners: Set<(status: Status) => void>,
  name: string | false | undefined,
): Connection {
  let channel: BroadcastChannel | undefined;
  let entered: AbortController | undefined;
  let isLeading: boolean | undefined;
  let status: Status = 'connecting';

  const stream = live(requests, tab, settings, report);

  function report(message: Report): void {
    message.from = tab.position_();
    channel?.postMessage(message);
    follow(message);
  }

  function follow({ step, from, covers, status: next = status, ask }: Report): void {
    if (step) tab.receive_(step, from);
    if (covers) tab.cover_(covers);
    if (next !== status) {
      status = next;
      for (const listener of [...listeners]) listener(status);
    }
    if (ask) want();
  }

  function lead({ want, wake }: Demand): void {
    if (wake) stream.wake();
    const id = tab.position_();
    // A new tab, or subscription, has to know where the stream is.
    if (id !== undefined) report({ step: { id }, covers: tab.covered_(), status });
    stream.want(want);
  }

  function want(wake?: boolean): void {
    const demand = { want: [...tab.subscriptions_].map(({ key }) => key), wake };
    if (isLeading) lead(demand);
    else channel?.postMessage(demand);
  }

  return {
    status: () => status,
    enter_() {
      if (!entered) {
        const { signal } = (entered = new AbortController());
        tab.resume_(signal);
        const hold = async () => {
          // It may have left while the lock was on its way.
          if (signal.aborted) return;
          isLeading = true;
          stream.wake();
          await new Promise((release) => (signal.onabort = release));
        };
        if (name) {
          channel = new BroadcastChannel(name);
          channel.onmessage = ({ data }) => {
            if (isLeading && data.want) lead(data);
            // What the former holder has passed on may arrive after the lock.
            else if (!stream.isOpen_()) follow(data);
          };
          // Rejects if this tab leaves before its turn.
          navigator.locks.request(name, { signal }, hold).catch(() => {});
        } else hold();
      }
      want();
    },
    leave_() {
      entered?.abort();
      channel?.close();
      entered = channel = isLeading = undefined;
      stream.stop_();
    },
    wake: () => want(true),
  };
}
