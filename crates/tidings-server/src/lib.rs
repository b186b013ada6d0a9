//! tidings-server

mod accept;
mod access;
mod connection;
mod friendly;
mod head;
mod listener;
mod mercure;
mod metrics;
mod operations;
mod origin;
mod pages;
mod problem;
mod publishing;
mod query;
mod resume;
mod router;
mod settings;
mod slots;
mod streams;

pub use connection::{BodyError, ConnectionMetrics, ConnectionSettings, PeerAddress, read_body, serve};
pub use listener::{ListenError, Listener, connections_for_file_limit, raise_file_limit};
pub use router::{hub_path_is_free, router};
pub use settings::{AllowedOrigin, Keyless, ParseOriginError, Settings};
