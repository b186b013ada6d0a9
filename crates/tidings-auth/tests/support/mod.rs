//! Keys generated for the run, and tokens of any form, including invalid ones.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::LazyLock;

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};
use tidings_auth::{
    Access, Algorithm, AuthConfig, AuthError, Authenticator, IssuerConfig, IssuerKeyConfig, Secret,
};
use tidings_topic::{Topic, Validator};

/// The present time of all tests.
pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const ISSUER: &str = "https://app.example";
pub(crate) const AUDIENCE: &str = "https://hub.example/.well-known/mercure";
pub(crate) const DETAIL_TYPE: &str = "https://mercure.rocks/authorization-detail";
/// Long enough for every HMAC algorithm.
pub(crate) const SHARED_SECRET: &str =
    "a shared secret of the tests, which is long enough for HS512 too, and known to all";

/// A key pair in PEM, generated for this run.
pub(crate) struct Pair {
    pub(crate) private_pem: String,
    pub(crate) public_pem: String,
}

pub(crate) static RSA: LazyLock<Pair> = LazyLock::new(|| {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    Pair::new(private.as_ref(), &pair.public_key().as_der().unwrap())
});

pub(crate) static EC: LazyLock<Pair> = LazyLock::new(|| ec_pair(&ECDSA_P256_SHA256_FIXED_SIGNING));

pub(crate) static ED: LazyLock<Pair> = LazyLock::new(|| {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    Pair::new(document.as_ref(), &pair.public_key().as_der().unwrap())
});

pub(crate) fn ec_pair(algorithm: &'static aws_lc_rs::signature::EcdsaSigningAlgorithm) -> Pair {
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref()).unwrap();
    Pair::new(document.as_ref(), &pair.public_key().as_der().unwrap())
}

impl Pair {
    pub(crate) fn new(private: &[u8], public: &PublicKeyX509Der<'_>) -> Self {
        Self { private_pem: pem("PRIVATE KEY", private), public_pem: pem("PUBLIC KEY", public.as_ref()) }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// The private and the public key for an algorithm; for HMAC they are the same.
pub(crate) fn keys(algorithm: Algorithm) -> (Secret, Secret) {
    let pair = match algorithm {
        Algorithm::Rs256 => &RSA,
        Algorithm::Es256 => &EC,
        Algorithm::EdDsa => &ED,
        _ => return (SHARED_SECRET.into(), SHARED_SECRET.into()),
    };
    (pair.private_pem.as_str().into(), pair.public_pem.as_str().into())
}

/// An issuer with one key, which has no id.
pub(crate) fn issuer(key: &str, algorithms: &[Algorithm]) -> IssuerConfig {
    IssuerConfig {
        issuer: ISSUER.to_owned(),
        audiences: vec![AUDIENCE.to_owned()],
        algorithms: algorithms.to_vec(),
        keys: vec![IssuerKeyConfig { kid: None, key: key.into() }],
        ..IssuerConfig::default()
    }
}

/// A hub that trusts these issuers.
pub(crate) fn hub_of(issuers: Vec<IssuerConfig>) -> Authenticator {
    Authenticator::new(AuthConfig { issuers, ..AuthConfig::default() }, &Validator::default()).unwrap()
}

/// A hub that trusts one issuer with this key.
pub(crate) fn hub(key: &str, algorithms: &[Algorithm]) -> Authenticator {
    hub_of(vec![issuer(key, algorithms)])
}

/// A hub that trusts tokens signed with [`SHARED_SECRET`].
pub(crate) fn hmac_hub() -> Authenticator {
    hub(SHARED_SECRET, &[Algorithm::Hs256])
}

pub(crate) fn header() -> Value {
    json!({ "typ": "at+jwt", "alg": "HS256" })
}

/// Claims that every hub of these tests accepts.
pub(crate) fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 60, "sub": "kevin",
        "authorization_details": [detail(json!({}))],
    })
}

/// A detail that allows everything about the topic `chat`, with some members replaced.
pub(crate) fn detail(members: Value) -> Value {
    let detail =
        json!({ "type": DETAIL_TYPE, "actions": ["publish", "subscribe"], "topics": [{ "match": "chat" }] });
    with(detail, members)
}

pub(crate) fn with_details(details: Value) -> Value {
    let mut claims = claims();
    claims["authorization_details"] = details;
    claims
}

/// The object with some members added or replaced.
pub(crate) fn with(mut object: Value, members: Value) -> Value {
    let Value::Object(members) = members else { panic!("members are an object") };
    for (name, value) in members {
        object[name] = value;
    }
    object
}

pub(crate) fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name).expect("it had that member");
    object
}

pub(crate) fn encode(part: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(part)
}

/// A token with any texts for header and claims, signed with the shared secret as HS256, whatever
/// their content.
pub(crate) fn signed_text(header: &str, claims: &str) -> String {
    signed_with(
        &EncodingKey::from_secret(SHARED_SECRET.as_bytes()),
        jsonwebtoken::Algorithm::HS256,
        header,
        claims,
    )
}

pub(crate) fn signed_with(
    key: &EncodingKey,
    algorithm: jsonwebtoken::Algorithm,
    header: &str,
    claims: &str,
) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

pub(crate) fn signed(header: &Value, claims: &Value) -> String {
    signed_text(&header.to_string(), &claims.to_string())
}

pub(crate) fn bearer(credential: &str) -> HeaderMap {
    authorization(&format!("Bearer {credential}"))
}

pub(crate) fn authorization(value: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
}

pub(crate) fn present(hub: &Authenticator, credential: &str) -> Result<Access, AuthError> {
    hub.authenticate(&bearer(credential), None, NOW).map(|access| access.expect("a credential was presented"))
}

/// Presents claims with a valid header and signature.
pub(crate) fn present_claims(claims: &Value) -> Result<Access, AuthError> {
    present(&hmac_hub(), &signed(&header(), claims))
}

pub(crate) fn topic(text: &str) -> Topic {
    Validator::default().topic(text).unwrap()
}

#[track_caller]
pub(crate) fn assert_invalid_token(result: Result<Access, AuthError>, about: &str) {
    let error = result.expect_err(about);
    assert_eq!(error.code(), Some("invalid_token"), "{about}: {error}");
    assert_eq!(error.status(), 401, "{about}");
}
