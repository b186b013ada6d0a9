//! The HTTP server of Tidings.
//!
//! Below, a [`Listener`] and [`serve`]: sockets, heads and bodies, with a limit on everything that a client can make us hold or wait
//! for. Above, the [`router`](router()): the APIs of a hub. The native API and that of the Mercure protocol are two spellings of one core, which
//! decides about rights, limits and refusals once. The two halves meet in `http` types only, so that each is tested without the other.
//!
//! | to change | go to |
//! |---|---|
//! | what a parameter means | `native`, `mercure` |
//! | who may do what | `access`; the credentials themselves are `tidings-auth`'s |
//! | which web pages may do what, which hosts are answered | `origin`; what a request says of them: `tidings::web` |
//! | how a publisher names a publication | `idempotency` |
//! | how a stream or a publication is carried out | `streams`, `publishing`; who carries a stream: `open_stream`, `connection::takeover` |
//! | which requests leave before the router | `apis` |
//! | a limit, its default, its answer | `settings` |
//! | the words of a refusal | `problem`; who is asked to come back, and how: `shedding` |
//! | the life of a connection | `connection`, `head`, `listener` |

mod accept;
mod access;
mod apis;
mod component;
mod connection;
mod head;
mod idempotency;
mod listener;
mod mercure;
mod metrics;
mod native;
mod open_stream;
mod operations;
mod origin;
mod pages;
mod problem;
mod publishing;
mod query;
mod router;
mod settings;
mod shedding;
mod slots;
mod streams;
mod throttled_log;

pub use apis::apis;
pub use component::{Component, Figure};
pub use connection::{
    BodyError, ConnectionMetrics, ConnectionSettings, Drain, NoRoom, PeerAddress, RequestBody, read_body,
    serve,
};
pub use listener::{ListenError, Listener, connections_for_file_limit, raise_file_limit};
pub use router::{hub_path_is_free, router};
pub use settings::{AllowedHosts, AllowedOrigin, Keyless, OriginsBelow, ParseOriginError, Settings};
