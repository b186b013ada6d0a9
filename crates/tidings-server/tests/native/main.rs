//! The native API.

mod deleting;
mod edits;
mod ephemeral;
mod finite;
mod idempotency;
#[path = "../log_support/mod.rs"]
mod log_support;
mod pages;
mod patterns;
mod posted_streams;
mod presence;
mod publishing;
#[path = "../served_support/mod.rs"]
mod served_support;
mod streams;
#[path = "../support/mod.rs"]
mod support;
