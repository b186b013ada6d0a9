//! What a server offers in its handshakes.
//!
//! The configuration is replaced as a whole: connections that exist keep the one that they began
//! with.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{NoServerSessionStorage, UnbufferedServerConnection},
    version::{TLS12, TLS13},
};

use super::certificates::Certificates;

/// TLS of a server: TLS 1.3 and 1.2, with certificates that can be replaced while it serves. Clones
/// share them.
#[derive(Clone, Debug)]
pub struct Tls(Arc<Shared>);

/// Clones are equal, and nothing else.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Tls {}

#[derive(Debug)]
struct Shared {
    /// Whether HTTP/2 is offered (ALPN).
    http2: bool,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    certificates: Certificates,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// TLS with these certificates. With `http2`, clients are offered HTTP/2 next to HTTP/1.1
    /// (ALPN, RFC 7301).
    pub fn new(certificates: Certificates, http2: bool) -> Self {
        let config = server_config(certificates.clone(), http2);
        Self(Arc::new(Shared { http2, current: RwLock::new(Current { certificates, config }) }))
    }

    /// Connections that begin from now on get these certificates. Whether they differ from the
    /// previous ones; if they do, sessions that began with those are not resumed.
    pub fn replace(&self, certificates: Certificates) -> bool {
        let mut current = self.0.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.certificates == certificates {
            return false;
        }
        let config = server_config(certificates.clone(), self.0.http2);
        *current = Current { certificates, config };
        true
    }

    /// The server's side of a new connection.
    pub(super) fn accept(&self) -> UnbufferedServerConnection {
        let current = self.0.current.read().unwrap_or_else(PoisonError::into_inner);
        let config = Arc::clone(&current.config);
        drop(current);
        UnbufferedServerConnection::new(config).expect("the sizes in the configuration are the defaults")
    }
}

fn server_config(certificates: Certificates, http2: bool) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has cipher suites of both versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    // The provider's order: AES before ChaCha20.
    config.ignore_client_order = true;
    // Sessions are resumed by tickets, under a secret that changes every six hours and is kept for
    // as long again. Nothing is stored of a session.
    config.ticketer = aws_lc_rs::Ticketer::new().expect("the system provides random numbers");
    config.session_storage = Arc::new(NoServerSessionStorage {});
    let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}
