//! The Mercure API, in both revisions of the protocol.

mod metadata;
mod older;
mod query;
#[path = "../served_support/mod.rs"]
mod served_support;
mod subscriptions;
#[path = "../support/mod.rs"]
mod support;
mod updates;
