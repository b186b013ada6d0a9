//! Server push for any web application.
//!
//! An app publishes an event once; every browser that subscribed receives it, over plain
//! Server-Sent Events. Fifteen lines under axum:
//!
//! ```no_run
//! use axum::{Router, extract::State, http::{HeaderMap, Uri}, routing::{get, post}};
//! use tidings::{Hub, NewEvent, PublishError, Subscribe, SubscribeError, Subscription};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let app = Router::new().route("/stream", get(stream)).route("/post", post(publish));
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//!     Ok(axum::serve(listener, app.with_state(Hub::in_memory().await)).await?)
//! }
//!
//! async fn stream(State(hub): State<Hub>, headers: HeaderMap, uri: Uri) -> Result<Subscription, SubscribeError> {
//!     let chat = hub.validator().exact("chat")?;
//!     hub.subscribe(Subscribe::new([chat]).resume(&headers, uri.query())).await
//! }
//!
//! async fn publish(State(hub): State<Hub>, message: String) -> Result<String, PublishError> {
//!     Ok(hub.publish(NewEvent::new("chat", message)).await?.id.to_string())
//! }
//! ```
//!
//! In the browser: `new EventSource('/stream').onmessage = event => console.log(event.data)`.
//!
//! # How it works
//!
//! The hub is a log with a fan-out. Everything that a subscriber receives comes out of the
//! [`Log`](log::Log), in log order. One writer follows the live end of the log and encodes each
//! event once into the feed of every matcher that has a subscriber. A subscriber is a cursor: where
//! its feeds still hold its position it is served from there, where it is behind them it reads the
//! log. So no event is missing or duplicated between history and live delivery, and there is no
//! queue that a slow subscriber could fill.
//!
//! - An event that was acknowledged is in the log; every subscriber receives it in the same order,
//!   once per connection.
//! - When an event is no longer available that a subscriber could have received, the hub reports a
//!   gap: `event: tidings`, with data of
//!   `{"kind":"gap","reason":…,"requested":…,"oldest":…,"newest":…}`. One
//!   `addEventListener('tidings', …)` is all it takes.
//! - A private event reaches only subscribers whose [`Grants`] cover one of its topics.

#![cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "shards, and code that only they use, are for Linux")
)]

mod agree;
mod builder;
mod closing;
mod compiler;
mod endings;
mod engine;
mod feed;
mod hub;
mod jitter;
mod presence;
mod publish;
mod replay;
#[cfg(feature = "axum")]
mod respond;
mod settings;
mod shard;
mod subscriber;
mod sync;
pub mod web;

/// The log behind a hub, and the implementations that come with the library.
pub use tidings_log as log;
pub use tidings_log::{IdempotencyKey, MemoryLimits, MemoryLog, Unavailable};
pub use tidings_topic::{
    ConnectionId, Event, EventId, Filter, Grants, Invalid, Matcher, NewEvent, ParseSinceError, PatternIndex,
    PatternLimits, PatternsFull, PrivateTopics, Since, Topic, TopicGlob, UrlPattern, Validator,
};

pub use builder::{HubBuilder, StartError};
pub use compiler::PatternError;
pub use feed::encode::{Format, JsonEvent};
pub use hub::{Hub, HubStats, Snapshot};
pub use presence::{Presence, PresenceHook, PresenceMatcher};
pub use publish::{PublishError, Published, delete::Deletion};
pub use settings::HubSettings;
#[cfg(target_os = "linux")]
pub use shard::socket::{Encryption, Socket};
pub use subscriber::{
    resume::Requested,
    subscribe::{Subscribe, SubscribeError},
    subscription::{Resumed, Subscription},
};
