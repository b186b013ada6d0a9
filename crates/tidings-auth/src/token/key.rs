//! Key material: a shared secret or a key in PEM, and the algorithms that match it.
//!
//! A public key is not secret. Used as the secret of an HMAC algorithm, it would let anyone sign
//! tokens. So the form of the key decides which algorithms are possible, never the other way round.

use std::fmt;

use jsonwebtoken::{DecodingKey, EncodingKey};

use crate::{Algorithm, IssuerKeyConfig, Secret};

/// Minimum size of an RSA public key in DER, in bytes: a key of 2048 bits has a few more.
const RSA_DER_BYTES_MIN: usize = 256;
/// Bytes of an uncompressed point on the curve P-256.
const P256_POINT_BYTES: usize = 65;

/// Whether a text is or contains a key in PEM.
pub(crate) fn is_pem(text: &str) -> bool {
    text.contains("-----BEGIN")
}

fn is_private(pem: &str) -> bool {
    pem.contains("PRIVATE KEY-----")
}

/// A key that verifies tokens, and the algorithms that it is allowed to verify.
pub(super) struct VerificationKey {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl VerificationKey {
    /// A key of the configuration. Without a list, its algorithm is the one that matches; with one,
    /// those of the list that match, of which there must be one.
    pub(super) fn configured(config: &IssuerKeyConfig, allowed: &[Algorithm]) -> Result<Self, String> {
        let text = config.key.expose();
        let (natural, key) = if is_pem(text) {
            public_key(text)?
        } else {
            (Algorithm::Hs256, DecodingKey::from_secret(text.as_bytes()))
        };
        let allowed = if allowed.is_empty() { &[natural][..] } else { allowed };
        let is_meant = |algorithm: &Algorithm| {
            if is_pem(text) { *algorithm == natural } else { algorithm.secret_bytes_min().is_some() }
        };
        let algorithms: Vec<_> = allowed.iter().copied().filter(is_meant).collect();
        // Of the lengths that the hashes require, the greatest counts. If the key is meant for none of
        // the list, the first one says why.
        for &algorithm in if algorithms.is_empty() { allowed } else { &algorithms } {
            check_fit(text, natural, algorithm)?;
        }
        Ok(Self { kid: config.kid.clone(), algorithms, key })
    }

    /// A key that an issuer publishes, for its one algorithm.
    pub(super) fn published(kid: Option<String>, algorithm: Algorithm, key: DecodingKey) -> Self {
        Self { kid, algorithms: vec![algorithm], key }
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    pub(super) fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// The algorithm of this name, if the key may be used with it.
    pub(super) fn algorithm(&self, name: &str) -> Option<Algorithm> {
        self.algorithms.iter().copied().find(|algorithm| algorithm.name() == name)
    }

    /// Whether this is the signature of the message. `algorithm` is one of this key.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &str, signature: &str) -> bool {
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.key, algorithm.library_name())
            .unwrap_or(false)
    }
}

/// The keys that may verify a token, those of the configuration first: with a `kid`, the one key of
/// this id, or if there is none, those that the configuration gives no id; without one, all.
pub(super) fn keys_for<'a>(
    configured: &'a [VerificationKey],
    fetched: Option<&'a [VerificationKey]>,
    kid: Option<&str>,
) -> Vec<&'a VerificationKey> {
    match kid {
        None => configured.iter().chain(fetched.unwrap_or_default()).collect(),
        Some(kid) => match key_of(configured, fetched, kid) {
            Some(key) => vec![key],
            None => configured.iter().filter(|key| key.kid().is_none()).collect(),
        },
    }
}

/// The one key of this id.
pub(super) fn key_of<'a>(
    configured: &'a [VerificationKey],
    fetched: Option<&'a [VerificationKey]>,
    kid: &str,
) -> Option<&'a VerificationKey> {
    configured.iter().chain(fetched.unwrap_or_default()).find(|key| key.kid() == Some(kid))
}

/// Omits the key, which may be a shared secret.
impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationKey")
            .field("kid", &self.kid)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

/// The key that signs tokens: the same shared secret, or the private key in PEM.
pub(crate) fn signing_key(
    key: &Secret,
    wanted: Option<Algorithm>,
) -> Result<(Algorithm, EncodingKey), String> {
    let text = key.expose();
    if !is_pem(text) {
        let algorithm = wanted.unwrap_or(Algorithm::Hs256);
        check_fit(text, Algorithm::Hs256, algorithm)?;
        return Ok((algorithm, EncodingKey::from_secret(text.as_bytes())));
    }
    if !is_private(text) {
        return Err("is a public key: tokens are signed with the private one".to_owned());
    }
    let pem = text.as_bytes();
    let (natural, encoding) = EncodingKey::from_rsa_pem(pem)
        .map(|key| (Algorithm::Rs256, key))
        .or_else(|_| EncodingKey::from_ec_pem(pem).map(|key| (Algorithm::Es256, key)))
        .or_else(|_| EncodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDsa, key)))
        .map_err(|_| {
            "is not a private key in PEM (RSA, EC P-256 or Ed25519, not encrypted; `openssl pkcs8 -topk8 -nodes` \
             converts older forms)"
                .to_owned()
        })?;
    let algorithm = wanted.unwrap_or(natural);
    check_fit(text, natural, algorithm)?;
    // Signs once, to find a key of the wrong curve or size now and not with the first token.
    jsonwebtoken::crypto::sign(b"", &encoding, algorithm.library_name())
        .map_err(|_| format!("does not fit {algorithm}"))?;
    Ok((algorithm, encoding))
}

fn public_key(pem: &str) -> Result<(Algorithm, DecodingKey), String> {
    if is_private(pem) {
        return Err("is a private key: give the public one, the hub only verifies".to_owned());
    }
    let bytes = pem.as_bytes();
    let (algorithm, key) = DecodingKey::from_rsa_pem(bytes)
        .map(|key| (Algorithm::Rs256, key))
        .or_else(|_| DecodingKey::from_ec_pem(bytes).map(|key| (Algorithm::Es256, key)))
        .or_else(|_| DecodingKey::from_ed_pem(bytes).map(|key| (Algorithm::EdDsa, key)))
        .map_err(|_| "is not a public key in PEM (RSA, EC P-256 or Ed25519)".to_owned())?;
    let length = key.try_get_as_bytes().map_or(0, <[u8]>::len);
    match algorithm {
        Algorithm::Rs256 if length < RSA_DER_BYTES_MIN => {
            Err("is an RSA key of fewer than 2048 bits".to_owned())
        }
        Algorithm::Es256 if length != P256_POINT_BYTES => {
            Err("is an EC key of another curve than P-256".to_owned())
        }
        _ => Ok((algorithm, key)),
    }
}

fn check_fit(key: &str, natural: Algorithm, algorithm: Algorithm) -> Result<(), String> {
    match algorithm.secret_bytes_min() {
        Some(_) if is_pem(key) => Err(format!(
            "is in PEM, which {algorithm} cannot use: it needs a shared secret that nobody else knows"
        )),
        Some(_) if is_published(key) => {
            Err(format!("looks like a public key, which {algorithm} cannot use: it needs a shared secret"))
        }
        Some(minimum) if key.len() < minimum => Err(format!(
            "has {} bytes; {algorithm} needs at least {minimum} (`tidings key new` generates one)",
            key.len()
        )),
        None if !is_pem(key) => Err(format!("is a shared secret, but {algorithm} needs a key in PEM")),
        None if natural != algorithm => Err(format!("is a key for {natural}, not for {algorithm}")),
        Some(_) | None => Ok(()),
    }
}

// Public keys in other formats than PEM: a JSON Web Key, a line of OpenSSH, bare base64 of a DER
// structure.
fn is_published(key: &str) -> bool {
    let key = key.trim_start();
    ["{", "ssh-", "ecdsa-", "MIIB", "MIIC", "MCowBQYDK2Vw", "MFkwEwYHKoZI"]
        .iter()
        .any(|beginning| key.starts_with(beginning))
}
