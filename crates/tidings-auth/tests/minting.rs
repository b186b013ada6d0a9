//! Creating tokens, and inspecting any token.

mod support;

use serde_json::json;
use support::*;
use tidings_auth::{
    Algorithm, MatcherText, MercureRevision, MintError, NewOlderToken, NewToken, NotAToken, SigningKey,
    inspect, mint, mint_older,
};
use tidings_topic::Matcher;

fn new_token() -> NewToken {
    NewToken {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        subject: "kevin".to_owned(),
        issued_at: NOW,
        expires_at: NOW + 3600,
        publish: vec![MatcherText::from("chat")],
        subscribe: vec![MatcherText::from("user-*"), MatcherText::from("*")],
        payload: json!({ "name": "Kevin" }).as_object().cloned(),
    }
}

fn secret_key() -> SigningKey {
    SigningKey::new(&SHARED_SECRET.into(), None).unwrap()
}

#[test]
fn a_minted_token_conforms_to_rfc_9068() {
    let seen = inspect(&mint(&new_token(), &secret_key()).unwrap()).unwrap();
    assert_eq!(json!(seen.header), json!({ "typ": "at+jwt", "alg": "HS256" }));
    let id = seen.claims["jti"].as_str().unwrap();
    assert!(id.len() >= 16);
    assert_eq!(
        without(json!(seen.claims), "jti"),
        json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "kevin", "client_id": "kevin", "iat": NOW, "exp": NOW + 3600,
            "authorization_details": [
                { "type": DETAIL_TYPE, "actions": ["publish"], "topics": [{ "match": "chat" }] },
                {
                    "type": DETAIL_TYPE, "actions": ["subscribe"], "payload": { "name": "Kevin" },
                    "topics": [{ "match": "user-*", "match_type": "urlpattern" }, { "match": "*" }],
                },
            ],
        })
    );
}

#[test]
fn a_minted_token_names_the_key_it_is_signed_with() {
    let key = secret_key().with_kid(Some("2026-11".to_owned()));
    let seen = inspect(&mint(&new_token(), &key).unwrap()).unwrap();
    assert_eq!(json!(seen.header), json!({ "typ": "at+jwt", "alg": "HS256", "kid": "2026-11" }));
}

#[test]
fn a_minted_token_is_valid_and_has_its_permissions() {
    let access = present(&hmac_hub(), &mint(&new_token(), &secret_key()).unwrap()).unwrap();
    assert!(access.publish.covers(&topic("chat")) && !access.publish.covers(&topic("other")));
    assert!(access.subscribe.covers(&topic("user-1")));
    assert_eq!(access.payload(&Matcher::Exact(topic("user-1"))).unwrap()["name"], "Kevin");
    assert_eq!(access.expires_at, Some(NOW + 3600));
}

#[test]
fn a_token_that_allows_nothing_has_no_details() {
    let nothing = NewToken { publish: vec![], subscribe: vec![], ..new_token() };
    let seen = inspect(&mint(&nothing, &secret_key()).unwrap()).unwrap();
    assert_eq!(seen.claims["authorization_details"], json!([]));
}

#[test]
fn two_tokens_are_never_the_same() {
    assert_ne!(mint(&new_token(), &secret_key()), mint(&new_token(), &secret_key()));
}

#[test]
fn a_token_that_is_too_long_for_a_hub_is_not_minted() {
    let long = NewToken { subject: "x".repeat(9000), ..new_token() };
    let Err(error @ MintError::TooLong(_)) = mint(&long, &secret_key()) else { panic!("too long") };
    assert!(error.to_string().contains("at most 8192"), "{error}");
}

#[test]
fn a_signing_key_that_does_not_fit_is_refused() {
    let refusal = |key: &str, algorithm: Option<Algorithm>| {
        SigningKey::new(&key.into(), algorithm).err().expect("refused").to_string()
    };
    assert!(refusal("short", None).contains("HS256 needs at least 32"));
    assert!(refusal(&RSA.public_pem, None).contains("is a public key"));
    let older = RSA.private_pem.replace("PRIVATE KEY", "EC PRIVATE KEY");
    assert!(refusal(&older, None).contains("is not a private key in PEM"));
    assert!(refusal(&RSA.private_pem, Some(Algorithm::Hs256)).contains("is in PEM"));
    assert!(refusal(&RSA.private_pem, Some(Algorithm::Es256)).contains("is a key for RS256, not for ES256"));
    assert!(refusal(SHARED_SECRET, Some(Algorithm::EdDsa)).contains("needs a key in PEM"));
    let p384 = ec_pair(&aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING);
    assert!(refusal(&p384.private_pem, None).contains("does not fit ES256"));
}

#[test]
fn every_token_can_be_inspected() {
    let old = format!("{}.{}.x", encode(r#"{"alg":"none"}"#), encode(r#"{"mercure":{"publish":["*"]}}"#));
    let seen = inspect(&format!("  {old}\n")).unwrap();
    assert_eq!(seen.header["alg"], "none");
    assert_eq!(seen.claims["mercure"]["publish"][0], "*");
}

#[test]
fn a_text_that_is_no_token_is_refused() {
    let object = encode("{}");
    for text in [
        "",
        "a",
        "a.b",
        "a.b.c",
        "..",
        &format!("{object}.{object}"),
        &format!("{object}.{object}.x.y"),
        &format!("{object}.{}.x", encode("[]")),
    ] {
        assert_eq!(inspect(text), Err(NotAToken), "{text}");
    }
}

#[test]
fn a_minted_token_of_the_older_revision_allows_what_it_names() {
    let token = NewOlderToken {
        subject: "kevin".to_owned(),
        issued_at: NOW,
        expires_at: NOW + 3600,
        publish: vec!["chat".to_owned()],
        subscribe: vec!["/users/{id}".to_owned()],
        payload: json!({ "name": "Kevin" }).as_object().cloned(),
    };
    let minted = mint_older(&token, &secret_key().with_kid(Some("1".to_owned()))).unwrap();
    let seen = inspect(&minted).unwrap();
    assert_eq!(json!(seen.header), json!({ "typ": "JWT", "alg": "HS256", "kid": "1" }));
    let mut older = issuer(SHARED_SECRET, &[]);
    older.revision = MercureRevision::Older;
    let access = present(&hub_of(vec![older]), &minted).unwrap();
    assert!(access.publish.covers(&topic("chat")) && !access.publish.covers(&topic("/users/1")));
    assert!(access.subscribe.covers(&topic("/users/1")) && !access.subscribe.covers(&topic("chat")));
    assert_eq!(access.expires_at, Some(NOW + 3600));
    // A hub of the current revision alone refuses it.
    assert!(present(&hub_of(vec![issuer(SHARED_SECRET, &[])]), &minted).is_err());
}
