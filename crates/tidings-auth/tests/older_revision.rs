//! Tokens of the older revision of the Mercure protocol. The numbers are those of the checks derived
//! from the protocol.

mod support;

use serde_json::{Value, json};
use support::{
    EC, NOW, SHARED_SECRET, assert_invalid_token, bearer, claims, ec_pair, header, hub_of, issuer, keys,
    present, signed, signed_with, topic, with, without,
};
use tidings_auth::{
    Access, Algorithm, AuthConfig, AuthError, Authenticator, CredentialPlace, CredentialPlaces, IssuerConfig,
    IssuerKeyConfig, MatcherText, MercureRevision, OLDER_KEYS_MAX, Subject,
};
use tidings_topic::{Topic, Validator};

const OLDER_SECRET: &str = "the secret of an application that signs tokens of the older revision";

fn older(name: &str, key: &str) -> IssuerConfig {
    IssuerConfig {
        issuer: name.to_owned(),
        revision: MercureRevision::Older,
        keys: vec![IssuerKeyConfig { kid: None, key: key.into() }],
        ..IssuerConfig::default()
    }
}

/// A hub with an issuer of each revision.
fn hub() -> Authenticator {
    hub_of(vec![issuer(SHARED_SECRET, &[Algorithm::Hs256]), older("symfony", OLDER_SECRET)])
}

fn token_of(secret: &str, header: &Value, claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    signed_with(&key, jsonwebtoken::Algorithm::HS256, &header.to_string(), &claims.to_string())
}

fn older_token(claims: &Value) -> String {
    token_of(OLDER_SECRET, &json!({ "typ": "JWT", "alg": "HS256" }), claims)
}

fn accepted(claims: &Value) -> Access {
    present(&hub(), &older_token(claims)).expect("a valid token")
}

/// A topic in the hub's own namespace, which no publisher can name.
fn own_topic(text: &str) -> Topic {
    Topic::from_stored(text).expect("valid characters")
}

/// Number 47: both spellings of the claim; what is not named is not allowed; no type, issuer,
/// audience or expiry is required.
#[test]
fn a_token_allows_what_its_mercure_claim_names() {
    for claim in ["mercure", "https://mercure.rocks/"] {
        let access = accepted(&json!({ claim: { "publish": ["a", "/b/{id}"], "subscribe": ["c"] } }));
        assert!(access.publish.covers(&topic("a")) && access.publish.covers(&topic("/b/1")));
        assert!(!access.publish.covers(&topic("c")) && !access.publish.covers(&topic("/b/1/2")));
        assert!(access.subscribe.covers(&topic("c")) && !access.subscribe.covers(&topic("a")));
        assert_eq!((access.expires_at, access.issuer.as_deref()), (None, Some("symfony")));
        assert_eq!(access.subject, Subject::Token(None));
    }
    for header in [json!({ "alg": "HS256" }), json!({ "typ": "whatever", "alg": "HS256" }), header()] {
        let token = token_of(OLDER_SECRET, &header, &json!({ "mercure": { "publish": ["*"] } }));
        assert!(present(&hub(), &token).unwrap().publish.is_all(), "{header}");
    }
    for nothing in [
        json!({}),
        json!({ "mercure": {} }),
        json!({ "mercure": [] }),
        json!({ "mercure": null }),
        json!({ "mercure": { "publish": null, "subscribe": [] } }),
    ] {
        let access = accepted(&with(nothing.clone(), json!({ "iss": "elsewhere", "aud": ["another hub"] })));
        assert!(access.publish.is_empty() && access.subscribe.is_empty(), "{nothing}");
    }
}

/// Number 46: the forms of templates in deployed tokens.
#[test]
fn the_templates_of_deployed_tokens_cover_what_they_mean() {
    let subscribe = json!([
        "/.well-known/mercure/subscriptions{/topic}{/subscriber}",
        "https://example.com/books{?author}"
    ]);
    let access = accepted(&json!({ "mercure": { "subscribe": subscribe } }));
    for covered in
        ["/.well-known/mercure/subscriptions", "/.well-known/mercure/subscriptions/a%2Fb/urn%3Auuid%3A1"]
    {
        assert!(access.subscribe.covers(&own_topic(covered)), "{covered}");
    }
    assert!(access.subscribe.covers(&topic("https://example.com/books?author=a")));
    for other in ["https://example.com/books?title=a", "https://example.com/books/1", "a"] {
        assert!(!access.subscribe.covers(&topic(other)), "{other}");
    }
    let any = accepted(&json!({ "mercure": { "publish": ["{+host}/a"] } }));
    assert!(
        any.publish.covers(&topic("https://example.com/a"))
            && !any.publish.covers(&topic("https://example.com/b"))
    );
}

#[test]
fn times_ids_and_subjects_are_obeyed_where_a_token_has_them() {
    let all = json!({ "mercure": {}, "exp": NOW + 60, "iat": NOW, "sub": "kevin", "jti": "1" });
    let access = accepted(&all);
    assert_eq!((access.expires_at, access.issued_at), (Some(NOW + 60), Some(NOW)));
    assert_eq!((access.subject, access.id.as_deref()), (Subject::Token(Some("kevin".into())), Some("1")));
    // A library in use writes times with a fraction.
    assert_eq!(accepted(&json!({ "exp": 1_800_000_060.25 })).expires_at, Some(NOW + 60));
    let expired = present(&hub(), &older_token(&json!({ "mercure": {}, "exp": NOW })));
    assert!(matches!(expired, Err(AuthError::Expired(_))), "{expired:?}");
    assert_invalid_token(present(&hub(), &older_token(&json!({ "nbf": NOW + 61 }))), "not valid yet");
}

/// The checks of the older revision are weak, so its keys stand apart: no token of either revision is
/// verified with a key of the other.
#[test]
fn no_key_verifies_tokens_of_the_other_revision() {
    let hub = hub();
    let mercure = json!({ "mercure": { "publish": ["*"] } });
    for header in [json!({ "typ": "JWT", "alg": "HS256" }), json!({ "alg": "HS256" }), header()] {
        assert_invalid_token(present(&hub, &signed(&header, &mercure)), "a key of the current revision");
    }
    assert_invalid_token(
        present(&hub, &token_of(OLDER_SECRET, &header(), &claims())),
        "a key of the older revision",
    );
    // Both claims are one token of the current revision.
    let both = with(claims(), mercure);
    assert!(!present(&hub, &signed(&header(), &both)).unwrap().publish.is_all());
    assert_invalid_token(present(&hub, &token_of(OLDER_SECRET, &header(), &both)), "both claims");
    assert_invalid_token(present(&hub, &older_token(&both)), "both claims without the type");
    // The type alone makes no token of the current revision.
    let untyped = without(claims(), "authorization_details");
    assert!(present(&hub, &signed(&header(), &untyped)).unwrap().publish.is_empty());
}

#[test]
fn a_token_of_the_older_revision_needs_the_right_algorithm_and_signature() {
    let (private, public) = keys(Algorithm::Es256);
    let hub = hub_of(vec![older("symfony", public.expose())]);
    let claims = json!({ "mercure": { "publish": ["*"] } }).to_string();
    let sign = |pem: &str| {
        let key = jsonwebtoken::EncodingKey::from_ec_pem(pem.as_bytes()).unwrap();
        signed_with(&key, jsonwebtoken::Algorithm::ES256, "{\"alg\":\"ES256\"}", &claims)
    };
    assert!(present(&hub, &sign(private.expose())).unwrap().publish.is_all());
    let stranger = ec_pair(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING);
    assert_invalid_token(present(&hub, &sign(&stranger.private_pem)), "another key");
    let with_public_key = jsonwebtoken::EncodingKey::from_secret(EC.public_pem.as_bytes());
    let confused =
        signed_with(&with_public_key, jsonwebtoken::Algorithm::HS256, "{\"alg\":\"HS256\"}", &claims);
    assert_invalid_token(present(&hub, &confused), "the public key as a secret");
    for header in ["{\"alg\":\"none\"}", "{\"alg\":\"ES256\",\"crit\":[\"x\"]}", "{}", "[]"] {
        let key = jsonwebtoken::EncodingKey::from_ec_pem(private.expose().as_bytes()).unwrap();
        let token = signed_with(&key, jsonwebtoken::Algorithm::ES256, header, &claims);
        assert_invalid_token(present(&hub, &token), header);
    }
}

#[test]
fn malformed_claims_make_the_token_invalid() {
    for malformed in [
        json!({ "mercure": [["*"], ["*"]] }),
        json!({ "mercure": "*" }),
        json!({ "mercure": { "publish": "*" } }),
        json!({ "mercure": { "subscribe": [1] } }),
        json!({ "mercure": { "subscribe": [null] } }),
        json!({ "mercure": { "subscribe": [""] } }),
        json!({ "mercure": { "subscribe": ["a\u{0}"] } }),
        json!({ "mercure": { "subscribe": ["{a:9999}"] } }),
        json!({ "mercure": {}, "https://mercure.rocks/": {} }),
        json!({ "mercure": {}, "exp": "soon" }),
        json!({ "mercure": {}, "exp": null }),
        json!({ "mercure": {}, "sub": 7 }),
    ] {
        assert_invalid_token(present(&hub(), &older_token(&malformed)), &malformed.to_string());
    }
    let twice = "{\"mercure\":{\"publish\":[]},\"mercure\":{\"publish\":[\"*\"]}}";
    let key = jsonwebtoken::EncodingKey::from_secret(OLDER_SECRET.as_bytes());
    let token = signed_with(&key, jsonwebtoken::Algorithm::HS256, "{\"alg\":\"HS256\"}", twice);
    assert_invalid_token(present(&hub(), &token), twice);
}

/// As the two keys of hubs of that revision: one for publishers, one for subscribers.
#[test]
fn permissions_of_an_issuer_bound_its_tokens_of_the_older_revision() {
    let publishers = IssuerConfig { subscribe: vec![], ..older("publishers", OLDER_SECRET) };
    let subscribe = vec![MatcherText::from("user-*")];
    let subscribers = IssuerConfig { publish: vec![], subscribe, ..older("subscribers", SHARED_SECRET) };
    let hub = hub_of(vec![publishers, subscribers]);
    let all = json!({ "mercure": { "publish": ["*"], "subscribe": ["*"] } });
    let header = json!({ "alg": "HS256" });
    let publisher = present(&hub, &token_of(OLDER_SECRET, &header, &all)).unwrap();
    assert!(publisher.publish.is_all() && publisher.subscribe.is_empty());
    let subscriber = present(&hub, &token_of(SHARED_SECRET, &header, &all)).unwrap();
    assert!(subscriber.publish.is_empty() && subscriber.subscribe.covers(&topic("user-1")));
    assert!(!subscriber.subscribe.covers(&topic("chat")));
    let named = json!({ "mercure": { "subscribe": ["user-7", "chat", "{any}"] } });
    let named = present(&hub, &token_of(SHARED_SECRET, &header, &named)).unwrap();
    assert!(named.subscribe.covers(&topic("user-7")) && !named.subscribe.covers(&topic("user-8")));
}

/// Number 48: the header counts first, then the parameter, then the cookies.
#[test]
fn the_places_of_the_older_revision_are_read_in_its_order() {
    let hub = hub();
    let named = |name: &str| older_token(&json!({ "mercure": { "publish": [name] } }));
    let (header, parameter, cookie) = (named("header"), named("parameter"), named("cookie"));
    let query = format!("topic=a&authorization={parameter}");
    let cookies = [("cookie".parse().unwrap(), format!("mercureAuthorization={cookie}").parse().unwrap())];
    let cookies: http::HeaderMap = cookies.into_iter().collect();
    let mut both = bearer(&header);
    both.extend(cookies.clone());
    let found = |headers: &http::HeaderMap, query: Option<&str>| {
        let access = hub.authenticate_in(CredentialPlaces::WithOlder, headers, query, NOW).unwrap().unwrap();
        (access.publish.matchers()[0].as_str().to_owned(), access.presented_in)
    };
    assert_eq!(found(&both, Some(&query)), ("header".to_owned(), CredentialPlace::Header));
    assert_eq!(found(&cookies, Some(&query)), ("parameter".to_owned(), CredentialPlace::Parameter));
    assert_eq!(found(&cookies, Some("topic=a")), ("cookie".to_owned(), CredentialPlace::Cookie));
    for (headers, query) in [(http::HeaderMap::new(), Some(query.as_str())), (cookies, None)] {
        let error = hub.authenticate(&headers, query, NOW).unwrap_err();
        assert!(matches!(error, AuthError::Missing(_)), "{error}");
    }
    let nothing =
        hub.authenticate_in(CredentialPlaces::WithOlder, &http::HeaderMap::new(), Some("topic=a"), NOW);
    assert_eq!(nothing, Ok(None));
}

/// A URL ends up in logs, so only what the older revision has there is read there.
#[test]
fn only_tokens_of_the_older_revision_are_read_in_its_places() {
    let hub = hub();
    let current = signed(&header(), &claims());
    for credential in [current.as_str(), "tk_a-key-of-a-server", "tt_ticket", "a.b.c"] {
        let query = format!("authorization={credential}");
        let in_query =
            hub.authenticate_in(CredentialPlaces::WithOlder, &http::HeaderMap::new(), Some(&query), NOW);
        assert!(matches!(in_query, Err(AuthError::Missing(_))), "{credential}: {in_query:?}");
        let cookie = format!("mercureAuthorization={credential}").parse().unwrap();
        let cookies: http::HeaderMap = [("cookie".parse().unwrap(), cookie)].into_iter().collect();
        let in_cookie = hub.authenticate_in(CredentialPlaces::WithOlder, &cookies, None, NOW);
        assert!(matches!(in_cookie, Err(AuthError::Missing(_))), "{credential}: {in_cookie:?}");
    }
    for query in ["authorization=", "authorization=a&authorization=b", "authorization=a%20b"] {
        let error = hub
            .authenticate_in(CredentialPlaces::WithOlder, &http::HeaderMap::new(), Some(query), NOW)
            .unwrap_err();
        assert_eq!(error.code(), Some("invalid_request"), "{query}");
    }
    for name in ["token", "jwt", "access_token"] {
        let query = format!("{name}={}", older_token(&json!({ "mercure": {} })));
        let refused =
            hub.authenticate_in(CredentialPlaces::WithOlder, &http::HeaderMap::new(), Some(&query), NOW);
        assert!(matches!(refused, Err(AuthError::Missing(_))), "{name}");
    }
}

#[test]
fn a_hub_without_keys_for_the_older_revision_names_the_setting() {
    let hub = hub_of(vec![issuer(SHARED_SECRET, &[Algorithm::Hs256])]);
    let error = present(&hub, &older_token(&json!({ "mercure": { "publish": ["*"] } }))).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("`mercure_revisions = [\"1.0\", \"0.x\"]`")
            && message.contains("`revision = \"0.x\"`"),
        "{message}"
    );
}

#[test]
fn a_configuration_that_would_weaken_other_issuers_is_refused() {
    let refused = |issuers: Vec<IssuerConfig>| {
        let config = AuthConfig { issuers, ..AuthConfig::default() };
        Authenticator::new(config, &Validator::default()).expect_err("a refusal").to_string()
    };
    let current = issuer(SHARED_SECRET, &[Algorithm::Hs256]);
    let shared = refused(vec![current.clone(), older("symfony", SHARED_SECRET)]);
    assert!(shared.contains("shared secret of another issuer"), "{shared}");
    let same_name = refused(vec![current.clone(), older(&current.issuer, OLDER_SECRET)]);
    assert!(same_name.contains("used twice"), "{same_name}");
    let published =
        refused(vec![IssuerConfig { jwks: Some("{}".to_owned()), ..older("symfony", OLDER_SECRET) }]);
    assert!(published.contains("jwks_file") && published.contains("give the key itself"), "{published}");
    let keyless = refused(vec![IssuerConfig { keys: vec![], ..older("symfony", OLDER_SECRET) }]);
    assert!(keyless.contains("key: is missing"), "{keyless}");
    let short = refused(vec![older("symfony", "too short")]);
    assert!(short.contains("at least 32"), "{short}");
    let many = |count: usize| {
        (0..count).map(|index| older(&index.to_string(), &format!("{OLDER_SECRET} {index}"))).collect()
    };
    assert!(refused(many(OLDER_KEYS_MAX + 1)).contains("limit is 8"));
    let config = AuthConfig { issuers: many(OLDER_KEYS_MAX), ..AuthConfig::default() };
    assert!(Authenticator::new(config, &Validator::default()).is_ok());
}
