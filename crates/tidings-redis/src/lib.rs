//! Redis behind a hub, and beside it.
//!
//! - [`RedisUrl`] says which Redis: a single server, one that Sentinels watch over, or a Redis Cluster.
//! - [`RedisLog`] is the log on Redis Streams, which any number of hubs share.
//! - [`RedisCluster`] is what hubs share beside it: leases, state that expires, messages.
//!
//! Nothing of the client library is part of the interface of this crate.

mod cluster;
mod connect;
mod line;
mod log;
mod url;

pub use cluster::RedisCluster;
pub use connect::{Connector, Unreachable};
pub use log::{RedisLog, RedisSettings};
pub use url::{Address, InvalidRedisUrl, RedisUrl, Servers};
