//! The application behind the hub: the hub serves one port, and what is not its own goes to the
//! application.
//!
//! ```text
//! client ─► hub ─┬─► /topics/…, the Mercure API, streams that name what they want ─► hub
//!                └─► anything else ─► application ─► 200 with `Tidings-Subscribe` ─► a stream
//!                                                 ├► 101 ─► a tunnel, such as a WebSocket
//!                                                 └► anything else ─► the client, as it is
//! ```
//!
//! - [`route`]: which requests are the hub's.
//! - [`settings`]: the application and its limits; [`address`]: where it is; [`availability`]: whether
//!   it is up.
//! - [`exchange`]: one request and its response; [`upload`]: the body of the request;
//!   [`response`]: what the client receives.
//! - [`failure`]: what a client receives when there is no response.
//!
//! Invariants: bodies are passed on piece by piece, as fast as the slower side takes them, and never
//! held whole. What the application receives is made anew from a request that the strict parser has
//! accepted, so that both see the same end of it. A request whose body was not touched waits for an
//! application that restarts. Streams do not depend on the application once they are open.

mod address;
mod availability;
mod exchange;
mod failure;
mod response;
mod route;
mod settings;
mod upload;

pub use self::{
    address::InvalidUpstream,
    availability::Availability,
    settings::{Upstream, UpstreamSettings},
};
pub(crate) use self::{exchange::answer, route::application_of};
