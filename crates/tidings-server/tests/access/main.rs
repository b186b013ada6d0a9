//! Who may do what, and what the others receive.

mod authorize;
mod cors;
mod operators;
mod revoked;
mod security_rules;
mod subjects;
#[path = "../support/mod.rs"]
mod support;
mod tickets;
