//! What a hub logs: each request in the access log, every line in JSON, and no secret.
//!
//! Needs: curl.

#![cfg(unix)]

mod access;
mod application;
mod json;
mod lines;
mod listening;
mod secrets;
