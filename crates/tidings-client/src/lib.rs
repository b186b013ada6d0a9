//! A client of a Tidings hub, and of any other source of Server-Sent Events: publish, subscribe,
//! keep subscribed.
//!
//! ```toml
//! [dependencies]
//! futures-util = "0.3"
//! tidings-client = "0.1"
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! ```
//!
//! [`Client::publish`] sends one event to a hub, [`Client::publish_batch`] several at once.
//! [`Client::subscribe`] returns a [`Subscription`], a stream that outlives its connections: it
//! reconnects with the id of the last event, so that the hub resumes exactly there.
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use tidings_client::{Client, ClientEvent, Publish, Subscribe};
//!
//! # async fn example() -> Result<(), tidings_client::ClientError> {
//! let client = Client::new("http://127.0.0.1:8080", None)?;
//! let published = client.publish("chat", "hello", &Publish::new().event_type("greeting")).await?;
//! println!("published as {:?}", published.id);
//!
//! let mut chat = client.subscribe(&Subscribe::new().topic("chat").since("-50"))?;
//! while let Some(event) = chat.next().await {
//!     if let ClientEvent::Message(message) = event? {
//!         println!("{}", message.data);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Any other source
//!
//! An [`EventSource`] is a stream of any server, at its URL as it is, with a method, headers and a
//! body if it needs them. Its documentation states where it differs from the EventSource of
//! browsers.
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use tidings_client::EventSource;
//!
//! # async fn example() -> Result<(), tidings_client::ClientError> {
//! let mut changes = EventSource::new("https://stream.example.com/v2/changes?wiki=de")
//!     .header("user-agent", "my-bot/1.0 (ada@example.com)")
//!     .open()?;
//! while let Some(event) = changes.next().await {
//!     println!("{:?}", event?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # When a program ends and starts again
//!
//! [`Subscription::last_event_id`] is the id after which another subscription continues without
//! loss, [`Subscribe::last_event_id`] where that is set. A hub sends an id before the first event;
//! should events be gone by the time of the restart, it reports a [gap](Notice::Gap).
//!
//! # When a subscription ends
//!
//! A subscription reconnects after every failure that may pass: [`ClientError::is_transient`]. It
//! ends after an error that does not, such as a refused credential or a response that is not an
//! event stream, and when the server answers 204, which tells clients to stop. To end it from the
//! client's side, drop it; to connect again at once, [restart](Subscription::restart) it.
//!
//! # Invariants
//!
//! - Nothing is swallowed. Notices of the hub, above all a gap, are items like any other, and so is
//!   every wait for a reconnect. Only an error that a retry cannot fix ends a subscription, and it
//!   is the last item.
//! - Between two attempts there is always a pause, unless the caller restarts: the time that the
//!   server asks for, and random time that grows with every failure, within named bounds.
//! - A credential goes only to the origin that it was given for, wherever a redirect leads.
//! - Whatever a server sends, memory is bounded: lines, events, replies and redirects have limits.

mod backoff;
mod batch;
mod client;
mod error;
mod event;
mod event_source;
mod http;
mod hub_url;
mod notice;
mod publication;
mod publish;
mod subscribe;
mod subscription;
mod topics;

pub use batch::Batch;
pub use client::Client;
pub use error::ClientError;
pub use event::{ClientEvent, Message};
pub use event_source::EventSource;
pub use http::Token;
pub use hub_url::HubUrl;
pub use notice::{EndReason, GapReason, Notice};
pub use publish::{Publish, Published};
pub use subscribe::Subscribe;
pub use subscription::Subscription;
pub use topics::{Deletion, StoredEvent, TopicSummary};
