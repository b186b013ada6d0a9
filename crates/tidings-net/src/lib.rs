//! What it takes to depend on other servers, for every crate of the workspace: one notion of their URLs
//! ([`ServerUrl`], [`redacted`]) and one of the time before the next attempt ([`Backoff`], [`Spread`]).
//!
//! Nothing here opens a connection or waits: callers bring sockets and clocks.

mod backoff;
mod redact;
mod url;

pub use self::{
    backoff::{Backoff, FAR_AWAY, Spread, random_share},
    redact::redacted,
    url::{Address, InvalidUrl, Login, Parameters, ServerUrl, Tls},
};
