//! Presentation of credentials, permissions of keys, and errors. The numbers are those of the
//! checks for the Mercure protocol's section "Authorization": 26 presentation, 27 refusals.

mod support;

use http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, COOKIE},
};
use support::*;
use tidings_auth::{
    Access, AuthConfig, AuthError, Authenticator, CREDENTIAL_COOKIES, CREDENTIAL_PARAMETERS, KeyConfig,
    MatcherText, credential_missing, generate_key_secret, insufficient_scope, refuse_in_url,
};
use tidings_topic::Validator;

const SECRET: &str = "tk_a-secret-of-the-tests";

fn key(name: &str, secret: &str, publish: &str, subscribe: &str) -> KeyConfig {
    let matcher = |text: &str| if text.is_empty() { vec![] } else { vec![MatcherText::from(text)] };
    KeyConfig {
        name: name.to_owned(),
        secret: secret.into(),
        publish: matcher(publish),
        subscribe: matcher(subscribe),
        admin: false,
        streams_max: None,
    }
}

fn hub_with_keys(keys: Vec<KeyConfig>) -> Authenticator {
    let config = AuthConfig { keys, issuers: vec![issuer(SHARED_SECRET, &[])], ..AuthConfig::default() };
    Authenticator::new(config, &Validator::default()).unwrap()
}

fn key_hub() -> Authenticator {
    hub_with_keys(vec![key("app", SECRET, "chat", "")])
}

fn from_header(value: &[u8]) -> Result<Option<Access>, AuthError> {
    let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap())]);
    key_hub().authenticate(&headers, None, NOW)
}

#[test]
fn no_header_is_no_credential() {
    assert_eq!(key_hub().authenticate(&HeaderMap::new(), None, NOW), Ok(None));
}

#[test]
fn a_replaced_configuration_holds_for_all_clones() {
    let hub = key_hub();
    let clone = hub.clone();
    hub.check(SECRET, NOW).unwrap();
    hub.replace(&Authenticator::default());
    assert_invalid_token(clone.check(SECRET, NOW), "the key is gone");
    clone.replace(&key_hub());
    hub.check(SECRET, NOW).unwrap();
}

#[test]
fn the_name_of_the_scheme_is_case_insensitive_mercure_26() {
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        for space in [" ", "  ", "    "] {
            let access = from_header(format!("{scheme}{space}{SECRET}").as_bytes()).unwrap().unwrap();
            assert_eq!(access.subject.to_string(), "key app");
        }
    }
}

#[test]
fn the_scheme_of_a_proxy_presents_nothing_rfc_6750_3_1() {
    for value in ["Basic YTpi", "basic", "Digest a=b", "Negotiate YTpi", "NTLM YTpi"] {
        assert_eq!(from_header(value.as_bytes()), Ok(None), "{value}");
    }
}

// Regression: a subscriber with `Authorization: Token …`, or with a key without a scheme, was
// served as an anonymous one.
#[test]
fn another_scheme_is_refused_and_bearer_is_named() {
    for value in [SECRET, "Token abc", "Bearerx abc", "ApiKey abc", "DPoP abc", "JWT a.b.c", ""] {
        let error = from_header(value.as_bytes()).expect_err(value);
        assert_eq!((error.status().as_u16(), error.code()), (400, Some("invalid_request")), "{value}");
        assert!(error.to_string().contains("`Authorization: Bearer …`"), "{error}");
        assert!(value.is_empty() || !format!("{error:?}").contains(value), "{error:?}");
    }
}

fn asked(query: Option<&str>, cookie: Option<&str>, key: Option<&str>) -> Result<Option<Access>, AuthError> {
    let mut headers = key.map(bearer).unwrap_or_default();
    headers.extend(cookie.map(|cookie| (COOKIE, cookie.parse().unwrap())));
    key_hub().authenticate(&headers, query, NOW)
}

// Regression: such a request was served as an anonymous one: 200, and no private event.
#[test]
fn a_misplaced_credential_is_refused_by_the_name_of_its_place() {
    for name in CREDENTIAL_PARAMETERS {
        for query in [
            format!("{name}={SECRET}"),
            format!("topic=a&{name}={SECRET}"),
            format!("%{:x}{}", name.as_bytes()[0], &name[1..]),
        ] {
            let error = asked(Some(&query), None, None).expect_err(&query);
            assert_eq!((error.status().as_u16(), error.code()), (401, None), "{query}");
            let sentence = error.to_string();
            assert!(
                sentence.contains(&format!("`{name}`")) && sentence.contains("`Authorization: Bearer …`"),
                "{sentence}"
            );
            assert!(!sentence.contains(SECRET), "{sentence}");
            // RFC 6750, section 2: no more than one method per request.
            assert_eq!(asked(Some(&query), None, Some(SECRET)).unwrap_err().status(), 400, "{query}");
            assert!(refuse_in_url(Some(&query)).is_err(), "{query}");
        }
    }
    let name = CREDENTIAL_COOKIES[0];
    for cookie in
        [format!("{name}={SECRET}"), format!("theme=dark; {name}={SECRET}; a=b"), format!("a;{name}=x")]
    {
        let error = asked(None, Some(&cookie), None).expect_err(&cookie);
        assert_eq!((error.status().as_u16(), error.code()), (401, None), "{cookie}");
        let sentence = error.to_string();
        assert!(sentence.contains(&format!("`{name}`")) && !sentence.contains(SECRET), "{sentence}");
    }
}

#[test]
fn the_header_wins_over_a_cookie_mercure_26() {
    let access = asked(None, Some("mercureAuthorization=a.b.c"), Some(SECRET)).unwrap().unwrap();
    assert_eq!(access.subject.to_string(), "key app");
}

#[test]
fn other_parameters_and_cookies_are_ignored() {
    for query in ["topic=token", "tokens=a", "Token=a", "topic=a&last_event_id=jwt", "", "%zz", "a=%ff&b"] {
        assert_eq!(asked(Some(query), None, None), Ok(None), "{query}");
        assert_eq!(refuse_in_url(Some(query)), Ok(()), "{query}");
    }
    for cookie in [
        "session=mercureAuthorization",
        "mercureauthorization=a",
        "token=a",
        "mercureAuthorization=",
        "mercureAuthorization",
        ";;=",
        "",
    ] {
        assert_eq!(asked(None, Some(cookie), None), Ok(None), "{cookie}");
    }
}

#[test]
fn several_headers_are_a_bad_request_mercure_27() {
    for (first, second) in
        [("Bearer a", "Bearer b"), ("Bearer a", "Basic b"), ("Basic a", "Basic b"), ("", "")]
    {
        let mut headers = HeaderMap::new();
        headers.append(AUTHORIZATION, first.parse().unwrap());
        headers.append(AUTHORIZATION, second.parse().unwrap());
        let error = key_hub().authenticate(&headers, None, NOW).unwrap_err();
        assert_eq!((error.status().as_u16(), error.code()), (400, Some("invalid_request")));
    }
}

#[test]
fn a_malformed_presentation_is_a_bad_request_mercure_27() {
    for value in [
        &b"Bearer"[..],
        b"Bearer ",
        b"Bearer    ",
        b"Bearer a b",
        b"Bearer a,b",
        b"Bearer \"a\"",
        b"Bearer a=b",
        b"Bearer ===",
        b"Bearer a, Bearer b",
        b"Bearer {}",
        b"Bearer \xff\xfe",
        "Bearer sécret".as_bytes(),
    ] {
        let error = from_header(value).expect_err(&String::from_utf8_lossy(value));
        assert_eq!(error.status(), 400);
        assert_eq!(error.code(), Some("invalid_request"));
    }
}

#[test]
fn an_invalid_key_is_refused_and_never_ignored_mercure_27() {
    let prefix = &SECRET[..SECRET.len() - 1];
    let longer = format!("{SECRET}x");
    for wrong in ["x", prefix, &longer, "TK_A-SECRET-OF-THE-TESTS", "a.b", "a.b.c.d", "a.b.c.d.e", ".", "-"] {
        assert_invalid_token(present(&key_hub(), wrong), wrong);
    }
    assert_invalid_token(present(&Authenticator::default(), SECRET), "a hub without keys");
}

#[test]
fn an_oversized_credential_is_refused() {
    let limit = tidings_auth::CREDENTIAL_BYTES_MAX;
    let hub = hub_with_keys(vec![key("long", &"a".repeat(limit), "chat", "")]);
    assert!(present(&hub, &"a".repeat(limit)).is_ok());
    let error = present(&hub, &"a".repeat(limit + 1)).unwrap_err();
    assert_eq!(error, AuthError::InvalidToken("the credential is longer than 8192 bytes".to_owned()));
}

#[test]
fn each_key_has_its_own_permissions() {
    let hub = hub_with_keys(vec![
        key("writer", "secret-of-the-writer", "chat", ""),
        key("reader", "secret-of-the-reader", "", "user-*"),
        key("root", "secret-of-the-operator", "*", "*"),
    ]);
    let writer = present(&hub, "secret-of-the-writer").unwrap();
    assert!(writer.publish.covers(&topic("chat")) && !writer.publish.covers(&topic("user-1")));
    assert!(writer.subscribe.is_empty());
    let reader = present(&hub, "secret-of-the-reader").unwrap();
    assert!(reader.publish.is_empty());
    assert!(reader.subscribe.covers(&topic("user-1")) && !reader.subscribe.covers(&topic("chat")));
    let root = present(&hub, "secret-of-the-operator").unwrap();
    assert!(root.publish.is_all() && root.subscribe.is_all());
    assert_eq!(root.expires_at, None);
    let names = [writer, reader, root].map(|access| access.subject.to_string());
    assert_eq!(names, ["key writer", "key reader", "key root"]);
}

#[test]
fn generated_secrets_are_long_different_and_accepted() {
    let (one, two) = (generate_key_secret(), generate_key_secret());
    assert_ne!(one, two);
    assert!(one.starts_with("tk_") && one.len() == 3 + 43, "{one}");
    let hub = hub_with_keys(vec![key("one", &one, "chat", "")]);
    assert!(present(&hub, &one).is_ok());
    assert_invalid_token(present(&hub, &two), "another one");
}

#[test]
fn a_hub_accepts_both_keys_and_tokens() {
    assert!(present(&key_hub(), SECRET).is_ok());
    assert!(present(&key_hub(), &signed(&header(), &claims())).is_ok());
}

#[test]
fn a_request_without_a_credential_gets_a_bare_challenge_mercure_27() {
    let error = credential_missing();
    assert_eq!(error.status(), 401);
    assert_eq!(error.code(), None);
    assert_eq!(error.www_authenticate(), "Bearer");
    assert!(error.to_string().contains("Authorization: Bearer"));
}

#[test]
fn an_insufficient_credential_is_forbidden_mercure_27() {
    let error = insufficient_scope("publish", &topic("chat"));
    assert_eq!(error.status(), 403);
    assert_eq!(
        error.www_authenticate(),
        "Bearer error=\"insufficient_scope\", error_description=\"the credential has no publish permission for the topic 'chat'\""
    );
}

#[test]
fn a_challenge_contains_only_quotable_characters() {
    let hostile = format!("a\", error=\"none\\ é{}", "x".repeat(1000));
    let error = insufficient_scope("publish", &topic(&hostile));
    let value = error.www_authenticate();
    let text = value.to_str().unwrap();
    assert_eq!(text.matches('"').count(), 4, "{text}");
    assert!(!text.contains('\\') && text.len() < 300, "{text}");
}

#[test]
fn no_refusal_repeats_the_credential() {
    let token = signed(&header(), &with_details(serde_json::json!([{ "type": DETAIL_TYPE }])));
    for credential in ["a-key-that-nobody-knows", &token, "a.b.c", &"z".repeat(9000)] {
        let error = present(&key_hub(), credential).unwrap_err();
        for said in
            [error.to_string(), format!("{error:?}"), error.www_authenticate().to_str().unwrap().to_owned()]
        {
            assert!(!said.contains(credential), "{said}");
        }
    }
}

#[test]
fn the_configuration_and_the_authenticator_show_no_secret() {
    let issuers = vec![issuer(SHARED_SECRET, &[])];
    let config = AuthConfig { keys: vec![key("app", SECRET, "*", "")], issuers, ..AuthConfig::default() };
    let hub = Authenticator::new(config.clone(), &Validator::default()).unwrap();
    let shown = [format!("{config:?}"), serde_json::to_string(&config).unwrap(), format!("{hub:?}")];
    for text in shown {
        assert!(!text.contains(SECRET) && !text.contains(SHARED_SECRET), "{text}");
    }
}

#[test]
fn the_name_in_a_log_is_one_short_line() {
    let sub = format!("evil\r\n\u{1b}[31m{}", "x".repeat(5000));
    let access = present_claims(&with(claims(), serde_json::json!({ "sub": sub }))).unwrap();
    let name = access.subject.to_string();
    assert!(!name.chars().any(char::is_control) && name.len() < 500, "{name}");
    assert_eq!(present_claims(&claims()).unwrap().subject.to_string(), "token of kevin");
}

#[test]
fn only_a_key_with_admin_may_operate_the_hub() {
    let everything = key("app", SECRET, "*", "*");
    let operator = KeyConfig { admin: true, ..key("operator", "tk_another-secret-of-the-tests", "", "") };
    let hub = hub_with_keys(vec![everything, operator]);
    let access = |credential: &str| hub.check(credential, NOW).unwrap();
    assert!(!access(SECRET).admin, "a key with every topic is no administrator");
    let operator = access("tk_another-secret-of-the-tests");
    assert!(operator.admin && operator.publish.is_empty() && operator.subscribe.is_empty());
    // No claim of a token gives it.
    let token = with(claims(), serde_json::json!({ "admin": true, "scope": "admin" }));
    assert!(!present_claims(&token).unwrap().admin);
}

#[test]
fn an_anonymous_subscriber_receives_public_events() {
    let anonymous = Access::anonymous();
    assert!(anonymous.publish.is_empty() && anonymous.subscribe.is_empty());
    assert!(!anonymous.is_expired(u64::MAX));
    let everything = Access::everything();
    assert!(everything.publish.is_all() && everything.subscribe.is_all());
    assert!(everything.admin && !anonymous.admin);
}
