//! Any credential, and any header and claims with a valid signature: nothing panics, only a valid
//! token authenticates, and a token without authorization details of this hub grants nothing.

#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use tidings_auth::{AuthConfig, Authenticator, IssuerConfig, IssuerKeyConfig};
use tidings_topic::Validator;

const SECRET: &str = "the shared secret of the fuzz target";
const NOW: u64 = 1_800_000_000;

static HUB: LazyLock<Authenticator> = LazyLock::new(|| {
    let issuer = IssuerConfig {
        issuer: "i".to_owned(),
        audiences: vec!["https://a".to_owned()],
        keys: vec![
            IssuerKeyConfig { kid: None, key: SECRET.into() },
            IssuerKeyConfig { kid: Some("k".to_owned()), key: SECRET.into() },
        ],
        ..IssuerConfig::default()
    };
    let config = AuthConfig { issuers: vec![issuer], ..AuthConfig::default() };
    Authenticator::new(config, &Validator::default()).expect("a valid configuration")
});

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    credential: &'a str,
    header: Option<&'a [u8]>,
    claims: &'a [u8],
    details_only: bool,
}

fuzz_target!(|input: Input<'_>| {
    let Input { credential, header, claims, details_only } = input;
    assert!(HUB.check(credential, NOW).is_err());
    let _ = tidings_auth::inspect(credential);

    let header = header.unwrap_or(br#"{"typ":"at+jwt","alg":"HS256"}"#);
    let mut text = claims.to_vec();
    if details_only {
        text = br#"{"iss":"i","aud":"https://a","exp":1800000060,"authorization_details":"#.to_vec();
        text.extend_from_slice(claims);
        text.push(b'}');
    }
    if let Ok(access) = HUB.check(&signed(header, &text), NOW) {
        assert!(access.expires_at.is_some_and(|expires_at| expires_at > NOW));
        let ours = String::from_utf8_lossy(&text).contains("mercure.rocks") || text.contains(&b'\\');
        assert!(ours || (access.publish.is_empty() && access.subscribe.is_empty()));
    }
});

fn signed(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256)
        .expect("computing an HMAC never fails");
    format!("{message}.{signature}")
}
