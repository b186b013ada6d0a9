//! Every encoded event arrives, and nothing else does.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tidings_sse::{EventFields, HEARTBEAT, Item, Parser, comment, preface};

use super::properties::{assert_round_trip, parse};

/// Text that tries to break the framing.
fn hostile_text() -> impl Strategy<Value = String> {
    let pieces = vec![
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\r\r",
        "data: ",
        "id: forged",
        "event: forged",
        "retry: 1",
        ":",
        " ",
        "\0",
        "\u{feff}",
        "\u{2028}",
        "\u{85}",
        "\u{b}",
        "é",
        "😀",
        "message",
        "long enough to fill a whole block ",
    ];
    let piece =
        prop_oneof![4 => proptest::sample::select(pieces).prop_map(str::to_owned), 1 => any::<String>()];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn name() -> impl Strategy<Value = Option<String>> {
    option::of(prop_oneof![3 => "[^\\p{Cc}]{0,20}", 1 => hostile_text()])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn an_event_is_refused_or_arrives_as_exactly_one_equal_event(
        event in name(),
        retry_millis in option::of(any::<u64>()),
        id in name(),
        data in hostile_text(),
        part_sizes in vec(0..20_u8, 0..6),
    ) {
        let fields = EventFields { event: event.as_deref(), retry_millis, id: id.as_deref(), data: &data };
        assert_round_trip(&fields, &part_sizes);
    }

    #[test]
    fn a_comment_is_never_anything_but_a_comment(text in hostile_text()) {
        let mut wire = Vec::new();
        comment(&text, &mut wire);
        let (items, failure) = parse(&mut Parser::new(), &wire, &[]);
        prop_assert_eq!(failure, None);
        let lines: Option<Vec<String>> = items
            .into_iter()
            .map(|item| if let Item::Comment(line) = item { Some(line) } else { None })
            .collect();
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        prop_assert_eq!(lines.map(|lines| lines.join("\n")), Some(text));
    }

    #[test]
    fn preface_and_heartbeats_do_not_change_events(retry in any::<u64>(), data in hostile_text()) {
        let fields = EventFields { id: Some("#1"), data: &data, ..EventFields::default() };
        let mut event = Vec::new();
        fields.encode(&mut event).expect("this id is valid");
        let with_others = [&preface(retry), HEARTBEAT, &event, HEARTBEAT, &event, HEARTBEAT].concat();

        let (items, failure) = parse(&mut Parser::new(), &with_others, &[]);
        prop_assert_eq!(failure, None);
        prop_assert!(items.contains(&Item::Retry(retry)));
        let events: Vec<&Item> = items.iter().filter(|item| matches!(item, Item::Event(_))).collect();
        let (alone, _) = parse(&mut Parser::new(), &event, &[]);
        prop_assert_eq!(events, [&alone[0], &alone[0]]);
    }
}

#[test]
fn long_data_arrives_unchanged() {
    let line = "0123456789abcdef".repeat(64 * 1024);
    assert_round_trip(&EventFields { data: &line, ..EventFields::default() }, &[255, 7]);
}
