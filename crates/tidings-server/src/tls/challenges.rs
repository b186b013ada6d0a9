//! Proof for a certificate authority that the hub serves a name: TLS-ALPN-01 (RFC 8737).
//!
//! The authority connects with the protocol `acme-tls/1` alone, and is shown a certificate that is
//! made for it. That protocol is known only while such a certificate is there, and no request is
//! read from its connections.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    server::ClientHello,
    sign::CertifiedKey,
};

/// RFC 8737, 6.2.
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";

/// A certificate with which a name is proven to an authority.
#[derive(Clone)]
pub struct ChallengeCertificate {
    /// The name, in lower case.
    name: String,
    certified: Arc<CertifiedKey>,
}

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the key for the challenge of {name} cannot be used: {source}")]
pub struct InvalidChallenge {
    name: String,
    source: rustls::Error,
}

impl ChallengeCertificate {
    /// The certificate for this name, in DER, with its key in PKCS #8.
    pub fn new(name: &str, certificate: Vec<u8>, key: Vec<u8>) -> Result<Self, InvalidChallenge> {
        let name = name.to_ascii_lowercase();
        let chain = vec![CertificateDer::from(certificate)];
        // Whether they belong together cannot be checked here: the certificate has a critical extension
        // that only authorities know.
        match aws_lc_rs::sign::any_supported_type(&PrivatePkcs8KeyDer::from(key).into()) {
            Ok(key) => Ok(Self { name, certified: Arc::new(CertifiedKey::new(chain, key)) }),
            Err(source) => Err(InvalidChallenge { name, source }),
        }
    }
}

/// Shows no key.
impl std::fmt::Debug for ChallengeCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChallengeCertificate").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The certificates of the challenges that are pending, by name.
#[derive(Clone, Default, Debug)]
pub(super) struct Challenges(HashMap<String, Arc<CertifiedKey>>);

impl Challenges {
    pub(super) fn new(certificates: Vec<ChallengeCertificate>) -> Self {
        Self(certificates.into_iter().map(|challenge| (challenge.name, challenge.certified)).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// RFC 8737, 3: the one for the name that the authority states.
    pub(super) fn of(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.get(&hello.server_name()?.to_ascii_lowercase()).cloned()
    }
}

/// RFC 8737, 3: whether a client validates a challenge. It offers that protocol and no other.
pub(super) fn is_validation(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|protocols| protocols.eq([ACME_TLS]))
}
