//! Which events are valid, and the messages of refusals. The numbers are those of the checks
//! derived from the Mercure protocol, "Publication": 13 topics, 14 reserved names, 17 ids, 18 types
//! and `retry`.

use proptest::prelude::*;
use tidings_topic::{Cursor, Epoch, EventId, NewEvent, Position, Topic, Validator};

fn hub_at(url: &str) -> Validator {
    Validator::new(url.parse().expect("a valid URL"))
}

/// Characters that no name contains: C0, DEL, C1 and format characters of every plane (category
/// Cf).
const REFUSED_CHARACTERS: &[char] = &[
    '\0',
    '\u{1}',
    '\t',
    '\n',
    '\u{b}',
    '\u{c}',
    '\r',
    '\u{1b}',
    '\u{1f}',
    '\u{7f}',
    '\u{80}',
    '\u{85}',
    '\u{9f}',
    '\u{ad}',
    '\u{600}',
    '\u{61c}',
    '\u{6dd}',
    '\u{70f}',
    '\u{180e}',
    '\u{200b}',
    '\u{200c}',
    '\u{200d}',
    '\u{200e}',
    '\u{202e}',
    '\u{2060}',
    '\u{2066}',
    '\u{feff}',
    '\u{fff9}',
    '\u{110bd}',
    '\u{1d173}',
    '\u{e0001}',
    '\u{e0041}',
    '\u{e007f}',
];

/// Characters next to the refused ones, which are allowed.
const ALLOWED_CHARACTERS: &[char] = &[
    ' ',
    '~',
    '\u{a0}',
    '\u{ac}',
    '\u{ae}',
    'é',
    'ß',
    '日',
    '\u{2028}',
    '\u{3000}',
    '\u{fffd}',
    '😀',
    '\u{10ffff}',
];

#[test]
fn a_topic_may_be_any_name() {
    let validator = Validator::default();
    for topic in
        ["chat", "user-42", "https://example.com/books/1", "urn:isbn:123", "a b", "日本", "", "mailto:a@b"]
    {
        assert_eq!(validator.topic(topic).is_ok(), !topic.is_empty(), "{topic}");
    }
}

#[test]
fn a_topic_is_kept_byte_by_byte_mercure_11() {
    let validator = Validator::default();
    for topic in ["HTTP://Example.com/%7Ea", "é", "e\u{301}", " a "] {
        assert_eq!(validator.topic(topic).expect("allowed").as_str(), topic);
    }
}

#[test]
fn an_event_without_a_topic_is_refused_mercure_13() {
    let refusal = Validator::default().event(NewEvent::default()).unwrap_err();
    assert_eq!(refusal.field(), "topic");
    assert!(!refusal.is_excess());
}

#[test]
fn the_first_topic_is_canonical_and_the_others_keep_their_order_mercure_13() {
    let event = Validator::default().event(NewEvent::new("a", "").also("c").also("b")).unwrap();
    assert_eq!(event.topics.iter().map(Topic::as_str).collect::<Vec<_>>(), ["a", "c", "b"]);
}

#[test]
fn one_bad_alternate_topic_refuses_the_event_mercure_14() {
    assert!(Validator::default().event(NewEvent::new("a", "").also("*")).is_err());
}

#[test]
fn more_topics_than_the_limit_are_an_excess_mercure_21() {
    let mut validator = Validator::default();
    validator.topics_max = 2;
    assert!(validator.event(NewEvent::new("a", "").also("b")).is_ok());
    let refusal = validator.event(NewEvent::new("a", "").also("b").also("c")).unwrap_err();
    assert!(refusal.is_excess());
    assert_eq!(refusal.to_string(), "the topic is given 3 times; the limit is 2");
}

#[test]
fn the_star_is_not_a_topic_mercure_14() {
    assert!(Validator::default().topic("*").is_err());
    assert!(Validator::default().topic("**").is_ok());
}

#[test]
fn control_and_format_characters_are_refused_in_every_name_mercure_14_17_18() {
    let validator = Validator::default();
    for &character in REFUSED_CHARACTERS {
        for name in [format!("{character}a"), format!("a{character}b"), format!("a{character}")] {
            assert!(validator.topic(&name).is_err(), "topic with {character:?}");
            assert!(validator.event_id(&name).is_err(), "id with {character:?}");
            assert!(validator.event_type(&name).is_err(), "type with {character:?}");
            assert!(validator.exact(&name).is_err(), "matcher with {character:?}");
            assert!(validator.pattern(&name).is_err(), "pattern with {character:?}");
        }
    }
}

#[test]
fn characters_next_to_the_refused_ones_are_allowed() {
    let validator = Validator::default();
    for &character in ALLOWED_CHARACTERS {
        let name = format!("a{character}b");
        assert!(validator.topic(&name).is_ok(), "topic with {character:?}");
        assert!(validator.event_id(&name).is_ok(), "id with {character:?}");
        assert!(validator.event_type(&name).is_ok(), "type with {character:?}");
        assert!(validator.exact(&name).is_ok(), "matcher with {character:?}");
    }
}

#[test]
fn the_path_of_the_hub_is_reserved_in_every_spelling_mercure_14() {
    let validator = hub_at("https://hub.example/.well-known/mercure");
    for topic in [
        // As it is, with query, fragment and final slash, and below.
        "/.well-known/mercure",
        "/.well-known/mercure/",
        "/.well-known/mercure?a=b",
        "/.well-known/mercure#a",
        "/.well-known/mercure/subscriptions",
        "/.well-known/mercure/subscriptions/exact/a/urn%3Auuid%3A1",
        "/.well-known/mercure//",
        // Any host and any scheme.
        "https://hub.example/.well-known/mercure",
        "http://other.example:8080/.well-known/mercure/a",
        "HTTPS://user:secret@OTHER.example/.well-known/mercure",
        "ws://other.example/.well-known/mercure",
        "ftp://other.example/.well-known/mercure",
        "foo://other.example/.well-known/mercure",
        "foo:/.well-known/mercure",
        "file:///.well-known/mercure",
        "//other.example/.well-known/mercure",
        // WHATWG URLs: backslashes, missing slashes, blanks around.
        "\\.well-known\\mercure",
        "https:\\\\other.example\\.well-known\\mercure\\a",
        "https:other.example/.well-known/mercure",
        "https:mercure",
        "http:other.example/.well-known/mercure",
        "https:/.well-known/mercure",
        " /.well-known/mercure ",
        // Dot segments, plain and encoded.
        "/a/../.well-known/mercure",
        "/../../.well-known/./mercure",
        "/a/%2e%2e/.well-known/mercure",
        "/a/%2E%2e/.well-known/%2e/mercure",
        "/a/.%2e/.well-known/mercure/%2e",
        "/.well-known/mercure/a/..",
        "https://other.example/a/..\\.well-known/mercure",
        // Unreserved characters, encoded with digits of either case.
        "/.well-known/%6Dercure",
        "/.well-known/%6dercure",
        "/%2Ewell-known/m%65rcure/a",
        "/%2e%77ell%2Dknown/mercur%65",
        "/%2e%57ell-known/../.well-known/mercure",
        // Relative to the hub itself.
        "mercure",
        "mercure/a",
        "./mercure",
        "m%65rcure",
        "a/../mercure",
        "?a",
        "#general",
        "mercure?a",
    ] {
        assert!(validator.topic(topic).is_err(), "{topic} is reserved");
    }
}

#[test]
fn names_that_only_look_like_the_hub_are_free_mercure_14() {
    let validator = hub_at("https://hub.example/.well-known/mercure");
    for topic in [
        "/.well-known/mercure2",
        "/.well-known/mercur",
        "/.well-known/Mercure",
        "/.well-known",
        "/.well-known/",
        "/.well-known//mercure",
        "/.well-known/mercure/../other",
        "/.well-known/%6Dercure2",
        "/.well-known/%256Dercure",
        "/.well-known%2Fmercure",
        "/.well-known/mercure%2Fa",
        "/a/.well-known/mercure",
        "//.well-known/mercure",
        "urn:mercure",
        "mailto:mercure",
        "https://hub.example/?topic=/.well-known/mercure",
        "https://hub.example/#/.well-known/mercure",
        "/mercure",
        "mercures",
        "http://[not-a-url/.well-known/mercure",
        "chat/general",
    ] {
        assert!(validator.topic(topic).is_ok(), "{topic} is free");
    }
}

#[test]
fn encodings_in_the_path_of_the_hub_are_normalized_mercure_14() {
    let validator = hub_at("https://hub.example/caf%c3%A9/%7Ehub/");
    for topic in ["/café/~hub", "/caf%C3%a9/~hub/a", "/caf%C3%A9/%7ehub", "https://a.example/café/%7Ehub/"]
    {
        assert!(validator.topic(topic).is_err(), "{topic} is reserved");
    }
    assert!(validator.topic("/cafe/~hub").is_ok());
}

#[test]
fn a_hub_reserves_only_its_own_path_mercure_14() {
    let validator = hub_at("https://hub.example/hub");
    for topic in ["/hub", "hub", "/hub/a", "#a", "https://a.example/hub?b", "/%68ub"] {
        assert!(validator.topic(topic).is_err(), "{topic} is reserved");
    }
    for topic in ["/.well-known/mercure", "mercure", "/hubs", "/a/hub", "/"] {
        assert!(validator.topic(topic).is_ok(), "{topic} is free");
    }
}

#[test]
fn a_hub_at_the_root_reserves_the_root_and_the_subscriptions_mercure_14() {
    for validator in [hub_at("https://hub.example/"), hub_at("https://hub.example")] {
        for topic in ["/", "?a", "#a", "..", "https://a.example", "/subscriptions", "subscriptions/exact/a/b"]
        {
            assert!(validator.topic(topic).is_err(), "{topic} is reserved");
        }
        for topic in ["chat", "/chat", "/subscriptions2", "/a/subscriptions", "/.well-known/mercure", "urn:a"]
        {
            assert!(validator.topic(topic).is_ok(), "{topic} is free");
        }
    }
}

#[test]
fn a_refusal_of_a_reserved_topic_names_its_path() {
    let refusal = Validator::default().topic("#general").unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "the topic `#general` is reserved: relative to the hub it resolves to the path `/.well-known/mercure`, \
         where only the hub publishes; choose another name"
    );
}

#[test]
fn an_id_is_kept_unchanged_mercure_17() {
    let validator = Validator::default();
    for id in ["1", "urn:uuid:2c1f", "not an IRI", "é", "a#b", "Earliest", "earliest2", "-50", "now", "😀"]
    {
        let id_kept = validator.event_id(id).expect(id);
        assert_eq!(id_kept.as_str(), id);
        assert!(!id_kept.is_generated());
    }
}

#[test]
fn ids_reserved_for_the_hub_are_refused_mercure_17() {
    let validator = Validator::default();
    for id in ["#", "#a", "#1.2", "earliest", ""] {
        assert!(validator.event_id(id).is_err(), "{id:?}");
    }
}

// A browser sends the id back in the header `Last-Event-ID`, from which HTTP strips spaces and tabs
// (RFC 9110, section 5.5). The stripped id was unknown at each reconnect, which caused a false gap
// notice and a replay of the complete history.
#[test]
fn an_ephemeral_event_cannot_have_an_id_of_its_own() {
    let event = |new: NewEvent| Validator::default().event(new.ephemeral());
    assert!(event(NewEvent::new("chat", "x")).expect("valid").ephemeral);
    let refused = event(NewEvent::new("chat", "x").id("own")).expect_err("nobody could resume from it");
    assert_eq!(refused.field(), "id");
    assert!(refused.to_string().starts_with("the id `own` is of an ephemeral event"), "{refused}");
}

#[test]
fn an_id_that_a_header_does_not_preserve_is_refused() {
    let validator = Validator::default();
    for blank in [" ", "\t", "  ", "\u{a0}", "\u{2028}", "\u{3000}"] {
        for id in [format!("a{blank}"), format!("{blank}a"), format!("{blank}a{blank}"), blank.to_owned()] {
            let refused = validator.event_id(&id).expect_err(&id);
            assert_eq!(refused.field(), "id", "{id:?}");
        }
    }
    let refused = validator.event_id("a ").unwrap_err().to_string();
    assert!(refused.contains("white space"), "{refused}");
}

#[test]
fn an_id_has_at_most_1024_bytes() {
    let validator = Validator::default();
    assert!(validator.event_id(&"a".repeat(1024)).is_ok());
    assert!(validator.event_id(&"é".repeat(512)).is_ok());
    assert!(validator.event_id(&"a".repeat(1025)).is_err());
    assert!(validator.event_id(&format!("a{}", "é".repeat(512))).is_err());
}

#[test]
fn a_type_has_at_most_1024_bytes() {
    let validator = Validator::default();
    assert!(validator.event_type(&"a".repeat(1024)).is_ok());
    assert!(validator.event_type(&"a".repeat(1025)).is_err());
}

#[test]
fn the_types_of_notices_are_refused_mercure_18() {
    for reserved in ["mercure", "tidings"] {
        assert_eq!(Validator::default().event_type(reserved).unwrap_err().field(), "type");
    }
}

#[test]
fn message_and_the_empty_type_mean_no_type() {
    for none in ["message", ""] {
        assert_eq!(Validator::default().event_type(none), Ok(None));
    }
    let event = Validator::default().event(NewEvent::new("a", "").event_type("message")).unwrap();
    assert_eq!(event.event_type, None);
}

#[test]
fn other_types_are_kept() {
    for name in ["greeting", "Mercure", "mercure2", "message ", "日本"] {
        assert_eq!(Validator::default().event_type(name).unwrap().unwrap().as_str(), name);
    }
}

#[test]
fn retry_is_ascii_digits_and_nothing_else_mercure_18() {
    let validator = Validator::default();
    for wrong in ["", "+5", " 5", "5 ", "-5", "5.0", "5e3", "0x5", "٥", "５", "five", "5\n"] {
        assert_eq!(validator.retry_millis(wrong).unwrap_err().field(), "retry", "{wrong:?}");
    }
    for (text, millis) in [("500", 500), ("03000", 3000), ("2147483647", 2_147_483_647)] {
        assert_eq!(validator.retry_millis(text), Ok(millis));
    }
}

#[test]
fn a_retry_that_overflows_timers_is_reduced() {
    let validator = Validator::default();
    for huge in ["2147483648", "18446744073709551615", "18446744073709551616", &"9".repeat(5000)] {
        assert_eq!(validator.retry_millis(huge), Ok(Validator::RETRY_MILLIS_MAX));
    }
    let event = validator.event(NewEvent::new("a", "").retry_millis(u64::MAX)).unwrap();
    assert_eq!(event.retry_millis, Some(Validator::RETRY_MILLIS_MAX));
}

// `retry: 0` made all subscribers of a topic reconnect without a pause.
#[test]
fn a_retry_below_the_minimum_is_raised() {
    let validator = Validator::default();
    for short in ["0", "1", "499", "000"] {
        assert_eq!(validator.retry_millis(short), Ok(Validator::RETRY_MILLIS_MIN), "{short}");
    }
    let event = validator.event(NewEvent::new("a", "").retry_millis(0)).unwrap();
    assert_eq!(event.retry_millis, Some(500));
}

#[test]
fn a_topic_is_at_most_as_long_as_a_matcher() {
    let validator = Validator::default();
    let [longest, longer] = [0, 1].map(|more| "a".repeat(Validator::TOPIC_BYTES_MAX + more));
    assert!(validator.topic(&longest).is_ok() && validator.exact(&longest).is_ok());
    let refusal = validator.topic(&longer).unwrap_err();
    assert!(refusal.is_excess(), "HTTP answers 413 to a publisher");
    assert!(refusal.to_string().contains("has 4097 bytes; the limit is 4096"), "{refusal}");
    let alternate = NewEvent::new("a", "").also(&longer);
    assert_eq!(validator.event(alternate).unwrap_err(), refusal);
    // A longer topic in an older log is restored.
    assert!(Topic::from_stored(&longer).is_some());
}

#[test]
fn a_refusal_quotes_little_and_forges_no_line() {
    let validator = Validator::default();
    let refusal = validator.topic(&format!("a\r\n\u{1b}[31m{}", "x".repeat(4_000))).unwrap_err().to_string();
    assert!(refusal.chars().count() < 400, "{refusal}");
    assert!(!refusal.chars().any(char::is_control), "{refusal}");
    assert!(refusal.contains("U+000D"), "{refusal}");
}

proptest! {
    #[test]
    fn valid_names_contain_no_refused_character(name in any::<String>()) {
        let validator = Validator::default();
        let bad = name.contains(REFUSED_CHARACTERS) || name.contains(char::is_control);
        let accepted = validator.topic(&name).is_ok() || validator.event_id(&name).is_ok();
        prop_assert!(!(bad && accepted));
    }

    #[test]
    fn no_spelling_of_the_hub_path_is_accepted(
        scheme in prop::sample::select(&["", "http://a.example", "https:\\\\b", "foo://c", "//d:1"][..]),
        detour in prop::sample::select(&["", "/x/..", "/x/%2e%2E", "/.", "/%2e", "\\y\\..", "/x/y/../.."][..]),
        encoded in prop::collection::vec((any::<bool>(), any::<bool>()), 19),
        tail in prop::sample::select(&["", "/", "?a", "#a", "/a/b", "/./a"][..]),
    ) {
        // The reserved path with each letter plain, or encoded with digits of either case. Only for
        // web schemes are backslashes slashes.
        prop_assume!(!(scheme.starts_with("foo") && detour.contains('\\')));
        let path: String = "/.well-known/mercure".bytes().skip(1).zip(&encoded).map(|(byte, &(encode, upper))| {
            match (encode && byte != b'/', upper) {
                (false, _) => char::from(byte).to_string(),
                (true, true) => format!("%{byte:02X}"),
                (true, false) => format!("%{byte:02x}"),
            }
        }).collect();
        let topic = format!("{scheme}{detour}/{path}{tail}");
        prop_assert!(Validator::default().topic(&topic).is_err(), "{}", topic);
    }

    #[test]
    fn a_generated_id_is_refused_from_publishers(epoch: u64, position: u128) {
        let cursor = Cursor { epoch: Epoch::from_u64(epoch), position: Position::from_bytes(position.to_be_bytes()) };
        let id: EventId = cursor.to_event_id();
        prop_assert!(id.is_generated());
        prop_assert!(Validator::default().event_id(id.as_str()).is_err());
        let after_hash = &id.as_str()[1..];
        prop_assert!(after_hash.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte)));
    }
}
