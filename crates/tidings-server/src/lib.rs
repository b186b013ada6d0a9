//! tidings-server

mod connection;
mod head;
mod listener;

pub use connection::{BodyError, ConnectionMetrics, ConnectionSettings, PeerAddress, read_body, serve};
pub use listener::{ListenError, Listener, connections_for_file_limit, raise_file_limit};
