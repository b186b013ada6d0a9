//! TLS at the real binary.
//!
//! Needs: curl.

mod connections;
mod subscribers;
