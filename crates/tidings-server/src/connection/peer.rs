//! The other end of a connection.

use std::sync::Arc;

use crate::{
    client_address::{Client, ClientAddress, Neighbourhood},
    listener::ListenerSettings,
};

/// The other end of a connection, and how the listener that accepted it serves its connections.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    address: ClientAddress,
    listener: Arc<ListenerSettings>,
}

impl Peer {
    pub(crate) fn new(address: ClientAddress, listener: Arc<ListenerSettings>) -> Self {
        Self { address, listener }
    }

    /// The client of a request on this connection.
    pub(crate) fn client(&self) -> Client {
        Client { address: self.address, listener: self.listener.role }
    }

    /// Whose limits apply before a request has arrived.
    pub(crate) fn neighbourhood(&self) -> Neighbourhood {
        self.address.into()
    }

    #[cfg(test)]
    pub(crate) fn of(address: std::net::SocketAddr) -> Self {
        Self::new(ClientAddress::of(address.ip()), Arc::default())
    }
}
