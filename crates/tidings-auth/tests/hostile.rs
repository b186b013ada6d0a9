//! Only a valid credential authenticates, and no input panics.

mod support;

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use proptest::prelude::*;
use support::*;
use tidings_auth::{Algorithm, AuthConfig, Authenticator, KeyConfig, SigningKey, inspect};
use tidings_topic::Validator;

const SECRET: &str = "tk_a-secret-of-the-tests";

fn everything_hub() -> Authenticator {
    let everything = vec!["*".into()];
    let key = KeyConfig {
        name: "app".to_owned(),
        secret: SECRET.into(),
        publish: everything.clone(),
        subscribe: everything,
        admin: false,
        streams_max: None,
    };
    let issuers = vec![issuer(SHARED_SECRET, &[Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512])];
    let config = AuthConfig { keys: vec![key], issuers, ..AuthConfig::default() };
    Authenticator::new(config, &Validator::default()).unwrap()
}

/// Arbitrary JSON, in which relevant names and values are frequent.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let names =
        ["type", "actions", "topics", "match", "match_type", "payload", "iss", "aud", "exp", "nbf", "sub"];
    let texts =
        [DETAIL_TYPE, "publish", "subscribe", "exact", "urlpattern", "*", "", ISSUER, AUDIENCE, "/(", "/:id"];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        prop::sample::select(texts.to_vec()).prop_map(Into::into),
        "\\PC{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let name = prop::sample::select(names.to_vec()).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::hash_map(name, inner, 0..4)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn random_headers_never_authenticate(bytes in prop::collection::vec(any::<u8>(), 0..80), scheme in any::<bool>()) {
        let bytes = if scheme { [b"Bearer ", &bytes[..]].concat() } else { bytes };
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
            prop_assert!(!matches!(everything_hub().authenticate(&headers, None, NOW), Ok(Some(_))));
        }
    }

    #[test]
    fn random_credentials_never_authenticate(text in "[A-Za-z0-9._~+/=-]{0,60}|\\PC{0,40}|([A-Za-z0-9_-]{0,20}\\.){2}[A-Za-z0-9_-]{0,20}") {
        prop_assert!(everything_hub().check(&text, NOW).is_err());
        let _ = inspect(&text);
    }

    #[test]
    fn a_token_with_one_changed_byte_never_authenticates(place in any::<prop::sample::Index>(), byte: u8) {
        let token = signed(&header(), &claims());
        let mut bytes = token.clone().into_bytes();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let Ok(text) = String::from_utf8(bytes) {
            prop_assert_eq!(everything_hub().check(&text, NOW).is_ok(), text == token);
            let _ = inspect(&text);
        }
    }

    #[test]
    fn a_token_with_removed_or_inserted_parts_never_authenticates(
        from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), put in "[A-Za-z0-9_.=-]{0,6}",
    ) {
        let token = signed(&header(), &claims());
        let (a, b) = (from.index(token.len() + 1), to.index(token.len() + 1));
        let changed = format!("{}{put}{}", &token[..a.min(b)], &token[a.max(b)..]);
        prop_assert_eq!(everything_hub().check(&changed, NOW).is_ok(), changed == token);
    }

    #[test]
    fn a_changed_secret_never_authenticates(place in any::<prop::sample::Index>(), byte in 0x21_u8..0x7f) {
        let mut bytes = SECRET.as_bytes().to_vec();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        let text = String::from_utf8(bytes).unwrap();
        prop_assert_eq!(everything_hub().check(&text, NOW).is_ok(), text == SECRET);
    }

    #[test]
    fn signed_nonsense_never_panics_or_allows_everything(header in json(), nonsense in json()) {
        let hub = everything_hub();
        let _ = hub.check(&signed(&header, &claims()), NOW);
        let _ = hub.check(&signed(&support::header(), &nonsense), NOW);
        if let Ok(access) = hub.check(&signed(&support::header(), &with_details(nonsense.clone())), NOW) {
            let named = nonsense.to_string().contains(DETAIL_TYPE);
            prop_assert!(named || (access.publish.is_empty() && access.subscribe.is_empty()));
        }
    }

    #[test]
    fn random_key_texts_are_refused_or_used_without_panic(text in any::<String>(), body in "[A-Za-z0-9+/]{0,200}") {
        for text in [text, format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----")] {
            let config = AuthConfig { issuers: vec![issuer(&text, &[])], ..AuthConfig::default() };
            let _ = Authenticator::new(config, &Validator::default());
            let _ = SigningKey::new(&text.replace("PUBLIC", "PRIVATE").as_str().into(), None);
        }
    }
}
