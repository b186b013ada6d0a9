//! Redis behind a hub, and beside it.
//!
//! - [`RedisUrl`] says which Redis: a single server, one that Sentinels watch over, or a Redis Cluster.
//!
//! Nothing of the client library is part of the interface of this crate.

mod connect;
mod url;

pub use connect::{Connector, Unreachable};
pub use url::{Address, InvalidRedisUrl, RedisUrl, Servers};
