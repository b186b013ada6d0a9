//! Redis for hubs: the log, the cluster and the bridge.
//!
//! - [`RedisUrl`] names the Redis: a single server, by TCP or a Unix socket, one that Sentinels
//!   monitor, or a Redis Cluster.
//! - [`RedisLog`] is the log on Redis Streams, which any number of hubs share.
//! - [`RedisCluster`] is what hubs share next to the log: leases, state that expires, messages.
//! - [`bridge`] ingests what applications PUBLISH on plain channels, and can send out what the hub
//!   publishes.
//!
//! No type of the client library is part of this crate's API.

pub mod bridge;
mod cluster;
mod connect;
mod log;
mod script;
mod shared_connection;
mod trouble;
mod url;

pub use cluster::RedisCluster;
pub use connect::{Connector, Unreachable};
pub use log::{RedisLog, RedisSettings};
pub use tidings_net::{Address, InvalidUrl, Parameters, Tls};
pub use url::{RedisUrl, Servers};
