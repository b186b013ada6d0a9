//! Server push for any web application.
//!
//! An application publishes an event once; every browser that subscribed receives it, over plain
//! Server-Sent Events, in one order, and continues after a lost connection where it was. In
//! `Cargo.toml`:
//!
//! ```toml
//! [dependencies]
//! axum = "0.8"
//! tidings = { version = "0.1", features = ["axum"] }
//! tokio = { version = "1", features = ["macros", "net", "rt", "signal"] }
//! ```
//!
//! and the application:
//!
//! ```no_run
//! use axum::{Router, extract::State, http::{HeaderMap, Uri}, routing::{get, post}};
//! use tidings::{Error, Hub, NewEvent, Since, Subscribe, Subscription};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let hub = Hub::in_memory().await;
//!     let routes = Router::new().route("/stream", get(stream)).route("/post", post(publish));
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//!     // A stream never ends by itself: the hub ends them when the server is to stop.
//!     let stopped = hub.shutdown_on(tokio::signal::ctrl_c());
//!     let server = axum::serve(listener, routes.with_state(hub));
//!     Ok(server.with_graceful_shutdown(stopped).await?)
//! }
//!
//! type App = State<Hub>;
//!
//! async fn stream(State(hub): App, headers: HeaderMap, uri: Uri) -> Result<Subscription, Error> {
//!     let request = Subscribe::topics(["chat"]).since(Since::Last(20));
//!     hub.subscribe(request.resume(&headers, uri.query())).await
//! }
//!
//! async fn publish(State(hub): App, message: String) -> Result<(), Error> {
//!     hub.publish(NewEvent::new("chat", message)).await?;
//!     Ok(())
//! }
//! ```
//!
//! In the browser: `new EventSource('/stream').onmessage = event => console.log(event.data)`.
//!
//! # Chapters
//!
//! - [`guide::chat`]: the application above, with names, and an event for everybody but its sender.
//! - [`guide::one_user`]: private events, for a user who has logged in.
//! - [`guide::resume`]: what a browser receives that was away, and what a gap is.
//! - [`guide::history_and_live`]: a page with the last events, and its stream from there on; topics
//!   that start at different places.
//! - [`guide::in_process`]: consumers in the application itself.
//! - [`guide::presence`]: who is there.
//! - [`guide::graceful_shutdown`]: a server that ends without cutting its clients off.
//! - [`guide::limits`]: what a hub may use, and when it refuses.
//! - [`guide::monitoring`]: whether it works, and what it does.
//! - [`guide::custom_log`]: events in files, on other servers, or in a log of your own.
//! - [`testing`]: tests of an application, without sockets.
//! - [`guide::embedding`]: in other servers than axum.
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
//! - A private event reaches only subscribers with a [grant](Subscribe::grant) for one of its
//!   topics.
//!
//! # Features
//!
//! - `axum`: `IntoResponse` for [`Subscription`] and [`Error`], so that a handler needs `?` only.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "shards, and code that only they use, are for Linux")
)]

mod agree;
mod builder;
mod closing;
mod cluster_channel;
mod cluster_hubs;
mod compiler;
mod counts;
mod editing;
mod edits;
mod endings;
mod engine;
mod error;
mod feed;
pub mod guide;
mod history;
mod hub;
mod jitter;
mod measured_cluster;
mod measured_log;
mod measurements;
mod presence;
mod publish;
mod replay;
#[cfg(feature = "axum")]
mod respond;
mod settings;
mod shard;
mod subscriber;
mod sync;
pub mod testing;
#[doc(hidden)]
pub mod web;

/// The log behind a hub, and the implementations that come with the library.
pub use tidings_log as log;
#[doc(inline)]
pub use tidings_log::{MemoryLimits, MemoryLog};
#[doc(inline)]
pub use tidings_topic::{
    ConnectionId, Event, EventId, Invalid, NewEvent, ParseSinceError, ParseUntilError, PatternSyntax, Since,
    Topic, Until,
};

pub use builder::HubBuilder;
pub use error::Error;
pub use feed::encode::{EndReason, Format, GapReason};
pub use history::Snapshot;
pub use hub::{Hub, HubStats};
pub use presence::{Presence, PresenceMatcher, PresenceStream};
pub use publish::Published;
pub use subscriber::{
    listener::{Gap, Listener, Received, ReceivedEvent},
    subscribe::Subscribe,
    subscription::Subscription,
};

// What servers around a hub need, and applications do not: compiled matchers, parsed requests,
// sockets. It may change in any version.
#[doc(hidden)]
pub use tidings_log::{IdempotencyKey, Unavailable};
#[doc(hidden)]
pub use tidings_topic::{
    Filter, Grants, MATCHER_SYNTAXES, Matcher, Pattern, PatternIndex, PatternLimits, PatternsFull,
    PrivateTopics, TopicGlob, Validator, matcher_syntax, matcher_type,
};

#[cfg(target_os = "linux")]
#[doc(hidden)]
pub use shard::socket::{Encryption, Socket};
#[doc(hidden)]
pub use {
    counts::{
        closed::{CloseReason, OnEnd},
        reader_lag::ReaderLag,
    },
    edits::{EditError, EditProof, Edited, TopicEdit},
    feed::encode::JsonEvent,
    measured_log::{LogFailure, LogOperation},
    measurements::{Deliveries, Measurements, Usage},
    presence::Payloads,
    presence::PresenceHook,
    publish::delete::Deletion,
    replay::counts::ReplayStats,
    settings::HubSettings,
    subscriber::{resume::Requested, subscription::Resumed},
};
