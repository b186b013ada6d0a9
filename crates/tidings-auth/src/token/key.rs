//! Key material: a shared secret or a key in PEM, and the algorithms that match it.
//!
//! A public key is not secret. Used as the secret of an HMAC algorithm, it would let anyone sign
//! tokens. So the form of the key decides which algorithms are possible, never the other way round.

use jsonwebtoken::{DecodingKey, EncodingKey};

use crate::{Algorithm, ConfigError, Secret};

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

/// The key that verifies tokens and the algorithms that are allowed with it; without a list, the
/// one that matches.
pub(super) fn verification_key(
    key: &Secret,
    allowed: &[Algorithm],
) -> Result<(Vec<Algorithm>, DecodingKey), ConfigError> {
    let (natural, decoding) = if is_pem(key.expose()) {
        let (algorithm, decoding) = public_key(key.expose()).map_err(bad_key)?;
        (algorithm, Some(decoding))
    } else {
        (Algorithm::Hs256, None)
    };
    let algorithms = if allowed.is_empty() { vec![natural] } else { allowed.to_vec() };
    for &algorithm in &algorithms {
        check_fit(key.expose(), natural, algorithm).map_err(bad_key)?;
    }
    Ok((algorithms, decoding.unwrap_or_else(|| DecodingKey::from_secret(key.expose().as_bytes()))))
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

fn bad_key(reason: String) -> ConfigError {
    ConfigError::new("issuer.key", reason)
}
