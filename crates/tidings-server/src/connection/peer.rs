//! The other end of a connection, and whose requests it sends.

use std::sync::Arc;

use http::HeaderMap;

use crate::{
    client::Client,
    client_address::{ClientAddress, Neighbourhood},
    forwarded::{self, MalformedAddresses},
    listener::ListenerSettings,
    proxies::ClientAddressSource,
    proxy_header::ProxiedFrom,
    tls::Tls,
};

/// The other end of a connection, and how the listener that accepted it serves its connections.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    address: ClientAddress,
    /// Whether it is a trusted proxy that states the addresses of its clients.
    states_clients: bool,
    is_trusted_proxy: bool,
    listener: Arc<ListenerSettings>,
}

impl Peer {
    pub(crate) fn new(address: ClientAddress, listener: Arc<ListenerSettings>) -> Self {
        let is_trusted_proxy = listener.client_address != ClientAddressSource::Peer
            && listener.trusted_proxies.contains(address);
        Self { address, states_clients: is_trusted_proxy, is_trusted_proxy, listener }
    }

    pub(crate) fn address(&self) -> ClientAddress {
        self.address
    }

    /// Whether the connection is that of a trusted proxy, which may or may not state its clients.
    pub(crate) fn is_trusted_proxy(&self) -> bool {
        self.is_trusted_proxy
    }

    /// Whether the connection has to begin with a PROXY header.
    pub(crate) fn sends_proxy_header(&self) -> bool {
        self.states_clients && self.listener.client_address == ClientAddressSource::ProxyProtocol
    }

    /// The client is the one that the PROXY header states, and no other.
    pub(crate) fn is_proxied_from(&mut self, from: ProxiedFrom) {
        self.states_clients = false;
        self.address = match from {
            ProxiedFrom::Proxy => return,
            ProxiedFrom::Ip(ip) => ClientAddress::of(ip),
            ProxiedFrom::Unknown => ClientAddress::Unknown,
        };
    }

    /// The TLS of its listener.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.listener.tls.as_ref()
    }

    /// The client of a request with these headers.
    pub(crate) fn client(&self, headers: &HeaderMap) -> Result<Client, MalformedAddresses> {
        let ListenerSettings { role, client_address, trusted_proxies, .. } = &*self.listener;
        let address = if self.states_clients {
            forwarded::client(self.address, headers, *client_address, trusted_proxies)?
        } else {
            self.address
        };
        Ok(Client { address, listener: *role, is_encrypted: self.tls().is_some() })
    }

    /// A client whose address cannot be read.
    pub(crate) fn unknown_client(&self) -> Client {
        let is_encrypted = self.tls().is_some();
        Client { address: ClientAddress::Unknown, listener: self.listener.role, is_encrypted }
    }

    /// Whose limits apply before a request has arrived. The clients of a trusted proxy are not one
    /// client.
    pub(crate) fn neighbourhood(&self) -> Option<Neighbourhood> {
        (!self.states_clients).then(|| self.address.into())
    }

    #[cfg(test)]
    pub(crate) fn of(address: std::net::SocketAddr) -> Self {
        Self::new(ClientAddress::of(address.ip()), Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use http::HeaderValue;

    use super::*;

    const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn peer(address: IpAddr, client_address: ClientAddressSource) -> Peer {
        let trusted_proxies = ["10.0.0.1", "127.0.0.1"].map(|word| word.parse().expect("a proxy"));
        let settings = ListenerSettings {
            client_address,
            trusted_proxies: trusted_proxies.into_iter().collect(),
            ..ListenerSettings::default()
        };
        Peer::new(ClientAddress::of(address), Arc::new(settings))
    }

    fn headers() -> HeaderMap {
        HeaderMap::from_iter([
            (http::header::FORWARDED, HeaderValue::from_static("for=192.0.2.1")),
            (http::HeaderName::from_static("x-forwarded-for"), HeaderValue::from_static("192.0.2.1")),
        ])
    }

    fn client(peer: &Peer) -> ClientAddress {
        peer.client(&headers()).expect("readable").address
    }

    #[test]
    fn only_the_word_of_a_trusted_proxy_counts() {
        for source in [ClientAddressSource::XForwardedFor, ClientAddressSource::Forwarded] {
            assert_eq!(client(&peer(PROXY, source)), ClientAddress::of(CLIENT));
            assert_eq!(client(&peer(OTHER, source)), ClientAddress::of(OTHER));
        }
        for source in [ClientAddressSource::Peer, ClientAddressSource::ProxyProtocol] {
            assert_eq!(client(&peer(PROXY, source)), ClientAddress::of(PROXY));
        }
    }

    /// The exemption of loopback from limits is for programs on this machine, not for those behind a
    /// proxy on it.
    #[test]
    fn a_client_behind_a_proxy_on_this_machine_is_not_local() {
        let local = peer(Ipv4Addr::LOCALHOST.into(), ClientAddressSource::XForwardedFor);
        assert!(!client(&local).is_local());
        assert!(local.client(&HeaderMap::new()).expect("readable").address.is_local());
    }

    #[test]
    fn a_proxy_header_is_demanded_of_trusted_peers_and_then_no_other_word_counts() {
        assert!(!peer(OTHER, ClientAddressSource::ProxyProtocol).sends_proxy_header());
        assert!(!peer(PROXY, ClientAddressSource::XForwardedFor).sends_proxy_header());
        for (from, expected) in [
            (ProxiedFrom::Ip(OTHER), ClientAddress::of(OTHER)),
            (ProxiedFrom::Unknown, ClientAddress::Unknown),
            (ProxiedFrom::Proxy, ClientAddress::of(PROXY)),
        ] {
            let mut peer = peer(PROXY, ClientAddressSource::ProxyProtocol);
            assert!(peer.sends_proxy_header());
            peer.is_proxied_from(from);
            assert!(!peer.sends_proxy_header());
            assert_eq!(client(&peer), expected);
            assert_eq!(peer.neighbourhood(), Some(expected.into()));
        }
    }

    #[test]
    fn the_clients_of_a_trusted_proxy_do_not_share_the_limits_of_its_address() {
        assert_eq!(peer(PROXY, ClientAddressSource::XForwardedFor).neighbourhood(), None);
        let other = peer(OTHER, ClientAddressSource::XForwardedFor).neighbourhood();
        assert_eq!(other, Some(Neighbourhood::Network(OTHER)));
    }
}
