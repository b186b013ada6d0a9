// From the text of an event stream, split anywhere, to events: HTML, "Parsing an event stream".

/** The largest event or line; beyond it the stream counts as broken. It allows the largest event of a hub in its JSON format. */
const CHARACTERS_MAX = 8 << 20;

/** @typedef {{ type: string, data: string, id: string }} ParsedEvent */

export class EventParser {
  /** The line whose end has not arrived yet. */
  #line = '';
  #type = '';
  /** @type {string[]} */
  #data = [];
  #size = 0;
  #isFirst = true;
  /** The last character was a CR: an LF right after it belongs to the same line end. */
  #afterReturn = false;

  /** The id in force after the last complete event; the id to resume with. */
  lastId;
  #id;
  /** How long the server asks to wait before reconnecting. @type {number | undefined} */
  retryMillis;

  /** @param {string} lastId */
  constructor(lastId) {
    this.lastId = this.#id = lastId;
  }

  /**
   * The events that this text completes.
   *
   * @param {string} text
   * @returns {Generator<ParsedEvent>}
   */
  *push(text) {
    if (this.#isFirst && text !== '') {
      this.#isFirst = false;
      if (text.startsWith('\ufeff')) text = text.slice(1);
    }
    if (this.#afterReturn && text !== '') {
      this.#afterReturn = false;
      if (text.startsWith('\n')) text = text.slice(1);
    }
    this.#afterReturn = text.endsWith('\r') || (text === '' && this.#afterReturn);
    const [first, ...others] = text.split(/\r\n|\n|\r/);
    this.#line += first;
    for (const next of others) {
      const event = this.#endOfLine(this.#line);
      if (event) yield event;
      this.#line = next;
    }
    if (this.#line.length + this.#size > CHARACTERS_MAX) throw new RangeError(`an event is longer than ${CHARACTERS_MAX} characters`);
  }

  /** @param {string} line @returns {ParsedEvent | undefined} */
  #endOfLine(line) {
    if (line === '') return this.#endOfEvent();
    const colon = line.indexOf(':');
    if (colon === 0) return undefined;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (name === 'event') this.#type = value;
    else if (name === 'data') {
      this.#data.push(value);
      this.#size += value.length;
    } else if (name === 'id' && !value.includes('\0')) this.#id = value;
    else if (name === 'retry' && /^\d+$/.test(value)) this.retryMillis = Number(value);
    return undefined;
  }

  #endOfEvent() {
    this.lastId = this.#id;
    const event = this.#data.length > 0 ? { type: this.#type || 'message', data: this.#data.join('\n'), id: this.lastId } : undefined;
    this.#type = '';
    this.#data = [];
    this.#size = 0;
    return event;
  }
}
