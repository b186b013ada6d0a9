//! What a request has in its extensions about its client.

use crate::{client_address::ClientAddress, listener::ListenerRole};

/// The client of a request, in the extensions of each request that [`serve`](crate::serve) passes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client {
    /// The address that limits and log lines use.
    pub address: ClientAddress,
    /// What the listener that accepted the connection is for.
    pub listener: ListenerRole,
    /// Whether the connection is encrypted by this server. What a proxy does is not known here.
    pub is_encrypted: bool,
}
