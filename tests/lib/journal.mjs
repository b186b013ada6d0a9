// A record of what happened, and a way to wait for more: every wait in these tests ends with its result, or with an error that shows
// what happened instead.

/** The timeout of every wait. Long enough for a loaded machine; no test depends on it being short. */
export const PATIENCE_MS = 120_000;

export class Journal {
  #waiting = new Set();
  entries = [];

  add(entry) {
    this.entries.push(entry);
    for (const check of [...this.#waiting]) check();
  }

  /** Resolves with the result of `probe` on the entries, as soon as that is truthy. */
  until(what, probe, patienceMs = PATIENCE_MS) {
    return new Promise((resolve, reject) => {
      const settle = (how, value) => {
        clearTimeout(timer);
        this.#waiting.delete(check);
        how(value);
      };
      const check = () => {
        try {
          const found = probe(this.entries);
          if (found) settle(resolve, found);
        } catch (error) {
          settle(reject, error);
        }
      };
      const timer = setTimeout(() => {
        const soFar = JSON.stringify(this.entries, null, 1);
        settle(reject, new Error(`waited ${patienceMs} ms for ${what}; so far: ${soFar}`));
      }, patienceMs);
      this.#waiting.add(check);
      check();
    });
  }
}

/** Feeds the lines of a readable stream to `take`. */
export function lines(stream, take) {
  let rest = '';
  stream.setEncoding('utf8');
  stream.on('data', (text) => {
    const parts = (rest + text).split('\n');
    rest = parts.pop();
    parts.forEach(take);
  });
}
