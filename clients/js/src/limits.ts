// The limits of the client, and its intervals.

/** The largest event, in UTF-16 units. A stream that exceeds it ends with an error. */
export const EVENT_LENGTH_MAX = 1 << 24;

/** How many ids are remembered. Only a tab that took over passes on again what others have, and it is behind by less than that. */
export const REMEMBERED_MAX = 1000;

/** How long tabs may take to say what they want before the stream is opened. */
export const JOINING_MILLIS = 20;

/** A connection that has not answered for this long is given up. */
export const SILENT_MILLIS_MAX = 20_000;
/** How often is looked whether a connection is silent. */
export const WATCH_MILLIS = 500;

/** The delay after the first failure, if the server has not said one. */
export const RETRY_MILLIS = 1000;
/** No delay grows beyond this, unless the server wants it. */
export const DELAY_MILLIS_MAX = 30_000;
