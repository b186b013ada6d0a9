//! Several issuers, each with several keys. The numbers are those of the security checklist: 3 the
//! algorithm of a key, 4 the lookup of a key, 5 the required claims, 12 what is fetched.

mod support;

use std::{collections::HashMap, pin::pin, task::Poll, time::Instant};

use aws_lc_rs::signature::{KeyPair, RsaKeyPair};
use jsonwebtoken::EncodingKey;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::*;
use tidings_auth::{
    Access, Algorithm, AuthConfig, AuthError, Authenticator, IssuerConfig, IssuerKeyConfig, JWKS_BYTES_MAX,
    JWKS_KEYS_MAX, JwksError, JwksUrl, MatcherText, NewToken, RemoteKeys, Secret, SigningKey, mint,
};
use tidings_topic::{Matcher, Validator};

const OTHER: &str = "https://other.example";

/// Secrets that differ in their first letter.
fn secret(letter: char) -> String {
    format!("{letter} secret of the tests, which is long enough for HS256")
}

fn key(kid: Option<&str>, text: &str) -> IssuerKeyConfig {
    IssuerKeyConfig { kid: kid.map(str::to_owned), key: text.into() }
}

fn issuer_of(name: &str, keys: Vec<IssuerKeyConfig>) -> IssuerConfig {
    IssuerConfig {
        issuer: name.to_owned(),
        audiences: vec![AUDIENCE.to_owned()],
        keys,
        ..IssuerConfig::default()
    }
}

/// An issuer whose keys are at a URL.
fn remote_issuer(name: &str) -> IssuerConfig {
    let url = "https://issuer.example/jwks".parse().unwrap();
    IssuerConfig { jwks_url: Some(JwksUrl::new(url)), ..issuer_of(name, vec![]) }
}

fn refusal(issuers: Vec<IssuerConfig>) -> String {
    let config = AuthConfig { issuers, ..AuthConfig::default() };
    Authenticator::new(config, &Validator::default()).unwrap_err().to_string()
}

/// A token for everything of this issuer, signed with this key.
fn token(issuer: &str, kid: Option<&str>, key: &str, algorithm: Algorithm) -> String {
    let token = NewToken {
        issuer: issuer.to_owned(),
        audience: AUDIENCE.to_owned(),
        subject: "kevin".to_owned(),
        issued_at: NOW,
        expires_at: NOW + 60,
        publish: vec!["*".into()],
        subscribe: vec!["*".into()],
        payload: None,
    };
    let key = SigningKey::new(&key.into(), Some(algorithm)).unwrap();
    mint(&token, &key.with_kid(kid.map(str::to_owned))).unwrap()
}

fn hmac(issuer: &str, kid: Option<&str>, letter: char) -> String {
    token(issuer, kid, &secret(letter), Algorithm::Hs256)
}

fn jwk(pair: &Pair, kid: Option<&str>) -> Value {
    let der: Vec<u8> = {
        use base64::Engine;
        let text: String = pair.public_pem.lines().filter(|line| !line.starts_with('-')).collect();
        base64::engine::general_purpose::STANDARD.decode(text).unwrap()
    };
    let mut jwk = match der.len() {
        44 => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&der[12..]) }),
        91 => json!({ "kty": "EC", "crv": "P-256", "x": encode(&der[27..59]), "y": encode(&der[59..]) }),
        _ => {
            let pair = RsaKeyPair::from_pkcs8(&pkcs8(pair)).unwrap();
            let modulus = pair.public_key().modulus().big_endian_without_leading_zero().to_vec();
            let exponent = pair.public_key().exponent().big_endian_without_leading_zero().to_vec();
            json!({ "kty": "RSA", "n": encode(modulus), "e": encode(exponent) })
        }
    };
    if let Some(kid) = kid {
        jwk["kid"] = json!(kid);
    }
    jwk
}

fn pkcs8(pair: &Pair) -> Vec<u8> {
    use base64::Engine;
    let text: String = pair.private_pem.lines().filter(|line| !line.starts_with('-')).collect();
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn hub_of_set(keys: &[Value]) -> Authenticator {
    hub_of(vec![IssuerConfig { jwks: Some(set(keys)), ..issuer_of(ISSUER, vec![]) }])
}

fn fetched(keys: &RemoteKeys, jwks: &str) -> Result<usize, JwksError> {
    let fetching = keys.begin();
    let result = fetching.succeeded(jwks.as_bytes(), Instant::now());
    fetching.finish(false);
    result
}

fn assert_says(result: Result<Access, AuthError>, part: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code(), Some("invalid_token"), "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

const UNKNOWN_KID: &str = "no key with the `kid` of the token";
const WRONG_SIGNATURE: &str = "signature";
const UNKNOWN_ISSUER: &str = "not an issuer that this hub trusts";
const WRONG_ALGORITHM: &str = "`alg`";

#[test]
fn each_of_several_issuers_has_several_keys() {
    let hub = hub_of(vec![
        issuer_of(ISSUER, vec![key(Some("1"), &secret('a')), key(Some("2"), &ED.public_pem)]),
        issuer_of(OTHER, vec![key(None, &RSA.public_pem), key(Some("1"), &EC.public_pem)]),
    ]);
    for good in [
        hmac(ISSUER, Some("1"), 'a'),
        token(ISSUER, Some("2"), &ED.private_pem, Algorithm::EdDsa),
        token(OTHER, None, &RSA.private_pem, Algorithm::Rs256),
        token(OTHER, Some("1"), &EC.private_pem, Algorithm::Es256),
    ] {
        let access = present(&hub, &good).unwrap();
        assert!(access.publish.is_all() && access.subscribe.is_all());
    }
    let access = present(&hub, &hmac(ISSUER, Some("1"), 'a')).unwrap();
    assert_eq!(access.issuer.as_deref(), Some(ISSUER));
}

#[test]
fn rule_3_the_algorithm_is_pinned_to_the_key() {
    // The issuer allows both algorithms, each for one key.
    let hub = hub_of(vec![IssuerConfig {
        algorithms: vec![Algorithm::Hs256, Algorithm::EdDsa],
        ..issuer_of(ISSUER, vec![key(Some("hmac"), &secret('a')), key(Some("ed"), &ED.public_pem)])
    }]);
    assert!(present(&hub, &hmac(ISSUER, Some("hmac"), 'a')).is_ok());
    assert_says(present(&hub, &hmac(ISSUER, Some("ed"), 'a')), WRONG_ALGORITHM);
    let crossed = token(ISSUER, Some("hmac"), &ED.private_pem, Algorithm::EdDsa);
    assert_says(present(&hub, &crossed), WRONG_ALGORITHM);
}

#[test]
fn rule_3_an_algorithm_that_is_not_allowed_is_refused_for_a_fetched_key() {
    let jwks = Some(set(&[jwk(&ED, Some("ed")), jwk(&EC, Some("ec"))]));
    let algorithms = vec![Algorithm::EdDsa];
    let hub = hub_of(vec![IssuerConfig { jwks, algorithms, ..issuer_of(ISSUER, vec![]) }]);
    assert!(present(&hub, &token(ISSUER, Some("ed"), &ED.private_pem, Algorithm::EdDsa)).is_ok());
    assert_says(present(&hub, &token(ISSUER, Some("ec"), &EC.private_pem, Algorithm::Es256)), UNKNOWN_KID);
}

#[test]
fn rule_3_an_hmac_with_a_published_key_is_refused() {
    // Algorithm confusion on the path of key sets: everything about the key that an attacker can
    // read is tried as the shared secret.
    for (pair, algorithm) in [(&RSA, Algorithm::Rs256), (&EC, Algorithm::Es256), (&ED, Algorithm::EdDsa)] {
        let published = jwk(pair, Some("1"));
        let hub = hub_of_set(std::slice::from_ref(&published));
        let coordinates = ["n", "x", "y"].iter().filter_map(|name| published[name].as_str());
        let raw = coordinates.clone().map(|text| {
            use base64::Engine;
            base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()
        });
        let texts = [pair.public_pem.clone(), published.to_string(), set(std::slice::from_ref(&published))];
        let secrets = texts.into_iter().map(String::into_bytes).chain(raw);
        for secret in secrets.chain(coordinates.clone().map(|text| text.as_bytes().to_vec())) {
            for (alg, kid) in [("HS256", json!("1")), (algorithm.name(), json!("1")), ("HS256", Value::Null)]
            {
                let mut header = json!({ "typ": "at+jwt", "alg": alg, "kid": kid });
                if kid.is_null() {
                    header = without(header, "kid");
                }
                let key = EncodingKey::from_secret(&secret);
                let claims = claims().to_string();
                let forged = signed_with(&key, jsonwebtoken::Algorithm::HS256, &header.to_string(), &claims);
                assert_invalid_token(present(&hub, &forged), alg);
            }
        }
    }
}

#[test]
fn rule_3_none_is_refused_for_every_source_of_keys() {
    let message =
        format!("{}.{}.", encode(r#"{"typ":"at+jwt","alg":"none","kid":"1"}"#), encode(claims().to_string()));
    for hub in [
        hub_of(vec![issuer_of(ISSUER, vec![key(Some("1"), &secret('a'))])]),
        hub_of_set(&[jwk(&ED, Some("1"))]),
    ] {
        assert_invalid_token(present(&hub, &message), "none");
    }
}

#[test]
fn rule_4_a_key_of_one_issuer_never_verifies_a_token_of_another() {
    let hub = hub_of(vec![
        issuer_of(ISSUER, vec![key(Some("a"), &secret('a')), key(None, &secret('b'))]),
        issuer_of(OTHER, vec![key(Some("c"), &secret('c')), key(None, &secret('d'))]),
    ]);
    assert!(present(&hub, &hmac(OTHER, Some("c"), 'c')).is_ok());
    for (kid, letter, says) in [
        (Some("a"), 'a', WRONG_SIGNATURE),
        (Some("c"), 'a', WRONG_SIGNATURE),
        (None, 'a', WRONG_SIGNATURE),
        (None, 'b', WRONG_SIGNATURE),
    ] {
        assert_says(present(&hub, &hmac(OTHER, kid, letter)), says);
    }
}

#[test]
fn rule_4_the_same_kid_at_two_issuers_is_two_keys() {
    let [first, second] = ['a', 'b'].map(|letter| vec![key(Some("1"), &secret(letter))]);
    let hub = hub_of(vec![issuer_of(ISSUER, first), issuer_of(OTHER, second)]);
    assert!(present(&hub, &hmac(ISSUER, Some("1"), 'a')).is_ok());
    assert!(present(&hub, &hmac(OTHER, Some("1"), 'b')).is_ok());
    assert_says(present(&hub, &hmac(OTHER, Some("1"), 'a')), WRONG_SIGNATURE);
    assert_says(present(&hub, &hmac(ISSUER, Some("1"), 'b')), WRONG_SIGNATURE);
}

#[test]
fn rule_4_fetched_keys_with_the_same_kid_stay_with_their_issuer() {
    let hub = hub_of(vec![remote_issuer(ISSUER), remote_issuer(OTHER)]);
    let [ours, others] = &hub.remote_keys()[..] else { panic!("two issuers") };
    let second = ec_pair(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING);
    assert_eq!(fetched(ours, &set(&[jwk(&EC, Some("1"))])), Ok(1));
    assert_eq!(fetched(others, &set(&[jwk(&second, Some("1"))])), Ok(1));
    let signed = |issuer, pair: &Pair| token(issuer, Some("1"), &pair.private_pem, Algorithm::Es256);
    assert!(present(&hub, &signed(ISSUER, &EC)).is_ok());
    assert!(present(&hub, &signed(OTHER, &second)).is_ok());
    assert_says(present(&hub, &signed(OTHER, &EC)), WRONG_SIGNATURE);
    assert_says(present(&hub, &signed(ISSUER, &second)), WRONG_SIGNATURE);
}

#[test]
fn rule_4_a_token_with_an_unknown_kid_is_tried_with_the_keys_without_one() {
    let hub = hub_of(vec![issuer_of(ISSUER, vec![key(Some("1"), &secret('a')), key(None, &secret('b'))])]);
    for kid in ["2", "", "1 ", "01", "../1", "null"] {
        assert!(present(&hub, &hmac(ISSUER, Some(kid), 'b')).is_ok(), "{kid}");
        assert_says(present(&hub, &hmac(ISSUER, Some(kid), 'a')), WRONG_SIGNATURE);
    }
    assert_says(present(&hub, &hmac(ISSUER, Some("1"), 'b')), WRONG_SIGNATURE);
    let hub = hub_of(vec![issuer_of(ISSUER, vec![key(Some("1"), &secret('a'))])]);
    assert_says(present(&hub, &hmac(ISSUER, Some("2"), 'a')), UNKNOWN_KID);
}

#[test]
fn rule_4_a_fetched_key_counts_for_its_kid_alone_and_before_those_without() {
    let with_secret = IssuerConfig { keys: vec![key(None, &secret('a'))], ..remote_issuer(ISSUER) };
    let hub = hub_of(vec![with_secret]);
    assert!(present(&hub, &hmac(ISSUER, Some("1"), 'a')).is_ok());
    let keys = hub.remote_keys().remove(0);
    fetched(&keys, &set(&[jwk(&ED, Some("1")), jwk(&EC, None)])).unwrap();
    let signed = |kid, pair: &Pair, algorithm| token(ISSUER, kid, &pair.private_pem, algorithm);
    assert!(present(&hub, &signed(Some("1"), &ED, Algorithm::EdDsa)).is_ok());
    assert!(present(&hub, &signed(None, &EC, Algorithm::Es256)).is_ok());
    assert!(present(&hub, &hmac(ISSUER, Some("2"), 'a')).is_ok());
    assert_invalid_token(present(&hub, &hmac(ISSUER, Some("1"), 'a')), "the key of this kid is another");
    let unnamed = signed(Some("2"), &EC, Algorithm::Es256);
    assert_invalid_token(present(&hub, &unnamed), "a key that the issuer publishes without kid");
}

#[test]
fn rule_4_a_token_without_kid_is_tried_with_at_most_eight_keys() {
    let letters = || ('a'..).take(10);
    let hub = hub_of(vec![issuer_of(
        ISSUER,
        letters().map(|letter| key(Some(&letter.to_string()), &secret(letter))).collect(),
    )]);
    let accepted = letters().filter(|letter| present(&hub, &hmac(ISSUER, None, *letter)).is_ok()).count();
    assert_eq!(accepted, 8);
    // Only keys whose algorithm fits count.
    let mut keys = vec![key(None, &RSA.public_pem), key(None, &EC.public_pem)];
    keys.extend(('a'..).take(8).map(|letter| key(None, &secret(letter))));
    let hub = hub_of(vec![issuer_of(ISSUER, keys)]);
    assert!(present(&hub, &hmac(ISSUER, None, 'h')).is_ok());
    assert!(present(&hub, &token(ISSUER, None, &EC.private_pem, Algorithm::Es256)).is_ok());
}

#[test]
fn rule_4_urls_in_a_token_cause_no_fetch() {
    let hub = hub_of(vec![remote_issuer(ISSUER)]);
    let keys = hub.remote_keys().remove(0);
    fetched(&keys, &set(&[jwk(&ED, Some("1"))])).unwrap();
    keys.allow_fetch();
    for (header, claims) in [
        (json!({ "kid": "1", "jku": "https://evil.example/jwks" }), claims()),
        (json!({ "kid": "1", "x5u": "https://evil.example/x5u" }), claims()),
        (json!({ "kid": "2", "jku": "https://evil.example/jwks" }), with(claims(), json!({ "iss": OTHER }))),
        (json!({ "kid": "2" }), with(claims(), json!({ "iss": "https://169.254.169.254/jwks" }))),
        (json!({ "kid": "2" }), without(claims(), "iss")),
        (json!({ "kid": "2", "typ": "JWT" }), claims()),
        (json!({ "kid": "2", "crit": [] }), claims()),
        (json!({}), claims()),
    ] {
        let header = with(json!({ "typ": "at+jwt", "alg": "EdDSA" }), header);
        let forged = format!("{}.{}.AAAA", encode(header.to_string()), encode(claims.to_string()));
        assert!(hub.wait_for_keys(&bearer(&forged), None).is_none(), "{header}");
    }
    assert_eq!(keys.source().url.as_str(), "https://issuer.example/jwks");
}

#[test]
fn rule_4_tokens_cause_at_most_the_fetches_that_the_fetcher_allows() {
    let hub = hub_of(vec![remote_issuer(ISSUER)]);
    let keys = hub.remote_keys().remove(0);
    fetched(&keys, &set(&[jwk(&ED, Some("1"))])).unwrap();
    let unknown =
        |kid: usize| bearer(&token(ISSUER, Some(&kid.to_string()), &ED.private_pem, Algorithm::EdDsa));
    // Not allowed yet: nothing waits, whatever the tokens are.
    assert!((2..100).all(|kid| hub.wait_for_keys(&unknown(kid), None).is_none()));
    keys.allow_fetch();
    let waiting: Vec<_> = (2..100).filter_map(|kid| hub.wait_for_keys(&unknown(kid), None)).collect();
    assert_eq!(waiting.len(), 64, "a bounded number of requests waits");
    // All of them wait for the same fetch, after which none waits again.
    fetched(&keys, &set(&[jwk(&ED, Some("1"))])).unwrap();
    assert!((2..100).all(|kid| hub.wait_for_keys(&unknown(kid), None).is_none()));
    drop(waiting);
}

#[test]
fn rule_5_each_issuer_has_its_own_audience() {
    let other = IssuerConfig {
        audiences: vec!["https://b.example/hub".to_owned()],
        ..issuer_of(OTHER, vec![key(None, &secret('b'))])
    };
    let hub = hub_of(vec![issuer_of(ISSUER, vec![key(None, &secret('a'))]), other]);
    assert!(present(&hub, &hmac(ISSUER, None, 'a')).is_ok());
    assert_says(present(&hub, &hmac(OTHER, None, 'b')), "`aud`");
}

#[test]
fn rule_5_a_token_without_a_known_issuer_is_refused() {
    let hub = hub_of(vec![
        issuer_of(ISSUER, vec![key(None, SHARED_SECRET)]),
        issuer_of(OTHER, vec![key(None, &secret('b'))]),
    ]);
    for iss in
        [json!("https://evil.example"), json!(""), json!(format!("{ISSUER}/")), json!(ISSUER.to_uppercase())]
    {
        assert_says(
            present(&hub, &signed(&header(), &with(claims(), json!({ "iss": iss })))),
            UNKNOWN_ISSUER,
        );
    }
    for iss in [json!(null), json!(1), json!([ISSUER]), json!({ "iss": ISSUER })] {
        assert_invalid_token(
            present(&hub, &signed(&header(), &with(claims(), json!({ "iss": iss })))),
            "wrong type",
        );
    }
    assert_invalid_token(present(&hub, &signed(&header(), &without(claims(), "iss"))), "no iss");
    for twice in [format!(r#","iss":"{OTHER}"}}"#), format!(r#","\u0069ss":"{OTHER}"}}"#)] {
        let text = format!("{}{twice}", claims().to_string().trim_end_matches('}'));
        assert_invalid_token(present(&hub, &signed_text(&header().to_string(), &text)), "two issuers");
    }
}

#[test]
fn keys_that_no_token_should_be_verified_with_are_skipped() {
    let good = jwk(&ED, Some("good"));
    let bad = [
        json!({}),
        json!({ "kty": "unknown" }),
        json!({ "kty": 7 }),
        json!({ "kty": "RSA" }),
        json!({ "kty": "RSA", "n": encode([0xff; 128]), "e": "AQAB" }),
        json!({ "kty": "RSA", "n": encode([0xff; 2048]), "e": "AQAB" }),
        json!({ "kty": "RSA", "n": encode([0xff; 256]), "e": "AQ" }),
        json!({ "kty": "RSA", "n": encode([0xff; 256]), "e": "AA" }),
        json!({ "kty": "RSA", "n": "!", "e": "AQAB" }),
        json!({ "kty": "EC", "crv": "P-384", "x": encode([1; 48]), "y": encode([1; 48]) }),
        json!({ "kty": "EC", "crv": "P-256", "x": encode([1; 31]), "y": encode([1; 32]) }),
        json!({ "kty": "OKP", "crv": "X25519", "x": encode([1; 32]) }),
        json!({ "kty": "OKP", "crv": "Ed448", "x": encode([1; 57]) }),
        with(jwk(&EC, Some("1")), json!({ "use": "enc" })),
        with(jwk(&EC, Some("1")), json!({ "use": null })),
        with(jwk(&EC, Some("1")), json!({ "key_ops": ["encrypt"] })),
        with(jwk(&EC, Some("1")), json!({ "alg": "ES384" })),
        with(jwk(&EC, Some("1")), json!({ "alg": "HS256" })),
        with(jwk(&EC, Some("1")), json!({ "alg": "none" })),
        with(jwk(&EC, Some("1")), json!({ "alg": 7 })),
        with(jwk(&EC, Some("1")), json!({ "kid": 1 })),
        with(jwk(&EC, Some("1")), json!({ "crv": "Ed25519" })),
    ];
    for key in bad {
        let hub = hub_of_set(&[key.clone(), good.clone()]);
        assert!(
            present(&hub, &token(ISSUER, Some("good"), &ED.private_pem, Algorithm::EdDsa)).is_ok(),
            "{key}"
        );
        assert!(
            present(&hub, &token(ISSUER, Some("1"), &EC.private_pem, Algorithm::Es256)).is_err(),
            "{key}"
        );
        let alone = IssuerConfig { jwks: Some(set(std::slice::from_ref(&key))), ..issuer_of(ISSUER, vec![]) };
        assert!(refusal(vec![alone]).contains("no key that can verify tokens"), "{key}");
    }
    for key in [
        with(
            jwk(&EC, Some("1")),
            json!({ "use": "sig", "alg": "ES256", "key_ops": ["sign", "verify"], "x5t": "A" }),
        ),
        with(jwk(&EC, Some("1")), json!({ "x5u": "https://evil.example", "x5c": 7 })),
    ] {
        let hub = hub_of_set(std::slice::from_ref(&key));
        assert!(present(&hub, &token(ISSUER, Some("1"), &EC.private_pem, Algorithm::Es256)).is_ok(), "{key}");
    }
}

#[test]
fn every_type_of_published_key_verifies_its_tokens() {
    for (pair, algorithm) in [(&RSA, Algorithm::Rs256), (&EC, Algorithm::Es256), (&ED, Algorithm::EdDsa)] {
        for kid in [None, Some("1")] {
            let hub = hub_of_set(&[jwk(pair, kid)]);
            assert!(present(&hub, &token(ISSUER, kid, &pair.private_pem, algorithm)).is_ok(), "{algorithm}");
            let unknown = present(&hub, &token(ISSUER, Some("2"), &pair.private_pem, algorithm));
            assert_eq!(unknown.is_ok(), kid.is_none(), "{algorithm}");
        }
    }
}

#[test]
fn a_key_set_that_cannot_be_trusted_is_refused_whole() {
    let good = jwk(&ED, Some("1"));
    let keys = hub_of(vec![remote_issuer(ISSUER)]).remote_keys().remove(0);
    let try_set = |text: &str| fetched(&keys, text);
    assert_eq!(
        try_set(&set(&[good.clone(), json!({ "kty": "oct", "k": "AAAA" })])),
        Err(JwksError::SharedSecret)
    );
    let private = with(jwk(&EC, Some("2")), json!({ "d": "AAAA" }));
    assert_eq!(try_set(&set(&[good.clone(), private])), Err(JwksError::PrivateKey));
    let twice = set(&[good.clone(), jwk(&EC, Some("1"))]);
    assert_eq!(try_set(&twice), Err(JwksError::DuplicateKid("1".to_owned())));
    let many = vec![json!({ "kty": "x" }); JWKS_KEYS_MAX];
    let filled = |more: usize| [&many[more..], std::slice::from_ref(&good)].concat();
    assert_eq!(try_set(&set(&filled(1))), Ok(1));
    assert_eq!(try_set(&set(&filled(0))), Err(JwksError::TooManyKeys(JWKS_KEYS_MAX + 1)));
    let padded = |length: usize| {
        let text = set(std::slice::from_ref(&good));
        format!("{text}{}", " ".repeat(length - text.len()))
    };
    assert_eq!(try_set(&padded(JWKS_BYTES_MAX)), Ok(1));
    assert_eq!(try_set(&padded(JWKS_BYTES_MAX + 1)), Err(JwksError::TooLong));
    for text in [
        "",
        "{}",
        "[]",
        "null",
        "<html>",
        r#"{"keys":{}}"#,
        r#"{"keys":null}"#,
        r#"{"keys":[]"#,
        r#"{"keys":[],"keys":[]}"#,
    ] {
        assert_eq!(try_set(text), Err(JwksError::NotAKeySet), "{text}");
    }
    assert_eq!(try_set(r#"{"keys":[]}"#), Err(JwksError::NoUsableKey));
    assert_eq!(keys.count(), 1, "the keys of the last good set remain");
}

#[test]
fn a_failed_fetch_keeps_the_keys_and_a_good_one_replaces_all() {
    let hub = hub_of(vec![remote_issuer(ISSUER)]);
    let keys = hub.remote_keys().remove(0);
    let old = token(ISSUER, Some("old"), &ED.private_pem, Algorithm::EdDsa);
    let new = token(ISSUER, Some("new"), &EC.private_pem, Algorithm::Es256);
    assert_eq!(fetched(&keys, &set(&[jwk(&ED, Some("old"))])), Ok(1));
    assert!(present(&hub, &old).is_ok());
    assert!(fetched(&keys, "<html>").is_err());
    assert!(present(&hub, &old).is_ok());
    assert_eq!(fetched(&keys, &set(&[jwk(&ED, Some("old")), jwk(&EC, Some("new"))])), Ok(2));
    assert!(present(&hub, &old).is_ok() && present(&hub, &new).is_ok());
    assert_eq!(fetched(&keys, &set(&[jwk(&EC, Some("new"))])), Ok(1));
    assert!(present(&hub, &new).is_ok());
    assert_says(present(&hub, &old), UNKNOWN_KID);
}

#[test]
fn without_fetched_keys_a_token_is_unavailable_rather_than_invalid() {
    let hub =
        hub_of(vec![IssuerConfig { keys: vec![key(Some("own"), &secret('a'))], ..remote_issuer(ISSUER) }]);
    let signed = |kid| token(ISSUER, kid, &ED.private_pem, Algorithm::EdDsa);
    for kid in [Some("1"), None] {
        let error = present(&hub, &signed(kid)).unwrap_err();
        assert!(matches!(error, AuthError::KeysUnavailable(_)), "{error}");
        assert_eq!((error.status().as_u16(), error.code()), (503, None));
    }
    assert!(present(&hub, &hmac(ISSUER, Some("own"), 'a')).is_ok(), "the key of the configuration is there");
    let keys = hub.remote_keys().remove(0);
    fetched(&keys, &set(&[jwk(&ED, Some("1"))])).unwrap();
    assert!(present(&hub, &signed(Some("1"))).is_ok() && present(&hub, &signed(None)).is_ok());
    keys.forget();
    assert!(matches!(present(&hub, &signed(Some("1"))), Err(AuthError::KeysUnavailable(_))));
}

#[test]
fn a_request_waits_for_the_fetch_of_its_own_issuer() {
    let hub = hub_of(vec![remote_issuer(ISSUER), remote_issuer(OTHER)]);
    let [ours, others] = &hub.remote_keys()[..] else { panic!("two issuers") };
    let signed = |issuer| bearer(&token(issuer, Some("1"), &ED.private_pem, Algorithm::EdDsa));
    let fetching = ours.begin();
    assert!(hub.wait_for_keys(&signed(OTHER), None).is_none());
    let wait = hub.wait_for_keys(&signed(ISSUER), None).expect("a fetch is under way");
    let mut waiting = pin!(wait.fetched());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    fetched(others, &set(&[jwk(&ED, Some("1"))])).unwrap();
    assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending);
    fetching.succeeded(set(&[jwk(&ED, Some("1"))]).as_bytes(), Instant::now()).unwrap();
    fetching.finish(false);
    assert_eq!(waiting.as_mut().poll(&mut context), Poll::Ready(()));
    assert!(hub.wait_for_keys(&signed(ISSUER), None).is_none());
    assert!(hub.authenticate(&signed(ISSUER), None, NOW).is_ok());
}

#[test]
fn a_reload_keeps_the_fetched_keys_of_unchanged_issuers() {
    let hub = hub_of(vec![remote_issuer(ISSUER), remote_issuer(OTHER)]);
    for keys in hub.remote_keys() {
        fetched(&keys, &set(&[jwk(&ED, Some("1"))])).unwrap();
    }
    let fetched_at = hub.remote_keys()[0].fetched_at();
    assert!(fetched_at.is_some());
    let mut moved = remote_issuer(OTHER);
    moved.jwks_url.as_mut().unwrap().url = "https://issuer.example/elsewhere".parse().unwrap();
    hub.replace(&hub_of(vec![moved, remote_issuer(ISSUER)]));
    let signed = |issuer| token(issuer, Some("1"), &ED.private_pem, Algorithm::EdDsa);
    assert!(present(&hub, &signed(ISSUER)).is_ok());
    assert!(matches!(present(&hub, &signed(OTHER)), Err(AuthError::KeysUnavailable(_))));
    let ages: HashMap<_, _> =
        hub.remote_keys().iter().map(|keys| (keys.issuer().to_owned(), keys.fetched_at())).collect();
    assert_eq!(ages, HashMap::from([(ISSUER.to_owned(), fetched_at), (OTHER.to_owned(), None)]));
    hub.replace(&hub_of(vec![issuer_of(ISSUER, vec![key(Some("own"), &ED.public_pem)])]));
    assert_says(present(&hub, &signed(ISSUER)), UNKNOWN_KID);
    assert_says(present(&hub, &signed(OTHER)), UNKNOWN_ISSUER);
}

#[test]
fn a_token_allows_no_more_than_its_issuer_may() {
    let texts = |texts: &[&str]| texts.iter().map(|text| MatcherText::from(*text)).collect::<Vec<_>>();
    let bounded = IssuerConfig {
        publish: texts(&[]),
        subscribe: texts(&["a-*", "news"]),
        ..issuer_of(ISSUER, vec![key(None, SHARED_SECRET)])
    };
    let hub = hub_of(vec![bounded]);
    let access = |topics: Value| {
        let detail = detail(json!({ "topics": topics, "payload": { "name": "Kevin" } }));
        present(&hub, &signed(&header(), &with_details(json!([detail])))).unwrap()
    };
    let some = access(
        json!([{ "match": "a-1" }, { "match": "b-1" }, { "match": "a-*", "match_type": "urlpattern" }]),
    );
    assert!(some.publish.is_empty());
    assert!(some.subscribe.covers(&topic("a-1")) && some.subscribe.covers(&topic("a-2")));
    assert!(!some.subscribe.covers(&topic("b-1")) && !some.subscribe.covers(&topic("news")));
    assert!(
        some.payload(&Matcher::Exact(topic("a-1"))).is_some()
            && some.payload(&Matcher::Exact(topic("b-1"))).is_none()
    );
    let everything = access(json!([{ "match": "*" }]));
    assert!(everything.publish.is_empty() && !everything.subscribe.is_all());
    assert!(everything.subscribe.covers(&topic("a-1")) && everything.subscribe.covers(&topic("news")));
    assert!(
        !everything.subscribe.covers(&topic("b-1"))
            && everything.payload(&Matcher::Exact(topic("b-1"))).is_none()
    );
}

#[test]
fn subjects_of_two_issuers_never_share_a_name() {
    let hub = hub_of(vec![
        issuer_of(ISSUER, vec![key(None, &secret('a'))]),
        issuer_of(OTHER, vec![key(None, &secret('b'))]),
    ]);
    let [ours, others] =
        [(ISSUER, 'a'), (OTHER, 'b')].map(|(iss, letter)| present(&hub, &hmac(iss, None, letter)).unwrap());
    assert_eq!(ours.subject, others.subject);
    assert_ne!(ours.scoped("key"), others.scoped("key"));
}

#[test]
fn a_configuration_that_would_mix_issuers_is_refused() {
    let one = || issuer_of(ISSUER, vec![key(None, &secret('a'))]);
    for (issuers, part) in [
        (vec![one(), issuer_of(ISSUER, vec![key(None, &secret('b'))])], "iss: is used twice"),
        (vec![one(), issuer_of(OTHER, vec![key(None, &secret('a'))])], "the shared secret of another issuer"),
        (vec![issuer_of(ISSUER, vec![])], "key: is missing"),
        (
            vec![issuer_of(ISSUER, vec![key(Some("1"), &secret('a')), key(Some("1"), &secret('b'))])],
            "two keys have the `kid` `1`",
        ),
        (vec![issuer_of(ISSUER, vec![key(Some(""), &secret('a'))])], "an empty `kid`"),
        (
            vec![issuer_of(ISSUER, ('a'..).take(17).map(|letter| key(None, &secret(letter))).collect())],
            "the limit is 16",
        ),
        (
            vec![IssuerConfig { algorithms: vec![Algorithm::Hs256, Algorithm::Es256], ..one() }],
            "no key of the issuer is for ES256",
        ),
        (
            vec![IssuerConfig { algorithms: vec![Algorithm::Hs256], ..remote_issuer(ISSUER) }],
            "no key of the issuer is for HS256",
        ),
        (vec![IssuerConfig { publish: vec!["pattern:/(".into()], ..one() }], "publish: the matcher `/(`"),
        (vec![IssuerConfig { subscribe: vec!["a".into(); 101], ..one() }], "subscribe: has 101 entries"),
        (
            vec![IssuerConfig { jwks: Some("{}".to_owned()), ..one() }],
            "jwks_file: this is not a JSON Web Key Set",
        ),
        (
            vec![IssuerConfig {
                jwks: Some(set(&[jwk(&ED, Some("1"))])),
                ..issuer_of(ISSUER, vec![key(Some("1"), &secret('a'))])
            }],
            "two keys have the `kid` `1`",
        ),
        (
            (0..101).map(|n| issuer_of(&n.to_string(), vec![key(None, &EC.public_pem)])).collect(),
            "there are 101 issuers",
        ),
    ] {
        let message = refusal(issuers);
        assert!(message.contains(part), "{message}");
        assert!(!message.contains("secret of the tests"), "{message}");
    }
    let server = tidings_auth::KeyConfig {
        name: "app".to_owned(),
        secret: "a-secret-that-is-long-enough-for-HS256-as-well".into(),
        publish: vec![],
        subscribe: vec![],
        admin: false,
        streams_max: None,
    };
    let issuers = vec![issuer_of(ISSUER, vec![key(None, server.secret.expose())])];
    let config = AuthConfig { keys: vec![server], issuers, ..AuthConfig::default() };
    let message = Authenticator::new(config, &Validator::default()).unwrap_err().to_string();
    assert!(message.contains("is the secret of a [[key]]"), "{message}");
}

#[test]
fn rule_12_only_a_safe_url_of_keys_is_accepted() {
    let with_url = |change: &dyn Fn(&mut JwksUrl)| {
        let mut issuer = remote_issuer(ISSUER);
        change(issuer.jwks_url.as_mut().unwrap());
        AuthConfig { issuers: vec![issuer], ..AuthConfig::default() }
    };
    let url = |text: &'static str| move |source: &mut JwksUrl| source.url = text.parse().unwrap();
    for (change, part) in [
        (&url("http://issuer.example/jwks") as &dyn Fn(&mut JwksUrl), "jwks_url: is http"),
        (&url("http://192.168.0.1/jwks"), "jwks_url: is http"),
        (&url("file:///etc/passwd"), "jwks_url: has no host"),
        (&url("ftp://issuer.example/jwks"), "jwks_url: is neither https nor http"),
        (&url("https://me:hidden@issuer.example/jwks"), "jwks_url: has a user name or a password"),
        (&url("https://issuer.example/jwks#1"), "jwks_url: has a fragment"),
        (&|source: &mut JwksUrl| source.refresh_secs = 0, "refresh_secs: is 0"),
        (&|source: &mut JwksUrl| source.refresh_secs = 86_401, "refresh_secs: is 86401"),
        (&|source: &mut JwksUrl| source.refresh_secs_min = 0, "refresh_secs_min: is 0"),
        (&|source: &mut JwksUrl| source.refresh_secs_min = 601, "refresh_secs_min: is 601"),
    ] {
        let message = Authenticator::new(with_url(change), &Validator::default()).unwrap_err().to_string();
        assert!(message.contains(part) && !message.contains("hidden"), "{message}");
    }
    for change in [
        &url("http://127.0.0.1:8080/jwks") as &dyn Fn(&mut JwksUrl),
        &url("http://[::1]/jwks"),
        &url("http://localhost/jwks"),
        &|source: &mut JwksUrl| {
            source.url = "http://issuer.example/jwks".parse().unwrap();
            source.allow_http = true;
        },
    ] {
        assert!(Authenticator::new(with_url(change), &Validator::default()).is_ok());
    }
}

proptest! {
    // Whatever is presented under whatever names: only the issuer's own key is accepted, under its
    // own `kid` or none, and one without under each that no other key has.
    #[test]
    fn a_token_is_accepted_only_with_its_issuers_own_key(
        iss in 0_usize..3, kid in prop::option::of(0_usize..4), signer in 0_usize..5,
    ) {
        // Issuer 0 has the keys a (kid 0) and b (kid 1), issuer 1 has c (kid 0) and d (no kid).
        let hub = hub_of(vec![
            issuer_of("0", vec![key(Some("0"), &secret('a')), key(Some("1"), &secret('b'))]),
            issuer_of("1", vec![key(Some("0"), &secret('c')), key(None, &secret('d'))]),
        ]);
        let letter = ['a', 'b', 'c', 'd', 'e'][signer];
        let kid_text = kid.map(|kid| kid.to_string());
        let presented = hmac(&iss.to_string(), kid_text.as_deref(), letter);
        let expected = matches!(
            (iss, letter, kid),
            (0, 'a', Some(0) | None) | (0, 'b', Some(1) | None) | (1, 'c', Some(0) | None) | (1, 'd', None | Some(1..))
        );
        prop_assert_eq!(present(&hub, &presented).is_ok(), expected);
    }

    #[test]
    fn random_key_sets_are_refused_or_used_without_panic(text in "\\PC{0,64}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let keys = hub_of(vec![remote_issuer(ISSUER)]).remote_keys().remove(0);
        prop_assert!(fetched(&keys, &text).is_err());
        let member = encode(&bytes);
        for kty in ["RSA", "EC", "OKP", "oct"] {
            for crv in ["P-256", "Ed25519"] {
                let odd = json!({ "kty": kty, "crv": crv, "n": member, "e": member, "x": member, "y": member });
                let _ = fetched(&keys, &set(&[odd]));
                let hub = hub_of(vec![remote_issuer(ISSUER)]);
                let _ = present(&hub, &token(ISSUER, None, &ED.private_pem, Algorithm::EdDsa));
            }
        }
    }
}

#[test]
fn no_secret_is_shown_of_an_issuer() {
    let hub = hub_of(vec![issuer_of(ISSUER, vec![key(Some("1"), &secret('a'))]), remote_issuer(OTHER)]);
    let keys = hub.remote_keys();
    for shown in [format!("{hub:?}"), format!("{keys:?}"), format!("{:?}", Secret::from("hidden"))] {
        assert!(!shown.contains("secret of the tests") && !shown.contains("hidden\""), "{shown}");
    }
}
