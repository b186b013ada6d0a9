//! Redis behind a hub, and beside it.
//!
//! - [`RedisUrl`] says which Redis: a single server, by TCP or a Unix socket, one that Sentinels watch over, or a Redis Cluster.
//! - [`RedisLog`] is the log on Redis Streams, which any number of hubs share.
//! - [`RedisCluster`] is what hubs share beside it: leases, state that expires, messages.
//! - [`bridge`] takes what applications PUBLISH on plain channels, and sends out what the hub publishes, if that is wanted.
//!
//! Nothing of the client library is part of the interface of this crate.

pub mod bridge;
mod cluster;
mod connect;
mod line;
mod log;
mod url;

pub use cluster::RedisCluster;
pub use connect::{Connector, Unreachable};
pub use log::{RedisLog, RedisSettings};
pub use tidings_net::{Address, InvalidUrl, Parameters, Tls};
pub use url::{RedisUrl, Servers};
