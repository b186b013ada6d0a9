//! Which subscribers are connected, at all hubs of a cluster.
//!
//! ```
//! use tidings::{Hub, Subscribe};
//! use tidings_presence::PresenceList;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tidings::Error> {
//! let builder = Hub::builder(); // with a log and a cluster that other hubs have, too
//! let (hub, presence) = PresenceList::start(builder, |who| println!("{who:?}")).await?;
//! let subscription = hub.subscribe(Subscribe::topics(["chat"]).label("ann")).await?;
//! assert_eq!(presence.subscribers()[0].label.as_deref(), Some("ann"));
//! drop(subscription);
//! assert!(presence.subscribers().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! A hub keeps its subscribers in **pages** of some tens each (`pages.rs`), which it publishes to
//! the others (`announce.rs`, `encoding.rs`), and the pages that those publish (`elsewhere.rs`).
//! When a hub counts as dead: `lease_health.rs`. Who is present on a topic: [`PresenceIndex`]. Which
//! subscriptions there are: [`SubscriptionIndex`].

mod announce;
mod elsewhere;
mod encoding;
mod index;
mod lease_health;
mod list;
mod members;
mod membership;
mod pages;
mod subscriptions;

pub use self::{
    index::{Member, MembersPage, PRESENCE_SUFFIX, PresenceIndex},
    list::PresenceList,
    subscriptions::{ActiveSubscription, SubscriptionChange, SubscriptionIndex, SubscriptionKey},
};
