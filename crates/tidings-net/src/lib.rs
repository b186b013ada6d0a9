//! What the crates of the workspace need to depend on other servers: one parser for their URLs
//! ([`ServerUrl`], [`redacted`]) and one definition of the time before the next attempt
//! ([`Backoff`], [`Spread`]).
//!
//! Nothing here opens a connection or waits: callers supply sockets and clocks.

mod backoff;
mod redact;
mod url;

pub use self::{
    backoff::{Backoff, FAR_AWAY, Spread, random_share},
    redact::redacted,
    url::{Address, InvalidUrl, Login, Parameters, ServerUrl, Tls},
};
