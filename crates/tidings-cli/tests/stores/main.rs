//! Hubs that share a store, and what they share besides events.
//!
//! Needs: redis-server, nats-server.

mod bridge;
mod credentials;
mod edits;
mod ephemeral;
mod hooks;
mod measurements;
mod presence;
mod revocation;
mod secrets;
mod subscriptions;
