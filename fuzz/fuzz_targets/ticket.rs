//! Any credential in the form of a ticket, and any contents with a valid signature: nothing panics,
//! only a signed ticket authenticates, and it allows nothing but to subscribe, for a day at most.

#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use tidings_auth::{
    AuthConfig, Authenticator, Subject, TICKET_BYTES_MAX, TICKET_SECS_MAX, TicketSecretConfig,
};
use tidings_topic::Validator;

const SECRET: &str = "the shared secret of the fuzz target";
const NOW: u64 = 1_800_000_000;

static HUB: LazyLock<Authenticator> = LazyLock::new(|| {
    let secret = TicketSecretConfig { id: "s".to_owned(), secret: SECRET.into() };
    let config = AuthConfig { ticket_secrets: vec![secret], ..AuthConfig::default() };
    Authenticator::new(config, &Validator::default()).expect("a valid configuration")
});

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    unsigned: &'a str,
    contents: &'a [u8],
    members_only: bool,
    /// A bit of the ticket that is changed.
    changed: u16,
}

fuzz_target!(|input: Input<'_>| {
    let Input { unsigned, contents, members_only, changed } = input;
    for credential in [unsigned.to_owned(), format!("tt1.s.{unsigned}"), format!("tt1.{unsigned}")] {
        assert!(HUB.check(&credential, NOW).is_err());
    }

    let mut text = contents.to_vec();
    if members_only {
        text = br#"{"id":"i","issued_at":1800000000,"expires_at":1800000060,"#.to_vec();
        text.extend_from_slice(contents);
        text.push(b'}');
    }
    let signed = ticket(&text);
    let Ok(access) = HUB.check(&signed, NOW) else { return };
    assert!(signed.len() <= TICKET_BYTES_MAX);
    assert!(matches!(access.subject, Subject::Ticket(_)));
    assert!(access.publish.is_empty() && !access.admin);
    assert!(access.ticket_matchers().is_some_and(|matchers| !matchers.is_empty()));
    let expires_at = access.expires_at.expect("every ticket expires");
    let issued_at = access.issued_at.expect("every ticket has a time");
    assert!(NOW < expires_at && expires_at - issued_at <= TICKET_SECS_MAX);
    for text in [access.label.as_deref(), access.id.as_deref()].into_iter().flatten() {
        assert!(!text.contains(char::is_control));
    }

    let mut bytes = signed.into_bytes();
    let at = usize::from(changed) / 8 % bytes.len();
    bytes[at] ^= 1 << (changed % 8);
    if let Ok(other) = String::from_utf8(bytes) {
        assert!(HUB.check(&other, NOW).is_err(), "a changed ticket");
    }
});

fn ticket(contents: &[u8]) -> String {
    let message = format!("tt1.s.{}", URL_SAFE_NO_PAD.encode(contents));
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let mac = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256)
        .expect("computing an HMAC never fails");
    format!("{message}.{mac}")
}
