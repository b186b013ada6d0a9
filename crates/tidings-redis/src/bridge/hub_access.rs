//! The hub as a bridge knows it. The program that runs bridges implements it.

use std::fmt;

use async_trait::async_trait;
use tidings_log::{Event, IdempotencyKey, Tail, Unavailable, cluster::Cluster};
use tidings_topic::{Invalid, NewEvent};

/// What a bridge needs from its hub.
#[async_trait]
pub trait HubAccess: Send + Sync + fmt::Debug + 'static {
    /// Checks an event as the hub's APIs do.
    fn check(&self, event: NewEvent) -> Result<Event, Invalid>;

    /// Publishes valid events, all or nothing. A key that was used before publishes nothing and is
    /// no error.
    async fn publish(&self, events: Vec<Event>, key: IdempotencyKey) -> Result<(), NotTaken>;

    /// The live end of the log, from now on.
    async fn tail(&self) -> Result<Box<dyn Tail>, Unavailable>;

    /// What the hub shares with other hubs.
    fn cluster(&self) -> &dyn Cluster;
}

/// Why a hub did not publish what a bridge offered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotTaken {
    /// The hub is unavailable, or the outcome is unknown: the bridge waits and offers the events
    /// again, with the same key.
    #[error("{0}")]
    Now(String),
    /// There is no capacity for it: the bridge counts it as refused and continues.
    #[error("{0}")]
    Never(String),
}
