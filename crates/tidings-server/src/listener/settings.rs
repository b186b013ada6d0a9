//! How the connections of a listener are served.

use crate::tls::Tls;

/// How the connections of a listener are served.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct ListenerSettings {
    /// What it is for. Default: everything.
    pub role: ListenerRole,
    /// TLS in front of HTTP. Default: none.
    pub tls: Option<Tls>,
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
}
