//! The syntax of `since`.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tidings_topic::{Cursor, Epoch, ParseSinceError, Position, Since};

#[track_caller]
fn reads(word: &str, expected: Since) {
    assert_eq!(word.parse(), Ok(expected), "{word:?}");
}

fn id(text: &str) -> Since {
    Since::Id(text.to_owned())
}

#[test]
fn every_form_is_parsed() {
    reads("now", Since::Now);
    reads("earliest", Since::Earliest);
    reads("-50", Since::Last(50));
    reads("-0", Since::Last(0));
    reads("45s", Since::Ago(Duration::from_secs(45)));
    reads("10m", Since::Ago(Duration::from_secs(600)));
    reads("2h", Since::Ago(Duration::from_secs(7200)));
    reads("7d", Since::Ago(Duration::from_secs(604_800)));
    reads("2w", Since::Ago(Duration::from_secs(1_209_600)));
    reads("1h30m", Since::Ago(Duration::from_secs(5_400)));
    reads("1d2h3m4s", Since::Ago(Duration::from_secs(93_784)));
    reads("90m0s", Since::Ago(Duration::from_secs(5_400)));
    assert_eq!(Since::default(), Since::Now);
}

#[test]
fn other_text_is_refused_with_a_list_of_the_forms() {
    for text in [
        "",
        "1",
        "50",
        "urn:uuid:1",
        "order-42",
        "10",
        "10x",
        "m",
        "-",
        "-5a",
        "--5",
        "+5",
        "10 m",
        "1,5h",
        "1.5h",
        "Now",
        "EARLIEST",
        "日m",
        "-٥",
        "10M",
        "10min",
        "1h 30m",
        "30m1h",
        "1m1m",
        "1h30",
        "h1",
        "2026-11-29",
        "12:00",
        "2026-11-29T10:00:00",
        "2026-13-01T00:00:00Z",
        "01.2",
        "1.2.3",
        "id:",
        "a b",
    ] {
        assert_eq!(text.parse::<Since>(), Err(ParseSinceError), "{text:?}");
    }
    let message = ParseSinceError.to_string();
    for word in ["`now`", "`earliest`", "`-50`", "`10m`", "`1h30m`", "`2026-01-31T12:00:00Z`", "`id:`"] {
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn an_rfc_3339_time_is_accepted() {
    let at = |secs| Since::At(SystemTime::UNIX_EPOCH + Duration::from_secs(secs));
    reads("1970-01-01T00:01:00Z", at(60));
    reads("1970-01-01t00:01:00z", at(60));
    reads("1970-01-01T01:01:00+01:00", at(60));
    reads("2026-11-29T00:00:00-00:30", at(1_795_912_200));
}

#[test]
fn an_id_that_looks_like_another_form_needs_the_prefix() {
    for text in ["-50", "10m", "now", "earliest", "id:x", "#a", "a b"] {
        reads(&format!("id:{text}"), id(text));
    }
}

#[test]
fn a_count_above_the_limit_is_reduced() {
    for word in ["-10000", "-10001", "-18446744073709551616", &format!("-{}", "9".repeat(100))] {
        reads(word, Since::Last(Since::LAST_MAX));
    }
}

#[test]
fn a_duration_above_the_limit_is_reduced() {
    for unit in ["s", "m", "h", "d"] {
        for number in [u64::MAX.to_string(), "9".repeat(100)] {
            reads(&format!("{number}{unit}"), Since::Ago(Since::AGO_MAX));
        }
    }
}

#[test]
fn a_publishers_id_that_looks_generated_needs_the_prefix() {
    reads("1.2", id("#1.2"));
    reads("id:1.2", id("1.2"));
    reads("#order", id("#order"));
}

#[test]
fn last_event_id_accepts_earliest_and_ids_only() {
    assert_eq!(Since::from_last_event_id("earliest"), Since::Earliest);
    for text in ["now", "-50", "10m", "id:a", "#1.2", "1.2"] {
        assert_eq!(Since::from_last_event_id(text), id(text));
    }
}

proptest! {
    #[test]
    fn a_generated_id_is_parsed_with_and_without_its_hash(epoch: u64, position: u128) {
        let cursor = Cursor { epoch: Epoch::from_u64(epoch), position: Position::from_bytes(position.to_be_bytes()) };
        let generated = cursor.to_event_id();
        prop_assert_eq!(generated.as_str().parse(), Ok(id(generated.as_str())));
        prop_assert_eq!(generated.as_str()[1..].parse(), Ok(id(generated.as_str())));
    }

    #[test]
    fn no_other_text_is_taken_for_an_id(word in any::<String>()) {
        let is_id = word.starts_with('#') || word.len() > 3 && word.starts_with("id:") || Cursor::parse(&word).is_ok();
        prop_assert_eq!(matches!(word.parse(), Ok(Since::Id(_))), is_id);
    }

    #[test]
    fn every_id_can_be_written_with_the_prefix(text in any::<String>()) {
        prop_assume!(!text.is_empty());
        prop_assert_eq!(format!("id:{text}").parse(), Ok(id(&text)));
    }
}
