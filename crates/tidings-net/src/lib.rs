//! What the crates of the workspace need to depend on other servers: one parser for their URLs
//! ([`ServerUrl`], [`redacted`]), one definition of the time before the next attempt ([`Backoff`],
//! [`Spread`]), and one of the addresses that somebody else may send them to ([`is_public`]).
//!
//! Nothing here opens a connection or waits: callers supply sockets and clocks.

mod backoff;
mod public_address;
mod redact;
mod url;

pub use self::{
    backoff::{Backoff, FAR_AWAY, Spread, random_share},
    public_address::is_public,
    redact::redacted,
    url::{Address, InvalidUrl, Login, Parameters, ServerUrl, Tls},
};
