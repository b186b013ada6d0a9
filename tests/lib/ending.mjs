// Everything that a test starts ends with the test, also after a failure, in reverse order: a client before its hub.

const endings = new WeakMap();

/** Runs `end` when the test `t` is over. */
export function atEnd(t, end) {
  if (!endings.has(t)) {
    const stack = [];
    endings.set(t, stack);
    t.after(async () => {
      const failures = [];
      for (const next of stack.reverse()) await Promise.resolve().then(next).catch((error) => failures.push(error));
      if (failures.length > 0) throw new AggregateError(failures, failures.map(String).join('; '));
    });
  }
  endings.get(t).push(end);
}
