//! Valid and invalid tokens. The numbers are those of the checks for the Mercure protocol's section
//! "Authorization": 22 form, 23 algorithms, 24 keys, 25 claims, 28 details, 29 and 30 grants, 31
//! expiry.

mod support;

use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};
use support::*;
use tidings_auth::{Algorithm, Authenticator, MatcherText, NewToken, SigningKey, mint};
use tidings_topic::Matcher;

fn new_token() -> NewToken {
    NewToken {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        subject: "kevin".to_owned(),
        issued_at: NOW,
        expires_at: NOW + 60,
        publish: vec![MatcherText::from("chat")],
        subscribe: vec![MatcherText::from("chat")],
        payload: None,
    }
}

#[test]
fn every_algorithm_verifies_what_it_signed_mercure_23() {
    for algorithm in Algorithm::ALL {
        let (private, public) = keys(algorithm);
        let token = mint(&new_token(), &SigningKey::new(&private, Some(algorithm)).unwrap()).unwrap();
        let access = present(&hub(public.expose(), &[algorithm]), &token).unwrap();
        assert!(access.publish.covers(&topic("chat")), "{algorithm}");
        assert!(access.subscribe.covers(&topic("chat")), "{algorithm}");
        assert!(!access.subscribe.covers(&topic("other")), "{algorithm}");
    }
}

#[test]
fn a_signature_of_another_key_is_invalid_mercure_24() {
    let other_ec = ec_pair(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING);
    for (algorithm, private) in [
        (Algorithm::Hs256, "another secret that is also long enough".to_owned()),
        (Algorithm::Es256, other_ec.private_pem),
    ] {
        let token = mint(&new_token(), &SigningKey::new(&private.into(), Some(algorithm)).unwrap()).unwrap();
        let (_, public) = keys(algorithm);
        assert_invalid_token(present(&hub(public.expose(), &[algorithm]), &token), algorithm.name());
    }
}

#[test]
fn a_changed_part_invalidates_the_signature_mercure_22() {
    for algorithm in Algorithm::ALL {
        let (private, public) = keys(algorithm);
        let hub = hub(public.expose(), &[algorithm]);
        let token = mint(&new_token(), &SigningKey::new(&private, Some(algorithm)).unwrap()).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let claims =
            encode(with_details(json!([detail(json!({ "topics": [{ "match": "*" }] }))])).to_string());
        let header = encode(json!({ "typ": "at+jwt", "alg": algorithm.name(), "kid": "x" }).to_string());
        assert_invalid_token(present(&hub, &format!("{}.{claims}.{}", parts[0], parts[2])), "other claims");
        assert_invalid_token(present(&hub, &format!("{header}.{}.{}", parts[1], parts[2])), "other header");
        assert_invalid_token(present(&hub, &format!("{}.{}.", parts[0], parts[1])), "no signature");
        assert_invalid_token(present(&hub, &format!("{token}A")), "longer signature");
        assert_invalid_token(present(&hub, &token[..token.len() - 4]), "shorter signature");
    }
}

#[test]
fn the_type_is_that_of_an_access_token_mercure_22() {
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
        let header = with(header(), json!({ "typ": typ }));
        assert!(present(&hmac_hub(), &signed(&header, &claims())).is_ok(), "{typ}");
    }
    for typ in
        [json!("JWT"), json!("at"), json!(""), json!("at+jwt "), json!("text/at+jwt"), json!(null), json!(1)]
    {
        let header = with(header(), json!({ "typ": typ }));
        assert_invalid_token(present(&hmac_hub(), &signed(&header, &claims())), &typ.to_string());
    }
    assert_invalid_token(present(&hmac_hub(), &signed(&without(header(), "typ"), &claims())), "no typ");
}

#[test]
fn unsigned_tokens_are_invalid_mercure_23() {
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = with(header(), json!({ "alg": alg }));
        let message = format!("{}.{}", encode(header.to_string()), encode(claims().to_string()));
        assert_invalid_token(present(&hmac_hub(), &format!("{message}.")), alg);
        assert_invalid_token(present(&hmac_hub(), &signed(&header, &claims())), alg);
    }
}

#[test]
fn the_algorithm_is_one_that_the_operator_allowed_mercure_23() {
    let key = EncodingKey::from_secret(SHARED_SECRET.as_bytes());
    for (name, algorithm) in
        [("HS384", jsonwebtoken::Algorithm::HS384), ("HS512", jsonwebtoken::Algorithm::HS512)]
    {
        let header = with(header(), json!({ "alg": name })).to_string();
        let token = signed_with(&key, algorithm, &header, &claims().to_string());
        assert_invalid_token(present(&hmac_hub(), &token), name);
        assert!(
            present(&hub(SHARED_SECRET, &[Algorithm::Hs384, Algorithm::Hs512]), &token).is_ok(),
            "{name}"
        );
    }
    for alg in [json!("hs256"), json!("HS1"), json!(["HS256"]), json!(null), json!({ "HS256": true })] {
        let header = with(header(), json!({ "alg": alg }));
        assert_invalid_token(present(&hmac_hub(), &signed(&header, &claims())), &alg.to_string());
    }
    assert_invalid_token(present(&hmac_hub(), &signed(&without(header(), "alg"), &claims())), "no alg");
}

#[test]
fn an_hmac_with_the_public_key_is_invalid_mercure_23() {
    // Algorithm confusion: the verifier knows a public key, the attacker uses its text or its bytes
    // as the shared secret.
    for (pair, algorithm) in [(&RSA, Algorithm::Rs256), (&EC, Algorithm::Es256), (&ED, Algorithm::EdDsa)] {
        let hub = hub(&pair.public_pem, &[algorithm]);
        let base64: String = pair.public_pem.lines().filter(|line| !line.starts_with('-')).collect();
        for secret in [pair.public_pem.as_str(), pair.public_pem.trim_end(), &base64] {
            for alg in ["HS256", algorithm.name()] {
                let header = with(header(), json!({ "alg": alg })).to_string();
                let key = EncodingKey::from_secret(secret.as_bytes());
                let token = signed_with(&key, jsonwebtoken::Algorithm::HS256, &header, &claims().to_string());
                assert_invalid_token(present(&hub, &token), alg);
            }
        }
    }
}

#[test]
fn keys_in_the_token_are_ignored_mercure_24() {
    let jwk = json!({ "kty": "oct", "k": encode("the attacker's own secret, long enough") });
    let brought = json!({
        "jwk": jwk, "jku": "https://evil.example/jwks", "x5u": "https://evil.example/x", "x5c": ["AAAA"], "kid": "../../etc",
    });
    let header = with(header(), brought);
    let attacker = EncodingKey::from_secret(b"the attacker's own secret, long enough");
    let token =
        signed_with(&attacker, jsonwebtoken::Algorithm::HS256, &header.to_string(), &claims().to_string());
    let mut config = issuer(SHARED_SECRET, &[]);
    config.keys[0].kid = Some("../../etc".to_owned());
    let hub = hub_of(vec![config]);
    assert_invalid_token(present(&hub, &token), "signed with the key in its header");
    assert!(present(&hub, &signed(&header, &claims())).is_ok(), "signed with the key of the issuer");
    let odd = with(support::header(), json!({ "jwk": 1, "jku": {}, "x5u": [], "x5c": null }));
    assert!(present(&hmac_hub(), &signed(&odd, &claims())).is_ok(), "they are not read");
}

// RFC 7515, section 4.1.11: whatever `crit` contains. Regression: `null` was taken for absent.
#[test]
fn critical_extensions_are_refused_in_any_form() {
    for crit in
        [json!(["b64"]), json!([]), json!("exp"), json!(1), json!(null), json!(false), json!({}), json!("")]
    {
        for b64 in [json!({}), json!({ "b64": false })] {
            let header = with(with(header(), json!({ "crit": crit })), b64);
            assert_invalid_token(present(&hmac_hub(), &signed(&header, &claims())), &crit.to_string());
        }
    }
}

// RFC 7797, section 6: `b64` comes with `crit`, and has claims that are not encoded.
#[test]
fn claims_in_another_encoding_are_refused() {
    for b64 in [json!(false), json!(true), json!(null), json!("no")] {
        let header = with(header(), json!({ "b64": b64 }));
        assert_invalid_token(present(&hmac_hub(), &signed(&header, &claims())), &b64.to_string());
    }
}

// RFC 7515, section 4.1.4.
#[test]
fn a_key_id_is_a_string() {
    for kid in [json!(7), json!(null), json!(["7"]), json!({}), json!(true)] {
        let header = with(header(), json!({ "kid": kid }));
        assert_invalid_token(present(&hmac_hub(), &signed(&header, &claims())), &kid.to_string());
    }
}

// RFC 7515, section 4, and RFC 7519, section 4: of two members with one name, readers choose
// different ones.
#[test]
fn a_duplicate_member_in_header_or_claims_is_refused() {
    let twice =
        |object: &Value, member: &str| format!("{},{member}}}", object.to_string().trim_end_matches('}'));
    for member in [r#""alg":"HS256""#, r#""\u0061lg":"HS256""#, r#""typ":"at+jwt""#, r#""alg":"none""#] {
        let token = signed_text(&twice(&header(), member), &claims().to_string());
        assert_invalid_token(present(&hmac_hub(), &token), member);
    }
    let with_kid = with(header(), json!({ "kid": "a" }));
    let token = signed_text(&twice(&with_kid, r#""kid":"b""#), &claims().to_string());
    assert_invalid_token(present(&hmac_hub(), &token), "kid");
    for member in [
        format!(r#""iss":"{ISSUER}""#),
        format!(r#""aud":"{AUDIENCE}""#),
        format!(r#""exp":{}"#, NOW + 60),
        r#""sub":"kevin""#.to_owned(),
        r#""authorization_details":[]"#.to_owned(),
        r#""authorization\u005fdetails":[]"#.to_owned(),
    ] {
        // The details end with their own brackets.
        let claims = claims().to_string();
        let claims = format!("{},{member}}}", claims.strip_suffix('}').unwrap());
        assert_invalid_token(present(&hmac_hub(), &signed_text(&header().to_string(), &claims)), &member);
    }
}

#[test]
fn an_expiry_is_required_and_a_number_mercure_25() {
    assert_invalid_token(present_claims(&without(claims(), "exp")), "no exp");
    for exp in [
        json!((NOW + 60).to_string()),
        json!("never"),
        json!(null),
        json!(true),
        json!([NOW + 60]),
        json!({}),
    ] {
        assert_invalid_token(present_claims(&with(claims(), json!({ "exp": exp }))), &exp.to_string());
    }
}

#[test]
fn a_token_is_valid_only_before_its_expiry_mercure_25_31() {
    let token = signed(&header(), &claims());
    let at = |now| hmac_hub().authenticate(&bearer(&token), None, now);
    assert!(at(NOW + 59).is_ok());
    assert!(at(NOW + 60).is_err());
    assert!(at(u64::MAX).is_err());
    for exp in [json!(0), json!(-1), json!(-1e300), json!(NOW), json!(NOW - 1), json!(0.5)] {
        assert_invalid_token(present_claims(&with(claims(), json!({ "exp": exp }))), &exp.to_string());
    }
}

#[test]
fn the_access_ends_when_the_token_does_mercure_31() {
    let ends = |exp: Value| present_claims(&with(claims(), json!({ "exp": exp }))).unwrap().expires_at;
    assert_eq!(ends(json!(NOW + 60)), Some(NOW + 60));
    assert_eq!(ends(json!(1_800_000_060.9)), Some(NOW + 60));
    assert_eq!(ends(json!(1e300)), Some(u64::MAX));
    let access = present_claims(&claims()).unwrap();
    assert!(!access.is_expired(NOW + 59) && access.is_expired(NOW + 60));
}

#[test]
fn a_token_is_invalid_before_its_nbf_mercure_25() {
    let from = |nbf: Value| present_claims(&with(claims(), json!({ "nbf": nbf })));
    for nbf in [json!(0), json!(-5), json!(NOW), json!(NOW + 60), json!(1_800_000_060.5)] {
        assert!(from(nbf.clone()).is_ok(), "{nbf}");
    }
    for nbf in [json!(NOW + 61), json!(u64::MAX), json!(1e300), json!("0"), json!(null), json!(false)] {
        assert_invalid_token(from(nbf.clone()), &nbf.to_string());
    }
}

#[test]
fn the_audience_is_this_hub_mercure_25() {
    let to = |aud: Value| present_claims(&with(claims(), json!({ "aud": aud })));
    for aud in [json!(AUDIENCE), json!([AUDIENCE]), json!(["https://a.example", AUDIENCE])] {
        assert!(to(aud.clone()).is_ok(), "{aud}");
    }
    for aud in [
        json!("https://a.example"),
        json!(""),
        json!([]),
        json!(["https://a.example"]),
        json!(format!("{AUDIENCE}/")),
        json!("https://hub.example"),
        json!(AUDIENCE.to_uppercase()),
        json!(null),
        json!([AUDIENCE, 1]),
        json!({ "0": AUDIENCE }),
    ] {
        assert_invalid_token(to(aud.clone()), &aud.to_string());
    }
    assert_invalid_token(present_claims(&without(claims(), "aud")), "no aud");
}

#[test]
fn each_expected_audience_suffices() {
    let mut config = issuer(SHARED_SECRET, &[]);
    config.audiences.push("http://localhost:8080/.well-known/mercure".to_owned());
    let hub = hub_of(vec![config]);
    for aud in [AUDIENCE, "http://localhost:8080/.well-known/mercure"] {
        assert!(present(&hub, &signed(&header(), &with(claims(), json!({ "aud": aud })))).is_ok(), "{aud}");
    }
}

#[test]
fn the_issuer_must_be_the_trusted_one_mercure_25() {
    for iss in [
        json!("https://evil.example"),
        json!(format!("{ISSUER}/")),
        json!(""),
        json!(null),
        json!([ISSUER]),
        json!(1),
    ] {
        assert_invalid_token(present_claims(&with(claims(), json!({ "iss": iss }))), &iss.to_string());
    }
    assert_invalid_token(present_claims(&without(claims(), "iss")), "no iss");
}

#[test]
fn claims_that_a_hub_does_not_need_may_be_absent_mercure_25() {
    let access = present_claims(&without(claims(), "sub")).unwrap();
    assert_eq!(access.subject.to_string(), "token");
    assert_invalid_token(present_claims(&with(claims(), json!({ "sub": 7 }))), "sub of the wrong type");
    assert!(present_claims(&with(claims(), json!({ "client_id": null }))).is_ok());
}

#[test]
fn an_access_states_when_its_token_was_issued() {
    let access = present_claims(&with(claims(), json!({ "iat": NOW - 7 }))).unwrap();
    assert_eq!(access.issued_at, Some(NOW - 7));
    assert_eq!(present_claims(&claims()).unwrap().issued_at, None);
    for iat in [json!("7"), json!(null), json!([]), json!(true)] {
        assert_invalid_token(present_claims(&with(claims(), json!({ "iat": iat }))), &iat.to_string());
    }
}

#[test]
fn the_id_of_an_access_is_the_jti_of_its_token() {
    let access = present_claims(&with(claims(), json!({ "jti": "t-7" }))).unwrap();
    assert_eq!((access.id.as_deref(), access.label), (Some("t-7"), None));
    assert_eq!(present_claims(&claims()).unwrap().id, None);
    for jti in [json!(7), json!(null), json!([]), json!({}), json!(true)] {
        assert_invalid_token(present_claims(&with(claims(), json!({ "jti": jti }))), &jti.to_string());
    }
}

#[test]
fn a_duplicate_member_is_refused_wherever_it_is() {
    let header_text = header().to_string();
    let text = claims().to_string();
    let twice = |member: &str| format!("{{{member},{}", &text[1..]);
    for member in [
        format!("\"exp\":{}", NOW + 99),
        "\"iss\":\"x\"".to_owned(),
        "\"aud\":\"x\"".to_owned(),
        "\"sub\":\"x\"".to_owned(),
        "\"authorization_details\":[]".to_owned(),
        "\"\\u0065xp\":1".to_owned(),
    ] {
        assert_invalid_token(present(&hmac_hub(), &signed_text(&header_text, &twice(&member))), &member);
    }
    for member in ["\"alg\":\"none\"", "\"typ\":\"JWT\""] {
        let header = format!("{{{member},{}", &header_text[1..]);
        assert_invalid_token(present(&hmac_hub(), &signed_text(&header, &text)), member);
    }
    for (member, again) in [
        ("\"actions\"", "\"actions\":[\"subscribe\"],\"actions\""),
        ("\"topics\"", "\"topics\":[{\"match\":\"*\"}],\"topics\""),
        ("\"match\"", "\"match\":\"*\",\"match\""),
        ("\"type\"", "\"type\":\"other\",\"type\""),
    ] {
        let text = text.replacen(member, again, 1);
        assert_invalid_token(present(&hmac_hub(), &signed_text(&header_text, &text)), again);
    }
}

#[test]
fn parts_that_are_no_json_objects_are_refused_mercure_22() {
    let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    for text in ["", "null", "[]", "1", "\"at+jwt\"", "{", "{}", "{}{}", "\u{feff}{}", &deep] {
        assert_invalid_token(present(&hmac_hub(), &signed_text(&header().to_string(), text)), text);
        assert_invalid_token(present(&hmac_hub(), &signed_text(text, &claims().to_string())), text);
    }
    let not_utf8 = b"{\"iss\":\"\xff\"}";
    let message = format!("{}.{}", encode(header().to_string()), encode(not_utf8));
    assert_invalid_token(present(&hmac_hub(), &format!("{message}.AAAA")), "not UTF-8");
}

#[test]
fn base64url_has_one_encoding_mercure_22() {
    // The last character of a signature of 32 bytes holds two unused bits: setting one must not
    // give a second valid encoding.
    let token = signed(&header(), &claims());
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = alphabet.iter().position(|byte| *byte == *token.as_bytes().last().unwrap()).unwrap();
    let respelled = format!("{}{}", &token[..token.len() - 1], char::from(alphabet[last + 1]));
    assert_invalid_token(present(&hmac_hub(), &respelled), "unused bits");
    assert_invalid_token(present(&hmac_hub(), &format!("{token}=")), "padding");
}

#[test]
fn a_token_of_the_maximum_size_is_valid_and_a_longer_one_is_not() {
    let padded = |bytes: usize| signed(&header(), &with(claims(), json!({ "pad": "x".repeat(bytes) })));
    let longest =
        (0..8000).rev().map(padded).find(|token| token.len() <= tidings_auth::CREDENTIAL_BYTES_MAX).unwrap();
    assert!(longest.len() > tidings_auth::CREDENTIAL_BYTES_MAX - 4);
    assert!(present(&hmac_hub(), &longest).is_ok());
    assert_invalid_token(present(&hmac_hub(), &padded(9000)), "too long");
}

#[test]
fn a_token_without_details_allows_nothing_mercure_28() {
    for claims in [without(claims(), "authorization_details"), with_details(json!([]))] {
        let access = present_claims(&claims).unwrap();
        assert!(access.publish.is_empty() && access.subscribe.is_empty());
    }
}

#[test]
fn known_actions_allow_and_unknown_ones_do_not_mercure_28() {
    let allowed = |actions: Value| {
        let access = present_claims(&with_details(json!([detail(json!({ "actions": actions }))]))).unwrap();
        (access.publish.covers(&topic("chat")), access.subscribe.covers(&topic("chat")))
    };
    assert_eq!(allowed(json!(["publish"])), (true, false));
    assert_eq!(allowed(json!(["subscribe"])), (false, true));
    assert_eq!(allowed(json!(["subscribe", "publish", "subscribe"])), (true, true));
    assert_eq!(allowed(json!(["dance", "Publish", "*"])), (false, false));
    assert_eq!(allowed(json!(["dance", "publish"])), (true, false));
}

#[test]
fn details_add_up_mercure_28() {
    let access = present_claims(&with_details(json!([
        detail(json!({ "actions": ["publish"], "topics": [{ "match": "a" }, { "match": "b" }] })),
        detail(json!({ "actions": ["subscribe"], "topics": [{ "match": "c" }] })),
        detail(json!({ "actions": ["publish"], "topics": [{ "match": "d" }] })),
    ])))
    .unwrap();
    let published = ["a", "b", "c", "d"].map(|text| access.publish.covers(&topic(text)));
    assert_eq!(published, [true, true, false, true]);
    assert!(access.subscribe.covers(&topic("c")) && !access.subscribe.covers(&topic("a")));
}

#[test]
fn matches_are_exact_by_default_mercure_28() {
    let covers = |grant: Value, text: &str| {
        let claims = with_details(json!([detail(json!({ "topics": [grant] }))]));
        present_claims(&claims).unwrap().subscribe.covers(&topic(text))
    };
    assert!(covers(json!({ "match": "/users/:id" }), "/users/:id"));
    assert!(!covers(json!({ "match": "/users/:id" }), "/users/1"));
    assert!(covers(json!({ "match": "/users/:id", "match_type": "exact" }), "/users/:id"));
    assert!(covers(json!({ "match": "/users/:id", "match_type": "urlpattern" }), "/users/1"));
    assert!(covers(json!({ "match": "*" }), "anything"));
    assert!(covers(json!({ "match": "*", "match_type": "urlpattern" }), "urn:a:b"));
    assert!(covers(json!({ "match": "a", "comment": 1 }), "a"), "other members are ignored");
}

#[test]
fn one_invalid_detail_invalidates_the_token_mercure_28() {
    let good = detail(json!({}));
    for bad in [
        without(detail(json!({})), "actions"),
        detail(json!({ "actions": null })),
        detail(json!({ "actions": [] })),
        detail(json!({ "actions": "publish" })),
        detail(json!({ "actions": [""] })),
        detail(json!({ "actions": ["publish", 1] })),
        detail(json!({ "actions": ["publish", null] })),
        without(detail(json!({})), "topics"),
        detail(json!({ "topics": null })),
        detail(json!({ "topics": [] })),
        detail(json!({ "topics": "chat" })),
        detail(json!({ "topics": ["chat"] })),
        detail(json!({ "topics": [null] })),
        detail(json!({ "topics": [{}] })),
        detail(json!({ "topics": [{ "match": null }] })),
        detail(json!({ "topics": [{ "match": "" }] })),
        detail(json!({ "topics": [{ "match": 1 }] })),
        detail(json!({ "topics": [{ "match": ["chat"] }] })),
        detail(json!({ "topics": [{ "match": "a\nb" }] })),
        detail(json!({ "topics": [{ "match": "a\u{200d}b" }] })),
        detail(json!({ "topics": [{ "match": "chat" }, { "match": "" }] })),
        detail(json!({ "topics": [{ "match": "chat", "match_type": null }] })),
        detail(json!({ "topics": [{ "match": "chat", "match_type": "" }] })),
        detail(json!({ "topics": [{ "match": "chat", "match_type": "regexp" }] })),
        detail(json!({ "topics": [{ "match": "chat", "match_type": "URLPattern" }] })),
        detail(json!({ "topics": [{ "match": "chat", "match_type": 1 }] })),
        detail(json!({ "topics": [{ "match": "/(", "match_type": "urlpattern" }] })),
        detail(json!({ "topics": [{ "match": "", "match_type": "urlpattern" }] })),
        detail(json!({ "payload": null })),
        detail(json!({ "payload": "x" })),
        detail(json!({ "payload": [] })),
        detail(json!({ "actions": ["dance"], "topics": [] })),
    ] {
        assert_invalid_token(present_claims(&with_details(json!([good, bad]))), &bad.to_string());
        assert_invalid_token(present_claims(&with_details(json!([bad, good]))), &bad.to_string());
    }
}

#[test]
fn details_of_other_types_are_ignored_mercure_28() {
    let foreign = json!([
        { "type": "payment", "actions": 1, "topics": null, "payload": "x" },
        { "type": "" },
        { "type": "https://mercure.rocks/authorization-detail/", "actions": ["publish"], "topics": [{ "match": "*" }] },
        { "type": "https://MERCURE.rocks/authorization-detail", "actions": [[]] },
        detail(json!({})),
    ]);
    let access = present_claims(&with_details(foreign)).unwrap();
    assert!(access.publish.covers(&topic("chat")) && !access.publish.covers(&topic("other")));
}

#[test]
fn details_without_a_type_invalidate_the_token() {
    for details in [
        json!(null),
        json!({}),
        json!("x"),
        json!([1]),
        json!([null]),
        json!([[]]),
        json!([{}]),
        json!([{ "type": 1 }]),
    ] {
        assert_invalid_token(present_claims(&with_details(details.clone())), &details.to_string());
    }
}

#[test]
fn the_text_of_a_pattern_is_compared_as_if_it_were_a_topic_mercure_39() {
    let pattern = |text: &str| json!([{ "match": text, "match_type": "urlpattern" }]);
    let access = present_claims(&with_details(json!([
        detail(json!({ "topics": pattern("/(a|b)/:id"), "payload": { "n": 1 } })),
        detail(json!({ "topics": pattern("/:kind/:id"), "payload": { "n": 2 } })),
        detail(json!({ "topics": pattern("*"), "payload": { "n": 3 } })),
    ])))
    .unwrap();
    let number = |text: &str| {
        let matcher = tidings_topic::Validator::default().pattern(text).unwrap();
        access.payload(&matcher).map(|payload| payload["n"].clone())
    };
    assert_eq!(number("/(a|b)/:id"), Some(json!(1)), "the same pattern");
    assert_eq!(number("/rooms/:id"), Some(json!(2)));
    assert_eq!(number("https://example.com/:a/:b/:c"), Some(json!(3)));
    assert_eq!(access.payload(&Matcher::Any).map(|payload| payload["n"].clone()), Some(json!(3)));
    assert!(access.has_payloads() && !present_claims(&claims()).unwrap().has_payloads());
}

#[test]
fn the_payload_is_of_the_first_detail_covering_the_topic_mercure_39() {
    let access = present_claims(&with_details(json!([
        detail(json!({ "actions": ["publish"], "payload": { "n": 0 } })),
        detail(json!({ "topics": [{ "match": "a" }], "payload": { "n": 1 } })),
        detail(json!({ "topics": [{ "match": "*" }], "payload": { "n": 2 } })),
        detail(json!({ "topics": [{ "match": "b" }], "payload": { "n": 3 } })),
    ])))
    .unwrap();
    let number =
        |text: &str| access.payload(&Matcher::Exact(topic(text))).map(|payload| payload["n"].clone());
    assert_eq!(number("a"), Some(json!(1)));
    assert_eq!(number("b"), Some(json!(2)));
    assert_eq!(present_claims(&claims()).unwrap().payload(&Matcher::Exact(topic("chat"))), None);
}

// Regression: such a token was valid and allowed nothing: its holder was answered 200 and received
// no private event.
#[test]
fn a_token_of_only_the_older_revision_is_refused_with_the_reason() {
    for name in ["mercure", "https://mercure.rocks/"] {
        for rights in [json!({ "publish": ["*"], "subscribe": ["*"] }), json!({}), json!(null)] {
            let older = json!({ name: rights });
            let bare = without(claims(), "authorization_details");
            for token in [
                signed(&header(), &with(bare.clone(), older.clone())),
                // As issuers of that revision create them.
                signed(&json!({ "alg": "HS256", "typ": "JWT" }), &older),
                signed(&json!({ "alg": "HS256" }), &with(older.clone(), json!({ "exp": NOW + 60 }))),
            ] {
                let error = present(&hmac_hub(), &token).unwrap_err();
                assert_eq!((error.status().as_u16(), error.code()), (401, Some("invalid_token")));
                assert!(error.to_string().contains("`authorization_details`"), "{error}");
            }
            let both = present_claims(&with(claims(), older)).unwrap();
            assert!(both.publish.covers(&topic("chat")) && !both.publish.covers(&topic("other")));
        }
    }
}

#[test]
fn a_hub_without_an_issuer_accepts_no_token() {
    assert_invalid_token(present(&Authenticator::default(), &signed(&header(), &claims())), "no issuer");
}
