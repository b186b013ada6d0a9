// A hub with a log in memory, which it loses, or events of it, when it is asked to. It answers as `GET /stream` does, in steps.

export class SimulatedHub {
  /** All gaps that were reported. */
  notices = [];
  #epoch = 0;
  #newest = 0;
  #events = [];
  #gone = [];
  #onPublish;

  constructor(onPublish) {
    this.#onPublish = onPublish;
  }

  /** The log is lost, and another begins. */
  restart() {
    this.#epoch += 1;
    this.#newest = 0;
    this.#events = [];
    this.#gone = [];
  }

  /** The id of its end. */
  newest() {
    return this.#id(this.#newest);
  }

  publish(topic, number) {
    this.#newest += 1;
    this.#events.push({ topic, number, position: this.#newest });
    this.#onPublish();
    return this.#id(this.#newest);
  }

  /** Removes events. */
  remove(isMeant) {
    this.#gone.push(...this.#events.filter(isMeant));
    this.#events = this.#events.filter((event) => !isMeant(event));
  }

  /** Removes all but the newest events. */
  keep(count) {
    const kept = new Set(this.#events.slice(-count));
    this.remove((event) => !kept.has(event));
  }

  /** An open stream: `undefined` for as long as there is nothing new. */
  *stream(topics) {
    const epoch = this.#epoch;
    let position = this.#newest;
    let reported = position;
    yield { kind: 'hello', id: this.#id(position), heartbeat_secs: 0 };
    for (;;) {
      const { events, gone } = epoch === this.#epoch ? this.#after(topics, position) : { events: [] };
      if (gone > Math.max(position, reported)) {
        const notice = this.#notice('expired', position, events, gone, this.#newest);
        position = this.#position(notice.id);
        reported = gone;
        yield notice;
      } else if (events.length) {
        ({ position } = events[0]);
        yield this.#step(events[0], false);
      } else yield undefined;
    }
  }

  /** What is between `earliest` or an id and another id, with a notice where something is missing; `undefined` if that is not of this log. */
  history(topics, since, until) {
    const end = this.#position(until);
    if (end === undefined || end > this.#newest) return undefined;
    const isPromised = since !== 'earliest';
    const requested = isPromised ? this.#position(since.slice('id:'.length)) : 0;
    const start = requested ?? 0;
    const { events, gone } = this.#after(topics, start);
    const steps = events.filter(({ position }) => position <= end).map((event) => this.#step(event, true));
    if (requested === undefined) steps.unshift(this.#notice('other-log', start, events, gone, end, since.slice('id:'.length)));
    else if (isPromised && gone > start) steps.unshift(this.#notice('expired', start, events, gone, end));
    return [...steps, { kind: 'end', id: until, replayed: true }].values();
  }

  /** The events after a position, and up to where others are gone. */
  #after(topics, start) {
    const isWanted = ({ topic, position }) => position > start && topics.includes(topic);
    return { events: this.#events.filter(isWanted), gone: Math.max(start, ...this.#gone.filter(isWanted).map(({ position }) => position)) };
  }

  /** Its id is after the gap, but not after an event that is still to come. */
  #notice(reason, start, events, gone, end, requested = this.#id(start)) {
    const id = this.#id(Math.min(events[0]?.position <= gone ? start : gone, end));
    const oldest = this.#events.length ? this.#id(this.#events[0].position) : null;
    const notice = { kind: 'gap', id, reason, requested, oldest, newest: this.newest() };
    this.notices.push(notice);
    return notice;
  }

  #step({ topic, number, position }, replayed) {
    return { topic, type: 'message', data: String(number), id: this.#id(position), replayed };
  }

  #id(position) {
    return `#${this.#epoch}.${position}`;
  }

  #position(id) {
    const [epoch, position] = id.slice(1).split('.');
    return Number(epoch) === this.#epoch ? Number(position) : undefined;
  }
}
