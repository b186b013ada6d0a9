//! The end of what a client sends, for a handler that waits for somebody else on its behalf.
//!
//! A client that closes its connection and one that only ends its side of it look the same until
//! something is written, so most handlers answer both. One that takes what others need meanwhile
//! gives up instead.

use std::{future::pending, sync::Arc};

use http::request::Parts;
use tokio::sync::Notify;

/// In the extensions of a request of a safe method over HTTP/1. Over HTTP/2 a handler is dropped
/// when the client cancels its request.
#[derive(Clone, Default, Debug)]
pub(crate) struct InputEnd(Arc<Notify>);

impl InputEnd {
    /// The client has ended its side.
    pub(super) fn notify(&self) {
        self.0.notify_one();
    }

    /// Waits until the client has ended its side of the connection. One handler can wait.
    async fn ended(&self) {
        self.0.notified().await;
    }
}

/// Waits until the client of this request has left, or for ever. A page that is closed and opened
/// again would otherwise have one more handler wait for somebody each time.
pub(crate) async fn client_left(parts: &Parts) {
    match parts.extensions.get::<InputEnd>() {
        Some(input_end) => input_end.ended().await,
        None => pending().await,
    }
}
