//! Invalid and insecure configurations. Every message names the setting and the remedy.

mod support;

use support::*;
use tidings_auth::{Algorithm, AuthConfig, Authenticator, IssuerConfig, KeyConfig, MatcherText};
use tidings_topic::Validator;

fn refusal(config: AuthConfig) -> String {
    Authenticator::new(config, &Validator::default()).unwrap_err().to_string()
}

fn issuer_refusal(change: impl FnOnce(&mut IssuerConfig)) -> String {
    let mut issuer = issuer(SHARED_SECRET, &[]);
    change(&mut issuer);
    refusal(AuthConfig { issuers: vec![issuer], ..AuthConfig::default() })
}

fn key(name: &str, secret: &str) -> KeyConfig {
    KeyConfig {
        name: name.to_owned(),
        secret: secret.into(),
        publish: vec![],
        subscribe: vec![],
        admin: false,
        streams_max: None,
    }
}

fn key_refusal(keys: Vec<KeyConfig>) -> String {
    refusal(AuthConfig { keys, ..AuthConfig::default() })
}

#[test]
fn a_key_in_pem_is_never_a_shared_secret() {
    for pair in [&RSA, &EC, &ED] {
        for algorithms in
            [&[Algorithm::Hs256][..], &[Algorithm::Hs512], &[Algorithm::Rs256, Algorithm::Hs256]]
        {
            for key in [
                pair.public_pem.clone(),
                format!("\n  {}", pair.public_pem),
                format!("# key\n{}", pair.public_pem),
            ] {
                let message = issuer_refusal(|issuer| {
                    issuer.keys[0].key = key.into();
                    issuer.algorithms = algorithms.to_vec();
                });
                let expected =
                    ["issuer.https://app.example.key: is ", "issuer.https://app.example.algorithms: no key"];
                assert!(expected.iter().any(|beginning| message.starts_with(beginning)), "{message}");
            }
        }
    }
    let message = issuer_refusal(|issuer| {
        issuer.keys[0].key = RSA.public_pem.as_str().into();
        issuer.algorithms = vec![Algorithm::Hs256];
    });
    assert_eq!(
        message,
        "issuer.https://app.example.key: is in PEM, which HS256 cannot use: it needs a shared secret that nobody else knows"
    );
}

#[test]
fn a_public_key_in_another_format_is_no_shared_secret() {
    let bare: String = EC.public_pem.lines().filter(|line| !line.starts_with('-')).collect();
    let jwk = r#"{"kty":"RSA","e":"AQAB","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4"}"#;
    let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJmY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6 me@example";
    for text in [bare.as_str(), jwk, ssh] {
        let message = issuer_refusal(|issuer| issuer.keys[0].key = text.into());
        assert!(message.contains("looks like a public key"), "{message}");
    }
}

#[test]
fn a_shared_secret_is_as_long_as_its_hash() {
    for (algorithm, minimum) in [(Algorithm::Hs256, 32), (Algorithm::Hs384, 48), (Algorithm::Hs512, 64)] {
        let with = |length: usize| AuthConfig {
            issuers: vec![issuer(&"x".repeat(length), &[algorithm])],
            ..AuthConfig::default()
        };
        assert!(Authenticator::new(with(minimum), &Validator::default()).is_ok());
        let message = refusal(with(minimum - 1));
        assert!(
            message.contains(&format!("has {} bytes; {algorithm} needs at least {minimum}", minimum - 1)),
            "{message}"
        );
        assert!(refusal(with(0)).contains("has 0 bytes"));
    }
}

#[test]
fn the_longest_minimum_of_all_allowed_algorithms_counts() {
    let message = issuer_refusal(|issuer| {
        issuer.keys[0].key = "x".repeat(32).into();
        issuer.algorithms = vec![Algorithm::Hs256, Algorithm::Hs512];
    });
    assert!(message.contains("HS512 needs at least 64"), "{message}");
}

#[test]
fn a_key_fits_its_algorithms() {
    let message = issuer_refusal(|issuer| issuer.algorithms = vec![Algorithm::Rs256]);
    assert_eq!(message, "issuer.https://app.example.key: is a shared secret, but RS256 needs a key in PEM");
    for (pair, wrong) in [(&RSA, Algorithm::Es256), (&EC, Algorithm::EdDsa), (&ED, Algorithm::Rs256)] {
        let message = issuer_refusal(|issuer| {
            issuer.keys[0].key = pair.public_pem.as_str().into();
            issuer.algorithms = vec![wrong];
        });
        assert!(message.contains(&format!("not for {wrong}")), "{message}");
    }
}

#[test]
fn without_a_list_the_algorithm_is_that_of_the_key() {
    for (key, algorithm) in [
        (SHARED_SECRET, Algorithm::Hs256),
        (&RSA.public_pem, Algorithm::Rs256),
        (&EC.public_pem, Algorithm::Es256),
        (&ED.public_pem, Algorithm::EdDsa),
    ] {
        let (private, _) = keys(algorithm);
        let header = serde_json::json!({ "typ": "at+jwt", "alg": algorithm.name() }).to_string();
        let signing = tidings_auth::SigningKey::new(&private, None).unwrap();
        assert_eq!(signing.algorithm(), algorithm);
        let encoding = match algorithm {
            Algorithm::Rs256 => jsonwebtoken::EncodingKey::from_rsa_pem(private.expose().as_bytes()),
            Algorithm::Es256 => jsonwebtoken::EncodingKey::from_ec_pem(private.expose().as_bytes()),
            Algorithm::EdDsa => jsonwebtoken::EncodingKey::from_ed_pem(private.expose().as_bytes()),
            _ => Ok(jsonwebtoken::EncodingKey::from_secret(private.expose().as_bytes())),
        };
        let library_name = algorithm.name().parse().unwrap();
        let token = signed_with(&encoding.unwrap(), library_name, &header, &claims().to_string());
        assert!(present(&hub(key, &[]), &token).is_ok(), "{algorithm}");
    }
}

#[test]
fn a_private_key_is_refused_as_the_key_of_an_issuer() {
    for pair in [&RSA, &EC, &ED] {
        let message = issuer_refusal(|issuer| issuer.keys[0].key = pair.private_pem.as_str().into());
        assert_eq!(
            message,
            "issuer.https://app.example.key: is a private key: give the public one, the hub only verifies"
        );
    }
}

#[test]
fn keys_that_cannot_be_used_are_refused_at_the_start() {
    let p384 = ec_pair(&aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING);
    let message = issuer_refusal(|issuer| issuer.keys[0].key = p384.public_pem.into());
    assert_eq!(message, "issuer.https://app.example.key: is an EC key of another curve than P-256");
    let message = issuer_refusal(|issuer| issuer.keys[0].key = RSA_1024.into());
    assert_eq!(message, "issuer.https://app.example.key: is an RSA key of fewer than 2048 bits");
    for broken in ["-----BEGIN PUBLIC KEY-----", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"]
    {
        let message = issuer_refusal(|issuer| issuer.keys[0].key = broken.into());
        assert_eq!(
            message,
            "issuer.https://app.example.key: is not a public key in PEM (RSA, EC P-256 or Ed25519)"
        );
    }
}

#[test]
fn none_is_no_algorithm_mercure_23() {
    for name in ["none", "None", "", "hs256", "RS384"] {
        let message = name.parse::<Algorithm>().unwrap_err();
        assert_eq!(message, "no such algorithm: use one of HS256, HS384, HS512, RS256, ES256, EdDSA");
    }
    for algorithm in Algorithm::ALL {
        assert_eq!(algorithm.name().parse(), Ok(algorithm));
    }
}

#[test]
fn an_audience_is_an_absolute_url() {
    for wrong in [
        "",
        "hub",
        "/.well-known/mercure",
        "hub.example",
        "urn:hub",
        "mailto:a@b",
        "https://",
        "https://a/#b",
    ] {
        let message = issuer_refusal(|issuer| issuer.audiences = vec![wrong.to_owned()]);
        assert!(
            message.starts_with("issuer.https://app.example.audience: ")
                && message.contains("is not an absolute URL"),
            "{message}"
        );
    }
    let message = issuer_refusal(|issuer| issuer.audiences.clear());
    assert_eq!(message, "issuer.https://app.example.audience: is missing: give the public URL of the hub");
}

#[test]
fn an_issuer_has_a_name() {
    assert!(issuer_refusal(|issuer| issuer.issuer.clear()).starts_with("issuer..iss: is empty"));
}

#[test]
fn a_secret_has_a_minimum_length_and_can_be_presented() {
    for (secret, expected) in [
        ("", "has 0 bytes; at least 16 are needed"),
        ("fifteen-letters", "has 15 bytes; at least 16 are needed"),
        ("has a blank in the middle", "cannot have"),
        ("has=an-equals-sign-inside", "cannot have"),
        ("schlüssel-schlüssel", "cannot have"),
        ("ends-with-a-line-feed\n", "cannot have"),
        ("aaaaaaaaa.bbbbbbbbbb.cccccccc", "would be taken for a token"),
        (&"a".repeat(8193), "the limit is 8192"),
    ] {
        let message = key_refusal(vec![key("app", secret)]);
        assert!(message.starts_with("key.app.secret: ") && message.contains(expected), "{message}");
        assert!(secret.is_empty() || !message.contains(secret), "{message}");
    }
    let sixteen = AuthConfig { keys: vec![key("app", "sixteen-letters-")], ..AuthConfig::default() };
    assert!(Authenticator::new(sixteen, &Validator::default()).is_ok());
}

#[test]
fn keys_have_names_and_secrets_of_their_own() {
    let (one, two) = ("a-secret-of-the-tests", "b-secret-of-the-tests");
    assert!(key_refusal(vec![key("app", one), key("app", two)]).starts_with("key.app.name: is used twice"));
    assert!(
        key_refusal(vec![key("a", one), key("b", one)]).starts_with("key.b.secret: is that of another key")
    );
    assert!(key_refusal(vec![key("", one)]).contains("is empty"));
    assert!(!key_refusal(vec![key("a\nb", one)]).contains('\n'));
}

#[test]
fn a_hub_has_at_most_a_thousand_keys() {
    let keys = |count: usize| {
        (0..count).map(|n| key(&n.to_string(), &format!("a-secret-of-the-tests-{n}"))).collect()
    };
    assert!(
        Authenticator::new(AuthConfig { keys: keys(1000), ..AuthConfig::default() }, &Validator::default())
            .is_ok()
    );
    assert_eq!(key_refusal(keys(1001)), "key: there are 1001 keys; the limit is 1000");
}

#[test]
fn an_invalid_matcher_is_reported_with_its_key() {
    let mut app = key("app", "a-secret-of-the-tests");
    app.subscribe = vec!["chat".into(), "pattern:/(".into()];
    assert_eq!(
        key_refusal(vec![app]),
        "key.app.subscribe: the matcher `/(` is not a URL Pattern that can be used"
    );
}

#[test]
fn a_text_with_a_star_is_a_pattern_without_a_prefix() {
    for (text, expected) in [
        ("chat", MatcherText::Exact("chat".to_owned())),
        ("*", MatcherText::Exact("*".to_owned())),
        ("user-*", MatcherText::Pattern("user-*".to_owned())),
        ("exact:user-*", MatcherText::Exact("user-*".to_owned())),
        ("pattern:/users/:id", MatcherText::Pattern("/users/:id".to_owned())),
        ("https://a.example/:id", MatcherText::Exact("https://a.example/:id".to_owned())),
        ("exact:exact:a", MatcherText::Exact("exact:a".to_owned())),
    ] {
        let matcher = MatcherText::from(text);
        assert_eq!(matcher, expected);
        assert_eq!(MatcherText::from(matcher.to_string().as_str()), expected, "it parses back");
    }
}

#[test]
fn settings_are_read_and_misspelt_ones_refused() {
    let good = serde_json::json!({
        "key": [{ "name": "app", "secret": "a-secret-of-the-tests", "publish": ["user-*"] }],
        "issuer": [{ "issuer": ISSUER, "audiences": [AUDIENCE], "algorithms": ["EdDSA"], "key": [{ "key": ED.public_pem }] }],
    });
    let config: AuthConfig = serde_json::from_value(good).unwrap();
    assert_eq!(config.keys[0].publish, [MatcherText::Pattern("user-*".to_owned())]);
    assert!(Authenticator::new(config, &Validator::default()).is_ok());
    for bad in [
        serde_json::json!({ "keys": [] }),
        serde_json::json!({ "key": [{ "name": "a", "secret": "b", "publsh": [] }] }),
        serde_json::json!({ "issuer": [{ "issuer": "a", "audiences": [], "algorithms": ["none"] }] }),
        serde_json::json!({ "issuer": [{ "issuer": "a", "audiences": [], "key": [{ "secret": "k" }] }] }),
    ] {
        assert!(serde_json::from_value::<AuthConfig>(bad.clone()).is_err(), "{bad}");
    }
}

/// A public key that is too short, for tests only; the private key was discarded.
const RSA_1024: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCtxD7xiRUX/Eqe0adDUU6XqY/h\n\
O0L1cX8WDDcCkzq1eH3SjJ+KzT+wWgz5T10y4DCTsDW+l4UWYmBZT3xG9SFoo6w+\n\
sBzq2TYHZcg2XFvxOwBGOQwtXFrW4qEQE/Oep5wJu/cofv+HabRMoIX3xmTSxeTP\n\
QPLOySQhOXr8UJLgdwIDAQAB\n\
-----END PUBLIC KEY-----";
