//! A client of a Tidings hub, and of any other source of Server-Sent Events: publish, subscribe,
//! keep subscribed.
//!
//! [`Client::publish`] sends one event. [`Client::subscribe`] returns a [`Subscription`], a stream
//! that outlives its connections: it reconnects with the id of the last event, so that the hub
//! resumes exactly there.
//!
//! Invariants:
//!
//! - Nothing is swallowed. Notices of the hub, above all a gap, are items like any other, and so is
//!   every wait for a reconnect. Only an error that a retry cannot fix ends a subscription, and it
//!   is the last item.
//! - Between two attempts there is always a pause: the time that the server asks for, and random
//!   time that grows with every failure, within named bounds.
//! - The token goes only to the origin that it was given for, wherever a redirect leads.
//! - Whatever a server sends, memory is bounded: lines, events, replies and redirects have limits.
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use tidings_client::{Client, ClientEvent, Publish, Subscribe};
//!
//! # async fn example() -> Result<(), tidings_client::ClientError> {
//! let client = Client::new("http://127.0.0.1:8080", None)?;
//! let published = client.publish("chat", "hello", &Publish::new().event_type("greeting")).await?;
//! println!("published as {}", published.id);
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

mod backoff;
mod client;
mod driver;
mod error;
mod http;
mod hub_url;
mod notice;
mod publish;
mod subscribe;

pub use client::Client;
pub use driver::{ClientEvent, Message};
pub use error::ClientError;
pub use http::Token;
pub use hub_url::HubUrl;
pub use notice::{EndReason, GapReason, Notice};
pub use publish::{Publish, Published};
pub use subscribe::{Subscribe, Subscription};
