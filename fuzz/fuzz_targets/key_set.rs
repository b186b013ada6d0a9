//! Any bytes as the key set of an issuer: nothing panics, what has a shared secret or a private key
//! is refused, and no key of it verifies a token that its holder has not signed.

#![no_main]

use std::{sync::LazyLock, time::Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidings_auth::{
    AuthConfig, Authenticator, IssuerConfig, JWKS_BYTES_MAX, JWKS_KEYS_MAX, JwksUrl, NewToken, Secret,
    SigningKey, mint,
};
use tidings_topic::Validator;

const NOW: u64 = 1_800_000_000;

static HUB: LazyLock<Authenticator> = LazyLock::new(|| {
    let url = "https://issuer.example/keys".parse().expect("a URL");
    let issuer = IssuerConfig {
        issuer: "i".to_owned(),
        audiences: vec!["https://a".to_owned()],
        jwks_url: Some(JwksUrl::new(url)),
        ..IssuerConfig::default()
    };
    let config = AuthConfig { issuers: vec![issuer], ..AuthConfig::default() };
    Authenticator::new(config, &Validator::default()).expect("a valid configuration")
});

/// An RSA modulus of 2048 bits, for keys that only the fuzzer's other choices make unusable.
const MODULUS: &str = concat!(
    "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1WlUzewbgBHod5pcM9H95GQRV3JDXboIRROSB",
    "igeC5yjU1hGzHHyXss8UDprecbAYxknTcQkhslANGRUZmdTOQ5qTRsLAt6BTYuyvVRdhS8exSZEy_c4gs_7svlJJQ4H9",
    "_NxsiIoLwAEk7-Q3UXERGYw_75IDrGA84-lA_-Ct4eTlXHBIY2EaV7t7LjJaynVJCpkv4LKjTTAumiGUIuQhrNhZLuF_",
    "RJLqHpM2kgWFLU7-VTdL1VbC2tejvcI2BlMkEpk1BzBZI0KQB0GaDWFLN-aEAw3vRw",
);

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    set: &'a [u8],
    /// Only one key, of these members.
    key_only: bool,
    /// With the modulus of a valid RSA key.
    rsa: bool,
    /// A token that is signed with this text.
    secret: &'a str,
}

fuzz_target!(|input: Input<'_>| {
    let Input { set, key_only, rsa, secret } = input;
    let mut json = set.to_vec();
    if key_only {
        json = br#"{"keys":[{"#.to_vec();
        if rsa {
            json.extend_from_slice(format!(r#""kty":"RSA","e":"AQAB","n":"{MODULUS}","#).as_bytes());
        }
        json.extend_from_slice(set);
        json.extend_from_slice(b"}]}");
    }
    let keys = &HUB.remote_keys()[0];
    let fetching = keys.begin();
    let taken = fetching.succeeded(&json, Instant::now());
    fetching.finish(false);
    let Ok(count) = taken else { return };
    assert!((1..=JWKS_KEYS_MAX).contains(&count) && json.len() <= JWKS_BYTES_MAX);
    let parsed: Value = serde_json::from_slice(&json).expect("it was read");
    for key in parsed["keys"].as_array().expect("a list") {
        assert!(key["kty"] != "oct", "a shared secret was published");
        assert!(!key["kty"].is_string() || key.get("d").is_none(), "a private key was published");
    }
    // The text of a public key is no secret.
    for secret in [secret, MODULUS] {
        if let Ok(key) = SigningKey::new(&Secret::new(secret), None) {
            assert!(HUB.check(&token(&key), NOW).is_err());
        }
    }
});

fn token(key: &SigningKey) -> String {
    let token = NewToken {
        issuer: "i".to_owned(),
        audience: "https://a".to_owned(),
        subject: "s".to_owned(),
        issued_at: NOW,
        expires_at: NOW + 60,
        publish: Vec::new(),
        subscribe: vec!["*".into()],
        payload: None,
    };
    mint(&token, key).expect("a small token")
}
