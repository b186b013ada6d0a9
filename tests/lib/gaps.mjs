// What subscribers of a hub must have received when it reports gaps: judged by what was published and removed, and by what the hub sent.

/** The digits of positions (crates/tidings-topic/src/cursor.rs). */
const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_~';
/** More than the positions of any log of a test. */
const LOG_LENGTH = 2 ** 32;

/** What identifies a report, and the callback that belongs to it. */
const identity = ({ id, reason, requested, oldest, newest }) => JSON.stringify({ id, reason, requested, oldest, newest });

/** The notices of gaps that a hub has sent through this proxy. */
export function reports(proxy) {
  const texts = {};
  for (const { connection, text } of proxy.passed.entries) if (text) texts[connection] = (texts[connection] ?? '') + text;
  const notices = Object.values(texts).join('\n').matchAll(/event: tidings\nid: (\S+)\ndata: (\{"kind":"gap".*)\n/g);
  return Array.from(notices, ([, id, data]) => ({ id, ...JSON.parse(data) }));
}

/** The events of a hub over all its logs. */
export class Past {
  #epochs = [];
  #events = [];

  /** A log began, of which this is an id. */
  begin(id) {
    this.#epochs.push(epochOf(id));
  }

  add(topic, number, id) {
    this.#events.push({ topic, number, id, place: this.#place(id), isDeleted: false });
  }

  /** Everything on this topic was deleted. */
  delete(topic) {
    for (const event of this.#events) if (event.topic === topic) event.isDeleted = true;
  }

  /**
   * What is wrong with the entries of a subscriber of one topic, `{ number, id }` for an event and `{ gap }` for a gap, in the order in
   * which it received them. `reports` are all notices of gaps that the hub sent. Events after the last one received are not looked for.
   */
  faults(topic, entries, reports) {
    const sent = reports.map(identity);
    const events = this.#events.filter((event) => event.topic === topic);
    const found = [];
    const called = [];
    /** Where the subscriber was when it had received its last event, and where it is. */
    let received;
    let place = -1;
    /** The gaps since its last event. */
    let gaps = [];
    for (const { number, id, gap } of entries) {
      if (gap) {
        const report = identity(gap);
        called.push(report);
        const [callbacks, notices] = [called, sent].map((all) => all.filter((one) => one === report).length);
        if (callbacks > notices) found.push(`gap ${report} had callback number ${callbacks} and was reported ${notices} times`);
        const requested = this.#place(gap.requested);
        if (requested < place) found.push(`gap ${report} came after what follows it`);
        received ??= requested;
        place = Math.max(place, this.#place(gap.id));
        gaps.push(gap);
        continue;
      }
      const next = this.#place(id);
      const event = events.find((event) => event.number === number);
      if (event?.id !== id) found.push(`event ${number} has the id ${id}, and not ${event?.id}`);
      if (next <= place) found.push(`event ${number} came twice, or too late`);
      const missing = received === undefined ? [] : events.filter((event) => event.place > received && event.place < next);
      const lost = missing.filter((event) => !gaps.some((gap) => this.#explains(gap, event)));
      if (lost.length) found.push(`events ${lost.map((event) => event.number)} before ${number} are missing, and no gap explains it`);
      const isOtherLog = received !== undefined && Math.floor(received / LOG_LENGTH) < Math.floor(next / LOG_LENGTH);
      if (isOtherLog && !gaps.some(({ reason }) => reason === 'other-log')) found.push(`event ${number} is of another log, and there was no gap before it`);
      received = Math.max(place, next);
      place = received;
      gaps = [];
    }
    return found;
  }

  /** Whether a hub that reported this gap could not give this event any more. */
  #explains({ requested, id, oldest, newest }, event) {
    if (event.place <= this.#place(requested) || event.place > this.#place(newest)) return false;
    return event.isDeleted || epochOf(event.id) !== epochOf(id) || oldest === null || event.place < this.#place(oldest);
  }

  /** Positions of later logs are greater. */
  #place(id) {
    const epoch = this.#epochs.indexOf(epochOf(id));
    if (epoch < 0) throw new Error(`${id} is of no log of this hub: ${this.#epochs}`);
    const digits = [...id.slice(id.indexOf('.') + 1)];
    return epoch * LOG_LENGTH + digits.reduce((number, digit) => number * DIGITS.length + DIGITS.indexOf(digit), 0);
  }
}

/** The part of an id that names the log. */
function epochOf(id) {
  return id.slice(1, id.indexOf('.'));
}
