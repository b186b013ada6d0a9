//! How the connections of a listener are served.

use crate::{
    proxies::{ClientAddressSource, TrustedProxies},
    tls::Tls,
};

/// How the connections of a listener are served.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct ListenerSettings {
    /// What it is for. Default: everything.
    pub role: ListenerRole,
    /// TLS in front of HTTP. Default: none.
    pub tls: Option<Tls>,
    /// Where trusted proxies state the address of a client. Any other place is ignored, and so is
    /// what other peers state. Default: nowhere.
    ///
    /// With [`ClientAddressSource::ProxyProtocol`], each connection of a trusted proxy has to begin
    /// with a PROXY header of at most [`PROXY_HEADER_BYTES_MAX`](crate::PROXY_HEADER_BYTES_MAX)
    /// bytes within `first_byte_secs`, or it is closed.
    pub client_address: ClientAddressSource,
    /// The proxies that are trusted. Default: none.
    pub trusted_proxies: TrustedProxies,
}

/// What a listener is for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ListenerRole {
    /// Everything: the server has no administrative listener.
    #[default]
    All,
    /// Clients. The administrative routes are those of another listener.
    Clients,
    /// Operators: metrics, details of readiness and the administrative routes, nothing else.
    Admin,
    /// The application behind the hub: all APIs, the administrative routes included. Nothing is
    /// forwarded to the application itself.
    Application,
}
