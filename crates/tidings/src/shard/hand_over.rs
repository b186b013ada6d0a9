//! Moves a subscription whose HTTP/1.1 connection now belongs to the hub into a shard.

use crate::{
    Subscription,
    shard::{NewSubscriber, socket::Socket},
};

impl Subscription {
    /// Hands this subscription and its connection to the fan-out. `headers`, those of the
    /// response, are sent before the stream; the stream itself is sent in HTTP/1.1 chunks and ends
    /// with the last chunk and a shutdown of the connection. `early_bytes` is how many unexpected
    /// bytes the client has sent already.
    #[doc(hidden)]
    pub fn drive_socket(self, socket: Socket, headers: Vec<u8>, early_bytes: usize) {
        let (hub, parts) = self.into_parts();
        let new_subscriber = NewSubscriber { wire: socket, headers, input_bytes: early_bytes, parts };
        hub.state.shards.take(new_subscriber, Box::new(hub.clone()));
    }
}
