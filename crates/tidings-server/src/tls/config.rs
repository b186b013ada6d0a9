//! What a server offers in its handshakes.
//!
//! The configuration is replaced as a whole: connections that exist keep the one that they began
//! with.

use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, UnbufferedServerConnection},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::{
    certificates::Certificates,
    challenges::{ACME_TLS, ChallengeCertificate, Challenges, is_validation},
};

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
    choice: Choice,
    config: Arc<ServerConfig>,
}

/// Which certificate a client gets.
#[derive(Clone, Default, Debug)]
pub(super) struct Choice {
    /// Those that the configuration names.
    pub(super) configured: Certificates,
    /// Those that an authority has issued to this hub: for the hosts that no configured one is for.
    pub(super) obtained: Certificates,
    pub(super) challenges: Challenges,
}

impl Tls {
    /// TLS with these certificates. With `http2`, clients are offered HTTP/2 next to HTTP/1.1
    /// (ALPN, RFC 7301).
    pub fn new(certificates: Certificates, http2: bool) -> Self {
        let choice = Choice { configured: certificates, ..Choice::default() };
        let config = Arc::new(server_config(&choice, http2));
        Self(Arc::new(Shared { http2, current: RwLock::new(Current { choice, config }) }))
    }

    /// Connections that begin from now on get these certificates. Whether they differ from the
    /// previous ones; if they do, sessions that began with those are not resumed.
    pub fn replace(&self, certificates: Certificates) -> bool {
        self.exchange(|choice| &mut choice.configured, certificates)
    }

    /// The same for certificates that an authority has issued to this hub: clients get them for hosts
    /// that no other certificate is for.
    pub fn replace_obtained(&self, certificates: Certificates) -> bool {
        self.exchange(|choice| &mut choice.obtained, certificates)
    }

    fn exchange(&self, part: fn(&mut Choice) -> &mut Certificates, certificates: Certificates) -> bool {
        let mut current = self.write();
        let before = part(&mut current.choice);
        if *before == certificates {
            return false;
        }
        *before = certificates;
        current.config = Arc::new(server_config(&current.choice, self.0.http2));
        true
    }

    /// Shows these certificates to an authority that validates the names in them (TLS-ALPN-01,
    /// RFC 8737), instead of those before; with none, no challenge is answered. Other clients notice
    /// nothing.
    pub fn answer_challenges(&self, certificates: Vec<ChallengeCertificate>) {
        let mut current = self.write();
        current.choice.challenges = Challenges::new(certificates);
        let mut config = ServerConfig::clone(&current.config);
        current.choice.put_into(&mut config, self.0.http2);
        current.config = Arc::new(config);
    }

    /// The server's side of a new connection.
    pub(super) fn accept(&self) -> UnbufferedServerConnection {
        let current = self.0.current.read().unwrap_or_else(PoisonError::into_inner);
        let config = Arc::clone(&current.config);
        drop(current);
        UnbufferedServerConnection::new(config).expect("the sizes in the configuration are the defaults")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Current> {
        self.0.current.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A configuration with a secret of its own for tickets.
fn server_config(choice: &Choice, http2: bool) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has cipher suites of both versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(choice.clone()));
    // The provider's order: AES before ChaCha20.
    config.ignore_client_order = true;
    // Sessions are resumed by tickets, under a secret that changes every six hours and is kept for
    // as long again. Nothing is stored of a session.
    config.ticketer = aws_lc_rs::Ticketer::new().expect("the system provides random numbers");
    config.session_storage = Arc::new(NoServerSessionStorage {});
    choice.put_into(&mut config, http2);
    config
}

impl Choice {
    fn put_into(&self, config: &mut ServerConfig, http2: bool) {
        config.cert_resolver = Arc::new(self.clone());
        let mut protocols: Vec<&[u8]> = if http2 { vec![b"h2", b"http/1.1"] } else { vec![b"http/1.1"] };
        if !self.challenges.is_empty() {
            protocols.push(ACME_TLS);
        }
        config.alpn_protocols = protocols.into_iter().map(<[u8]>::to_vec).collect();
    }

    /// Those for this host, or else the first one.
    pub(super) fn of_host(&self, host: Option<&str>) -> &[Arc<CertifiedKey>] {
        let [configured, obtained] = [&self.configured, &self.obtained];
        let found = configured.of_host(host).or_else(|| obtained.of_host(host));
        found.unwrap_or_else(|| match configured.first() {
            [] => obtained.first(),
            first => first,
        })
    }
}

impl ResolvesServerCert for Choice {
    /// RFC 6066, 3: of several certificates for the host (one with an RSA key and one with an ECDSA key,
    /// say), the first whose key the client can verify.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if is_validation(&hello) {
            return self.challenges.of(&hello);
        }
        let suitable = self.of_host(hello.server_name());
        let can_verify =
            |certified: &&Arc<CertifiedKey>| certified.key.choose_scheme(hello.signature_schemes()).is_some();
        suitable.iter().find(can_verify).or(suitable.first()).cloned()
    }
}
