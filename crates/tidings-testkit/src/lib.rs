//! What the tests of a running hub need: real processes, real sockets and honest faults.
//!
//! - [`Hub`] runs the built binary behind a listening socket that the test holds, so that a hub can be killed
//!   and started again without one refused connection.
//! - [`Connection`] is a bare HTTP/1.1 connection: it sends exactly the given bytes, and shows the answer
//!   chunk by chunk, so that a clean end and a cut can be distinguished.
//! - [`EventStream`] collects the events of one subscription.
//! - [`NatsServer`] is a real nats-server with JetStream, which can be stopped, killed and started again with what it stored; [`NatsNodes`] are
//!   three of them in a cluster.
//! - [`failover`] is what several hubs on one store have to withstand.
//! - [`FaultProxy`] stands between the two and stalls or cuts what passes.
//! - [`RedisServer`] is a real Redis server that can be stopped, killed, frozen and started again on its port; [`RedisSentinels`] are a
//!   master and its replica under three Sentinels, [`RedisNodes`] a Redis Cluster.
//!
//! Invariants: nothing waits without a limit ([`PATIENCE`]), nothing has a fixed port, and whatever was
//! started ends with the value that started it.

mod certificate;
mod connection;
mod event_stream;
pub mod failover;
mod hub;
mod nats;
mod port;
mod proxy;
mod redis;

use std::time::Duration;

pub use connection::{Connection, Response};
pub use event_stream::EventStream;
pub use hub::{Hub, Signal, binary, listener};
pub use nats::{NatsNodes, NatsServer};
pub use port::Port;
pub use proxy::FaultProxy;
pub use redis::{RedisNodes, RedisSentinels, RedisServer};
pub use tidings_sse::{Item, ParsedEvent};

/// How long anything here waits for the other side before the test fails. Long enough for a loaded machine;
/// no test depends on it being short.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `future`, at most [`PATIENCE`], and says what was missing.
async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, future)
        .await
        .map_err(|_| anyhow::anyhow!("waited {} s in vain for {what}", PATIENCE.as_secs()))
}
