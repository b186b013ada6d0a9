// The environment of the process, also where there is none.

/** The value of a variable; an empty one counts as none. @param {string} name */
export function variable(name) {
  return globalThis.process?.env?.[name] || undefined;
}

/** Whether this is a development server: as TIDINGS_DEV says, or else everything that does not say that it is in production. */
export function isDevelopment() {
  const chosen = variable('TIDINGS_DEV');
  return chosen ? !['0', 'false', 'no', 'off'].includes(chosen.toLowerCase()) : variable('NODE_ENV') !== 'production';
}
