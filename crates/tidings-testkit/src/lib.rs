//! Tools for tests of a running hub: real processes, real sockets and real faults.
//!
//! - [`Hub`] runs the built binary behind a listening socket that the test holds, so that a hub can
//!   be killed and restarted without a refused connection.
//! - [`Connection`] is a bare HTTP/1.1 connection: it sends exactly the given bytes, and shows the
//!   answer chunk by chunk, so that a clean end and a cut can be distinguished.
//! - [`TlsClient`] is how such a connection is made over TLS, and [`Certificate`] what its server has;
//!   [`Ed25519Pair`] is what an issuer of tokens has.
//! - [`EventStream`] collects the events of one subscription.
//! - [`Application`] is an application that a hub asks about streams.
//! - [`NatsServer`] is a real nats-server with JetStream, which can be stopped, killed and
//!   restarted with its data; [`NatsNodes`] are three of them in a cluster, [`NatsDomains`] one with
//!   a leaf node; [`NatsOperator`] issues credentials.
//! - [`Pebble`] is a certificate authority that speaks ACME.
//! - [`failover`] tests several hubs on one store under outages.
//! - [`FaultProxy`] is a proxy that stalls or cuts connections.
//! - [`RedisServer`] is a real Redis server that can be stopped, killed, frozen and restarted on
//!   its port; [`RedisSentinels`] are a master and its replica under three Sentinels,
//!   [`RedisNodes`] a Redis Cluster.
//!
//! Invariants: every wait has a limit ([`PATIENCE`]), no port is fixed, and dropping a value ends
//! the processes that it started.

mod application;
mod certificate;
mod connection;
mod event_stream;
pub mod failover;
mod hub;
mod nats;
mod pebble;
mod port;
mod proxy;
mod redis;
mod tls;

use std::time::Duration;

pub use application::{Application, Reply};
pub use certificate::{Certificate, Ed25519Pair};
pub use connection::{Connection, Response};
pub use event_stream::EventStream;
pub use hub::{Hub, Signal, binary, listener};
pub use nats::{NatsDomains, NatsNodes, NatsOperator, NatsServer};
pub use pebble::{Pebble, PebbleSettings};
pub use port::Port;
pub use proxy::FaultProxy;
pub use redis::{RedisNodes, RedisSentinels, RedisServer};
pub use tidings_sse::{Item, ParsedEvent};
pub use tls::TlsClient;

/// The timeout of every wait in tests. Long enough for a loaded machine, and for a cluster that
/// needs several attempts to elect a leader (NATS: up to ten seconds each); no test depends on it
/// being short.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for `future`, at most [`PATIENCE`]. The error names what was missing.
pub async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, future)
        .await
        .map_err(|_| anyhow::anyhow!("waited {} s for {what}", PATIENCE.as_secs()))
}
