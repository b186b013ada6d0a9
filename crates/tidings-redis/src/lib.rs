//! Redis behind a hub, and beside it.
//!
//! - [`RedisUrl`] says which Redis: a single server, one that Sentinels watch over, or a Redis Cluster.
//! - [`RedisLog`] is the log on Redis Streams, which any number of hubs share.
//!
//! Nothing of the client library is part of the interface of this crate.

mod connect;
mod log;
mod url;

pub use connect::{Connector, Unreachable};
pub use log::{RedisLog, RedisSettings};
pub use url::{Address, InvalidRedisUrl, RedisUrl, Servers};
