//! JSON Web Key Sets (RFC 7517): the public keys of an issuer.
//!
//! The library has types for them, which it reads leniently: an `oct` key becomes a shared secret, a
//! short RSA key and a point on another curve become keys. Here a key is what this module
//! understands completely, and everything else is skipped or refused.

use std::collections::HashSet;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::key::VerificationKey;
use crate::{
    Algorithm,
    member::{not_null, presence},
};

/// Longest key set that is read, in bytes.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;

/// Most keys of a key set, those that are skipped included.
pub const JWKS_KEYS_MAX: usize = 100;

/// Sizes of an RSA modulus that are accepted, in bits: a shorter one is weak (RFC 7518, section
/// 3.3), and with a longer one verification would take too long.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// Bytes of a coordinate on the curve P-256, and of a public key of Ed25519.
const COORDINATE_BYTES: usize = 32;

/// Why a key set is not used. No key of it is used then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// It is longer than [`JWKS_BYTES_MAX`].
    #[error("the key set is longer than {JWKS_BYTES_MAX} bytes")]
    TooLong,
    /// It is not a JSON object with an array `keys`.
    #[error("this is not a JSON Web Key Set: a JSON object with an array `keys`")]
    NotAKeySet,
    /// It has more keys than [`JWKS_KEYS_MAX`].
    #[error("the key set has {0} keys; the limit is {JWKS_KEYS_MAX}")]
    TooManyKeys(usize),
    /// It has an `oct` key. What is published is no secret.
    #[error("the key set has a shared secret (`kty` is `oct`): every reader of the set could sign tokens")]
    SharedSecret,
    /// It has the private part of a key.
    #[error("the key set has a private key (`d`): every reader of the set could sign tokens")]
    PrivateKey,
    /// Two of its keys have the same `kid`.
    #[error("two keys of the key set have the `kid` `{0}`")]
    DuplicateKid(String),
    /// None of its keys can verify tokens with an allowed algorithm.
    #[error(
        "the key set has no key that can verify tokens: RSA of 2048 bits or more, EC P-256 or Ed25519, with `use` `sig` and an allowed `alg`"
    )]
    NoUsableKey,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Box<RawValue>>,
}

/// What every key has, and what none may have.
#[derive(Deserialize)]
struct Kind {
    kty: String,
    #[serde(default, deserialize_with = "presence")]
    d: bool,
}

/// RFC 7517, section 4; RFC 7518, section 6; RFC 8037, section 2. A member of the wrong type, or a
/// duplicate one, makes the key unusable.
#[derive(Deserialize)]
struct Parameters {
    #[serde(default, deserialize_with = "not_null")]
    r#use: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    key_ops: Option<Vec<String>>,
    #[serde(default, deserialize_with = "not_null")]
    alg: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    kid: Option<String>,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

/// The keys of a set that can verify tokens with one of these algorithms; an empty list allows all
/// algorithms with a public key. RFC 7517, section 5: keys that are not understood are skipped.
pub(super) fn parse(json: &[u8], allowed: &[Algorithm]) -> Result<Vec<VerificationKey>, JwksError> {
    if json.len() > JWKS_BYTES_MAX {
        return Err(JwksError::TooLong);
    }
    let Set { keys } = serde_json::from_slice(json).map_err(|_| JwksError::NotAKeySet)?;
    if keys.len() > JWKS_KEYS_MAX {
        return Err(JwksError::TooManyKeys(keys.len()));
    }
    let mut usable = Vec::new();
    let mut kids = HashSet::new();
    for key in keys {
        let Ok(kind) = serde_json::from_str::<Kind>(key.get()) else { continue };
        if kind.kty == "oct" {
            return Err(JwksError::SharedSecret);
        }
        if kind.d {
            return Err(JwksError::PrivateKey);
        }
        let parameters = serde_json::from_str::<Parameters>(key.get()).ok();
        let Some(key) = parameters.and_then(|parameters| parameters.key(&kind.kty, allowed)) else {
            continue;
        };
        if let Some(kid) = key.kid()
            && !kids.insert(kid.to_owned())
        {
            return Err(JwksError::DuplicateKid(kid.chars().take(64).flat_map(char::escape_debug).collect()));
        }
        usable.push(key);
    }
    if usable.is_empty() { Err(JwksError::NoUsableKey) } else { Ok(usable) }
}

impl Parameters {
    fn key(self, kty: &str, allowed: &[Algorithm]) -> Option<VerificationKey> {
        let (algorithm, key) = match (kty, self.crv.as_str()) {
            ("RSA", _) => (Algorithm::Rs256, self.rsa()?),
            ("EC", "P-256") => (Algorithm::Es256, self.p256()?),
            ("OKP", "Ed25519") => (Algorithm::EdDsa, self.ed25519()?),
            _ => return None,
        };
        let may_verify = self.r#use.is_none_or(|purpose| purpose == "sig")
            && self.key_ops.is_none_or(|operations| operations.iter().any(|operation| operation == "verify"))
            && self.alg.is_none_or(|name| name == algorithm.name())
            && (allowed.is_empty() || allowed.contains(&algorithm));
        may_verify.then(|| VerificationKey::published(self.kid, algorithm, key))
    }

    fn rsa(&self) -> Option<DecodingKey> {
        let (modulus, exponent) = (decode(&self.n)?, decode(&self.e)?);
        let first = modulus.iter().position(|&byte| byte != 0)?;
        let bits = (modulus.len() - first) * 8 - modulus[first].leading_zeros() as usize;
        let is_odd = exponent.last().is_some_and(|byte| byte % 2 == 1);
        (RSA_BITS.contains(&bits) && is_odd && exponent != [1])
            .then(|| DecodingKey::from_rsa_raw_components(&modulus[first..], &exponent))
    }

    fn p256(&self) -> Option<DecodingKey> {
        let (x, y) = (coordinate(&self.x)?, coordinate(&self.y)?);
        // SEC 1, section 2.3.3: an uncompressed point.
        Some(DecodingKey::from_ec_der(&[&[4][..], &x, &y].concat()))
    }

    fn ed25519(&self) -> Option<DecodingKey> {
        coordinate(&self.x).map(|key| DecodingKey::from_ed_der(&key))
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn coordinate(text: &str) -> Option<Vec<u8>> {
    decode(text).filter(|bytes| bytes.len() == COORDINATE_BYTES)
}
