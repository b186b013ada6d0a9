//! What everything that is forwarded to an application has in common, whether the application
//! decides about a stream (`authorize`) or answers every request (`upstream`).
//!
//! - [`client`]: its connections; [`turns`]: how they are read.
//! - [`headers`]: what it receives of a request, and what a client receives of its response.
//! - [`grant`]: a response with `Tidings-Subscribe`, which becomes a stream.

pub(crate) mod client;
pub(crate) mod grant;
pub(crate) mod headers;
mod turns;
