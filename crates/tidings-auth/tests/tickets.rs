//! Tickets: the documented format, by test vectors that a program in another language made, and its
//! refusals.

mod support;

use std::net::IpAddr;

use http::{HeaderMap, header::COOKIE};
use proptest::prelude::*;
use serde::Deserialize;
use support::*;
use tidings_auth::{
    Access, AuthConfig, AuthError, Authenticator, COOKIE_NAME, CookieName, CredentialPlace, KeyConfig,
    MintTicketError, NewTicket, TICKET_BYTES_MAX, TicketSecretConfig, credential_missing,
    subscriber_credential_missing,
};
use tidings_topic::{Matcher, Validator};

const SECRET: &str = "a secret of the tests that is long enough for tickets";
const KEY: &str = "tk_a-secret-of-the-tests";

#[derive(Deserialize)]
struct Vectors {
    now: u64,
    secrets: Vec<TicketSecretConfig>,
    valid: Vec<Valid>,
    invalid: Vec<Invalid>,
}

#[derive(Deserialize)]
struct Valid {
    name: String,
    ticket: String,
    allows: Allowed,
}

#[derive(Deserialize)]
struct Allowed {
    id: String,
    expires_at: u64,
    topics: Vec<String>,
    patterns: Vec<String>,
    label: Option<String>,
    streams_max: Option<u32>,
    address: Option<IpAddr>,
}

#[derive(Deserialize)]
struct Invalid {
    name: String,
    ticket: String,
    /// A part of the reason.
    refused: String,
    #[serde(default)]
    expired: bool,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../tests/tickets/vectors.json")).expect("the vectors are JSON")
}

fn secret(id: &str, secret: &str) -> TicketSecretConfig {
    TicketSecretConfig { id: id.to_owned(), secret: secret.into() }
}

fn key(publish: &[&str], subscribe: &[&str]) -> KeyConfig {
    let matchers = |texts: &[&str]| texts.iter().map(|text| (*text).into()).collect();
    KeyConfig {
        name: "app".to_owned(),
        secret: KEY.into(),
        publish: matchers(publish),
        subscribe: matchers(subscribe),
        admin: false,
        streams_max: None,
    }
}

fn authenticator(config: AuthConfig) -> Authenticator {
    Authenticator::new(config, &Validator::default()).unwrap()
}

/// A hub with these secrets and a key that may subscribe to everything.
fn ticket_hub(secrets: Vec<TicketSecretConfig>) -> Authenticator {
    authenticator(AuthConfig {
        keys: vec![key(&[], &["*"])],
        ticket_secrets: secrets,
        ..AuthConfig::default()
    })
}

fn hour(topics: &[&str], patterns: &[&str]) -> NewTicket {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    NewTicket {
        topics: texts(topics),
        patterns: texts(patterns),
        issued_at: NOW,
        expires_at: NOW + 3_600,
        ..NewTicket::default()
    }
}

fn mint(hub: &Authenticator, ticket: &NewTicket) -> Result<String, MintTicketError> {
    let access = present(hub, KEY).unwrap();
    hub.mint_ticket(&access, ticket).map(|minted| minted.ticket)
}

fn minted() -> (Authenticator, String) {
    let hub = ticket_hub(vec![secret("1", SECRET)]);
    let ticket = mint(&hub, &hour(&["user-42"], &["/rooms/:room"])).unwrap();
    (hub, ticket)
}

#[test]
fn a_ticket_of_the_documented_format_is_accepted() {
    let Vectors { now, secrets, valid, .. } = vectors();
    let hub = ticket_hub(secrets);
    for Valid { name, ticket, allows } in valid {
        let access = hub.check(&ticket, now).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(access.publish.is_empty(), "{name}");
        let found: Vec<_> =
            access.ticket_matchers().unwrap().iter().map(|one| one.as_str().to_owned()).collect();
        assert_eq!(found, [allows.topics, allows.patterns].concat(), "{name}");
        assert_eq!(access.id.as_deref(), Some(allows.id.as_str()), "{name}");
        assert_eq!(access.label.as_deref(), allows.label.as_deref(), "{name}");
        assert_eq!(access.expires_at, Some(allows.expires_at), "{name}");
        assert_eq!(access.limits.streams_max.map(u32::from), allows.streams_max, "{name}");
        assert_eq!(access.limits.address, allows.address, "{name}");
    }
}

#[test]
fn any_other_ticket_is_refused_with_the_reason() {
    let Vectors { now, secrets, invalid, .. } = vectors();
    let hub = ticket_hub(secrets);
    for Invalid { name, ticket, refused, expired } in invalid {
        let error = hub.check(&ticket, now).expect_err(&name);
        assert_eq!((error.status().as_u16(), error.code()), (401, Some("invalid_token")), "{name}");
        assert!(error.to_string().contains(&refused), "{name}: {error}");
        assert_eq!(matches!(error, AuthError::Expired(_)), expired, "{name}");
        assert!(ticket.len() < 20 || !format!("{error:?}").contains(&ticket), "{name}");
    }
}

#[test]
fn a_ticket_with_any_byte_changed_is_refused() {
    let (hub, ticket) = minted();
    assert!(present(&hub, &ticket).is_ok());
    for at in 0..ticket.len() {
        for bit in 0..8 {
            let mut bytes = ticket.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            let refused = hub.check(&changed, NOW).map(|_| ());
            assert!(refused.is_err(), "bit {bit} of byte {at}");
        }
    }
    for length in 0..ticket.len() {
        assert!(hub.check(&ticket[..length], NOW).is_err(), "{length} bytes");
        assert!(hub.check(&ticket[length + 1..], NOW).is_err(), "without {length} bytes");
    }
}

proptest! {
    #[test]
    fn arbitrary_text_is_no_ticket_and_never_panics(text in "(tt1\\.)?[ -~é]{0,200}") {
        let (hub, _) = minted();
        prop_assert!(hub.check(&text, NOW).is_err());
    }

    /// Replacing, inserting and removing anything.
    #[test]
    fn an_edited_ticket_is_refused(at in any::<prop::sample::Index>(), removed in 0..5_usize, inserted in "[A-Za-z0-9_.=-]{0,4}") {
        let (hub, ticket) = minted();
        let at = at.index(ticket.len());
        let end = (at + removed).min(ticket.len());
        let edited = format!("{}{inserted}{}", &ticket[..at], &ticket[end..]);
        prop_assume!(edited != ticket);
        prop_assert!(hub.check(&edited, NOW).is_err());
    }

    /// Whatever a ticket is made of, it is refused as a whole or allows exactly that.
    #[test]
    fn a_minted_ticket_allows_what_it_was_made_for(
        topics in prop::collection::vec("[a-z/:*\"\\\\é ]{0,12}", 0..4),
        label in prop::option::of("[ -~é\n]{0,12}"),
        secs in 0..100_000_u64,
        streams_max in prop::option::of(1..5_u32),
    ) {
        let hub = ticket_hub(vec![secret("1", SECRET)]);
        let wanted = NewTicket {
            topics: topics.clone(),
            label: label.clone(),
            expires_at: NOW + secs,
            streams_max: streams_max.and_then(std::num::NonZeroU32::new),
            ..hour(&[], &[])
        };
        match mint(&hub, &wanted) {
            Err(error) => {
                let is_wrong = topics.is_empty()
                    || topics.iter().any(String::is_empty)
                    || label.is_some_and(|label| label.is_empty() || label.contains('\n'))
                    || !(1..=86_400).contains(&secs);
                prop_assert!(is_wrong, "{error}");
            }
            Ok(ticket) => {
                let access = hub.check(&ticket, NOW).unwrap();
                let found: Vec<_> = access.ticket_matchers().unwrap().iter().map(Matcher::as_str).collect();
                prop_assert_eq!(found, topics);
                prop_assert_eq!(access.label.as_deref(), label.as_deref());
                prop_assert_eq!(access.expires_at, Some(NOW + secs));
                prop_assert_eq!(access.limits.streams_max, wanted.streams_max);
                prop_assert!(hub.check(&ticket, NOW + secs).is_err());
            }
        }
    }
}

#[test]
fn the_first_secret_makes_tickets_and_each_verifies_its_own() {
    let (old, new) = (secret("old", SECRET), secret("new", "another secret that is long enough for it"));
    let before = ticket_hub(vec![old.clone()]);
    let rotated = ticket_hub(vec![new.clone(), old]);
    let ticket = mint(&before, &hour(&["a"], &[])).unwrap();
    assert!(present(&rotated, &ticket).is_ok());
    let renewed = mint(&rotated, &hour(&["a"], &[])).unwrap();
    assert!(renewed.starts_with("tt1.new."), "{renewed}");
    assert!(present(&before, &renewed).is_err());
    assert!(present(&ticket_hub(vec![new]), &ticket).is_err(), "the old secret was removed");
}

#[test]
fn every_ticket_has_an_id_of_its_own() {
    let (hub, ticket) = minted();
    let access = present(&hub, KEY).unwrap();
    let (one, two) = (hub.mint_ticket(&access, &hour(&["a"], &[])).unwrap(), mint(&hub, &hour(&["a"], &[])));
    assert_ne!(one.ticket, two.unwrap());
    let found = present(&hub, &one.ticket).unwrap();
    assert_eq!((found.id.as_deref(), found.issued_at), (Some(one.id.as_str()), Some(NOW)));
    assert_ne!(present(&hub, &ticket).unwrap().id.as_deref(), Some(one.id.as_str()));
    assert!(!format!("{one:?}").contains(&one.ticket));
}

#[test]
fn a_key_makes_tickets_for_what_it_covers_and_no_more() {
    let hub = |subscribe: &[&str]| {
        authenticator(AuthConfig {
            keys: vec![key(&["*"], subscribe)],
            ticket_secrets: vec![secret("1", SECRET)],
            ..AuthConfig::default()
        })
    };
    let some = hub(&["user-42", "pattern:/rooms/:room"]);
    for (topics, patterns, is_covered) in [
        (&["user-42"][..], &[][..], true),
        (&["/rooms/7"], &[], true),
        (&[], &["/rooms/:room"], true),
        (&["user-42", "/rooms/7"], &["/rooms/:room"], true),
        (&["user-43"], &[], false),
        (&["user-42", "user-43"], &[], false),
        (&["*"], &[], false),
        (&[], &["*"], false),
        // It includes nothing that the key does not cover, but that cannot be decided in general.
        (&[], &["/rooms/:r"], false),
        (&[], &["/rooms/7*"], false),
    ] {
        let made = mint(&some, &hour(topics, patterns));
        assert_eq!(made.is_ok(), is_covered, "{topics:?} {patterns:?} {made:?}");
        assert!(is_covered || matches!(made, Err(MintTicketError::NotCovered(_))), "{made:?}");
        assert!(mint(&hub(&["*"]), &hour(topics, patterns)).is_ok(), "{topics:?} {patterns:?}");
        assert!(mint(&hub(&[]), &hour(topics, patterns)).is_err(), "a key that only publishes");
    }
}

#[test]
fn only_a_key_makes_tickets() {
    let (hub, ticket) = minted();
    let of_ticket = present(&hub, &ticket).unwrap();
    assert_eq!(hub.mint_ticket(&of_ticket, &hour(&["user-42"], &[])), Err(MintTicketError::NotAKey));
    let of_token = present_claims(&claims()).unwrap();
    assert_eq!(hub.mint_ticket(&of_token, &hour(&["chat"], &[])), Err(MintTicketError::NotAKey));
    let anonymous = hub.mint_ticket(&Access::anonymous(), &hour(&["chat"], &[]));
    assert_eq!(anonymous, Err(MintTicketError::NotAKey));
}

#[test]
fn a_hub_without_a_secret_makes_no_tickets_and_names_the_setting() {
    let hub = ticket_hub(vec![]);
    let error = mint(&hub, &hour(&["a"], &[])).unwrap_err();
    assert!(error.to_string().contains("[[ticket_secret]]"), "{error}");
    let error = hub.check(&minted().1, NOW).unwrap_err();
    assert!(error.to_string().contains("[[ticket_secret]]"), "{error}");
}

#[test]
fn a_ticket_that_would_be_too_long_is_not_made() {
    let hub = ticket_hub(vec![secret("1", SECRET)]);
    let topics = |count: usize| (0..count).map(|number| format!("topic-{number:04}")).collect::<Vec<_>>();
    let of = |count| mint(&hub, &NewTicket { topics: topics(count), ..hour(&[], &[]) });
    assert!(of(100).unwrap().len() <= TICKET_BYTES_MAX);
    assert!(matches!(of(300), Err(MintTicketError::TooLong(bytes)) if bytes > TICKET_BYTES_MAX));
}

#[test]
fn a_pattern_or_topic_is_chosen_only_from_within_a_ticket() {
    let (hub, ticket) = minted();
    let access = present(&hub, &ticket).unwrap();
    let validator = Validator::default();
    let exact = |text| access.holds(&validator.exact(text).unwrap());
    let pattern = |text| access.holds(&validator.pattern(text).unwrap());
    assert!(exact("user-42") && exact("/rooms/7") && pattern("/rooms/:room"));
    assert!(!exact("user-4") && !exact("*") && !pattern("/rooms/:other") && !pattern("*"));
}

#[test]
fn an_address_is_one_of_ipv4_or_a_network_of_ipv6() {
    let hub = ticket_hub(vec![secret("1", SECRET)]);
    let allows = |address: &str, client: &str| {
        let address = Some(address.parse().unwrap());
        let ticket = mint(&hub, &NewTicket { address, ..hour(&["a"], &[]) }).unwrap();
        present(&hub, &ticket).unwrap().limits.allow_address(client.parse().ok())
    };
    assert!(allows("192.0.2.7", "192.0.2.7") && allows("192.0.2.7", "::ffff:192.0.2.7"));
    assert!(allows("::ffff:192.0.2.7", "192.0.2.7"));
    assert!(!allows("192.0.2.7", "192.0.2.8") && !allows("192.0.2.7", "2001:db8::7"));
    assert!(allows("2001:db8::7", "2001:db8::ffff:1") && !allows("2001:db8::7", "2001:db8:0:1::7"));
    assert!(!allows("192.0.2.7", "unknown"), "a client without an address");
}

#[test]
fn a_secret_is_long_and_nobody_elses() {
    let refused = |config: AuthConfig| {
        let error = Authenticator::new(config, &Validator::default()).unwrap_err();
        (error.setting().to_owned(), error.reason().to_owned())
    };
    let with = |ticket_secrets: Vec<_>| AuthConfig { ticket_secrets, ..AuthConfig::default() };
    let (setting, reason) = refused(with(vec![secret("1", &"x".repeat(31))]));
    assert_eq!(setting, "ticket_secret.1.secret");
    assert!(reason.contains("31 bytes") && reason.contains("`tidings ticket secret`"), "{reason}");
    for id in ["", "a.b", "a b", "é", &"x".repeat(65)] {
        assert_eq!(refused(with(vec![secret(id, SECRET)])).0, format!("ticket_secret.{id}.id"));
    }
    assert!(refused(with(vec![secret("1", SECRET), secret("1", SHARED_SECRET)])).1.contains("twice"));
    assert!(refused(with(vec![secret("1", SECRET), secret("2", SECRET)])).1.contains("another id"));
    let long_key = "tk_a-secret-of-the-tests-that-is-long-enough";
    let of_key = AuthConfig {
        keys: vec![KeyConfig { secret: long_key.into(), ..key(&["*"], &[]) }],
        ..with(vec![secret("1", long_key)])
    };
    assert!(refused(of_key).1.contains("is that of the key `app`"));
    let of_issuer =
        AuthConfig { issuers: vec![issuer(SHARED_SECRET, &[])], ..with(vec![secret("1", SHARED_SECRET)]) };
    assert!(refused(of_issuer).1.contains("issuer"));
    let many = (0..17).map(|number| secret(&number.to_string(), &format!("{SECRET} {number}"))).collect();
    assert!(refused(with(many)).1.contains("limit is 16"));
    let taken = AuthConfig {
        keys: vec![KeyConfig { secret: "tt1.a-key-that-looks-like-a-ticket".into(), ..key(&["*"], &[]) }],
        ..AuthConfig::default()
    };
    assert!(refused(taken).1.contains("would be taken for one"));
}

#[test]
fn the_configuration_shows_no_ticket_secret() {
    let config = AuthConfig { ticket_secrets: vec![secret("1", SECRET)], ..AuthConfig::default() };
    let hub = authenticator(config.clone());
    for text in [format!("{config:?}"), serde_json::to_string(&config).unwrap(), format!("{hub:?}")] {
        assert!(!text.contains(SECRET), "{text}");
    }
}

fn asked(
    hub: &Authenticator,
    bearer_of: Option<&str>,
    query: Option<&str>,
    cookie: Option<&str>,
) -> Result<Option<Access>, AuthError> {
    let mut headers = bearer_of.map(bearer).unwrap_or_default();
    headers.extend(cookie.map(|cookie| (COOKIE, cookie.parse().unwrap())));
    hub.authenticate(&headers, query, NOW)
}

/// The order of the places; what is in a weaker one is not even looked at.
#[test]
fn the_header_wins_over_the_ticket_and_the_ticket_over_the_cookie() {
    let (hub, ticket) = minted();
    let query = format!("topic=a&ticket={ticket}");
    let cookie = format!("a=b; {COOKIE_NAME}={KEY}");
    let wrong_cookie = format!("{COOKIE_NAME}=wrong");
    let place = |result: Result<Option<Access>, AuthError>| {
        let access = result.unwrap().unwrap();
        (access.subject.to_string(), access.presented_in)
    };
    let (by_key, by_ticket) = ("key app".to_owned(), "ticket".to_owned());
    assert_eq!(
        place(asked(&hub, Some(KEY), Some("ticket=wrong"), Some(&wrong_cookie))),
        (by_key.clone(), CredentialPlace::Header)
    );
    assert_eq!(
        place(asked(&hub, None, Some(&query), Some(&wrong_cookie))),
        (by_ticket.clone(), CredentialPlace::Parameter)
    );
    assert_eq!(place(asked(&hub, None, None, Some(&cookie))), (by_key, CredentialPlace::Cookie));
    // A ticket is a credential like any other, so it may be in each place.
    assert_eq!(place(asked(&hub, Some(&ticket), None, None)), (by_ticket.clone(), CredentialPlace::Header));
    let in_cookie = format!("{COOKIE_NAME}={ticket}");
    assert_eq!(place(asked(&hub, None, None, Some(&in_cookie))), (by_ticket, CredentialPlace::Cookie));
    for credential in [Some(KEY), None] {
        let error = asked(&hub, credential, Some(&format!("token=a&{query}")), None).unwrap_err();
        assert!(error.to_string().contains("`token`"), "{error}");
    }
}

#[test]
fn the_ticket_parameter_takes_one_ticket_and_nothing_else() {
    let (hub, ticket) = minted();
    for (query, status) in [
        ("ticket=".to_owned(), 400),
        (format!("ticket={ticket}&ticket={ticket}"), 400),
        (format!("ticket={KEY}"), 401),
        (format!("ticket={}", signed(&header(), &claims())), 401),
        (format!("ticket={ticket}x"), 401),
    ] {
        let error = asked(&hub, None, Some(&query), None).expect_err(&query);
        assert_eq!(error.status().as_u16(), status, "{query}: {error}");
        assert!(!error.to_string().contains(KEY), "{error}");
    }
    // Percent-encoding is that of the URL, not of the ticket.
    let encoded = ticket.replace('.', "%2E");
    assert!(asked(&hub, None, Some(&format!("ticket={encoded}")), None).unwrap().is_some());
}

#[test]
fn the_cookie_has_the_configured_name() {
    let named = |name: Option<&str>, public_url: &str| {
        let config = AuthConfig {
            keys: vec![key(&["*"], &[])],
            cookie_name: name.map_or_else(CookieName::default, |name| name.parse().unwrap()),
            ..AuthConfig::default()
        };
        Authenticator::new(config, &Validator::new(public_url.parse().unwrap())).unwrap()
    };
    let (tls, local) =
        ("https://hub.example/.well-known/mercure", "http://localhost:8080/.well-known/mercure");
    for (name, url, cookie, is_read) in [
        (None, tls, COOKIE_NAME, true),
        (None, tls, "mercure_access_token", false),
        (None, "http://hub.example/", "mercure_access_token", false),
        (None, local, COOKIE_NAME, true),
        (None, local, "mercure_access_token", true),
        (None, "http://127.0.0.1:8080/", "mercure_access_token", true),
        (None, "http://[::1]:8080/", "mercure_access_token", true),
        (Some("hub_token"), tls, "hub_token", true),
        (Some("__Host-hub"), local, "hub", true),
        (Some("hub_token"), tls, "Hub_Token", false),
        (Some("mercureAuthorization"), tls, "mercureAuthorization", true),
    ] {
        let asked = asked(&named(name, url), None, None, Some(&format!("a=b; {cookie}={KEY}")));
        assert_eq!(asked.expect(cookie).is_some(), is_read, "{name:?} {url} {cookie}");
    }
    // A client of another server, or of another configuration, learns of it.
    let error = asked(&named(Some("hub_token"), tls), None, None, Some(&format!("{COOKIE_NAME}={KEY}")));
    assert!(error.unwrap_err().to_string().contains(COOKIE_NAME));
    for name in ["", "a b", "a=b", "a;b", "é", "!"] {
        assert!(name.parse::<CookieName>().is_err(), "{name}");
    }
}

#[test]
fn a_cookie_is_never_ignored_and_never_ambiguous() {
    let (hub, _) = minted();
    for (cookie, status) in [
        (format!("{COOKIE_NAME}=wrong"), 401),
        (format!("{COOKIE_NAME}=wr ong"), 400),
        (format!("{COOKIE_NAME}=\"{KEY}\""), 400),
        (format!("{COOKIE_NAME}={}", "z".repeat(9_000)), 401),
        (format!("{COOKIE_NAME}={KEY}; {COOKIE_NAME}=other"), 400),
        ("mercureAuthorization=a.b.c".to_owned(), 401),
    ] {
        let error = asked(&hub, None, None, Some(&cookie)).expect_err(&cookie);
        assert_eq!(error.status().as_u16(), status, "{cookie}: {error}");
        assert!(!error.to_string().contains(KEY), "{error}");
    }
    for cookie in [format!("{COOKIE_NAME}="), format!("x{COOKIE_NAME}=a"), "session=1".to_owned()] {
        assert_eq!(asked(&hub, None, None, Some(&cookie)), Ok(None), "{cookie}");
    }
    // Set for two paths, and the same: no harm.
    assert!(
        asked(&hub, None, None, Some(&format!("{COOKIE_NAME}={KEY}; {COOKIE_NAME}={KEY}")))
            .unwrap()
            .is_some()
    );
    // HTTP/2 may send each pair in a field of its own (RFC 9113, section 8.2.3).
    let mut headers = HeaderMap::new();
    headers.append(COOKIE, "a=b".parse().unwrap());
    headers.append(COOKIE, format!("{COOKIE_NAME}={KEY}").parse().unwrap());
    assert!(hub.authenticate(&headers, None, NOW).unwrap().is_some());
}

#[test]
fn a_hint_of_what_is_missing_names_the_ticket() {
    assert!(subscriber_credential_missing().to_string().contains("`ticket`"));
    assert!(!credential_missing().to_string().contains("`ticket`"), "a ticket writes nothing");
}
