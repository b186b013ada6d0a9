//! The byte streams of the web platform tests, `eventsource/`, which browsers must pass. Each test
//! names its file there. Every stream is parsed all at once, byte by byte and with random splits,
//! and also by the reference, so that a mistake there cannot hide one in the parser.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tidings_sse::{Item, ParsedEvent, Parser};

use super::{properties, reference};

/// The parts of an event that a vector checks: type, data, id in force.
type Event<'a> = (&'a str, &'a str, &'a str);

fn message(data: &str) -> Event<'_> {
    ("message", data, "")
}

fn assert_events(stream: &[u8], expected: &[Event<'_>]) {
    assert_connections(&[stream], expected);
}

/// Parses streams that follow each other over reconnects.
fn assert_connections(streams: &[&[u8]], expected: &[Event<'_>]) {
    let mut last_event_id = String::new();
    let mut items = Vec::new();
    for stream in streams {
        let (more, id) = reference::parse(stream, last_event_id);
        items.extend(more);
        last_event_id = id;
    }
    assert_eq!(events(&items), expected, "the reference");

    assert_eq!(events(&parse(streams, &[])), expected, "whole");
    assert_eq!(events(&parse(streams, &[1])), expected, "byte by byte");
    TestRunner::default()
        .run(&vec(1..40_u8, 1..10), |part_sizes| {
            let items = parse(streams, &part_sizes);
            prop_assert_eq!(events(&items), expected);
            Ok(())
        })
        .expect("random splits");
}

fn parse(streams: &[&[u8]], part_sizes: &[u8]) -> Vec<Item> {
    let mut parser = Parser::new();
    let mut items = Vec::new();
    for stream in streams {
        let (more, failure) = properties::parse(&mut parser, stream, part_sizes);
        assert_eq!(failure, None);
        items.extend(more);
        parser.end_of_stream();
    }
    items
}

fn events(items: &[Item]) -> Vec<Event<'_>> {
    items
        .iter()
        .filter_map(|item| match item {
            Item::Event(ParsedEvent { event_type, data, last_event_id, .. }) => {
                Some((event_type.as_str(), data.as_str(), last_event_id.as_str()))
            }
            _ => None,
        })
        .collect()
}

fn retries(stream: &[u8]) -> Vec<u64> {
    let items = parse(&[stream], &[1]);
    items
        .iter()
        .filter_map(|item| if let Item::Retry(millis) = item { Some(*millis) } else { None })
        .collect()
}

#[test]
fn event_data() {
    assert_events(
        b"data:msg\ndata: msg\n\n:\nfalsefield:msg\n\nfalsefield:msg\nData:data\n\ndata\n\ndata:end\n\n",
        &[message("msg\nmsg"), message(""), message("end")],
    );
}

#[test]
fn format_bom_one_mark_is_stripped_at_the_start_and_nowhere_else() {
    assert_events("\u{feff}data:1\n\n\u{feff}data:2\n\ndata:3\n\n".as_bytes(), &[message("1"), message("3")]);
}

#[test]
fn format_bom_2_a_second_mark_at_the_start_is_not_stripped() {
    assert_events("\u{feff}\u{feff}data:1\n\ndata:2\n\ndata:3\n\n".as_bytes(), &[message("2"), message("3")]);
}

#[test]
fn a_mark_is_stripped_again_after_a_reconnect() {
    let stream = "\u{feff}data:1\n\n".as_bytes();
    assert_connections(&[stream, stream], &[message("1"), message("1")]);
}

#[test]
fn format_comments() {
    let long = "x".repeat(2048);
    let stream = format!("data:1\r:\0\n:\r\ndata:2\n:{long}\rdata:3\n:data:fail\r:{long}\ndata:4\n\n");
    assert_events(stream.as_bytes(), &[message("1\n2\n3\n4")]);
}

#[test]
fn format_data_before_final_empty_line_is_discarded_with_its_id() {
    let stream = b"retry:1000\ndata:test1\n\nid:test\ndata:test2\n";
    assert_connections(&[stream, stream], &[message("test1"), message("test1")]);
}

#[test]
fn format_field_data() {
    assert_events(b"data:\n\ndata\ndata\n\ndata:test\n\n", &[message(""), message("\n"), message("test")]);
}

#[test]
fn format_field_event_empty_is_a_message() {
    assert_events(b"event: \ndata:data\n\n", &[message("data")]);
}

#[test]
fn format_field_event_names_one_event_only() {
    assert_events(b"event:test\ndata:x\n\ndata:x\n\n", &[("test", "x", ""), message("x")]);
}

#[test]
fn the_type_of_an_event_without_data_is_forgotten() {
    assert_events(b"event:test\n\ndata:x\n\n", &[message("x")]);
}

#[test]
fn the_last_of_several_types_wins() {
    assert_events(b"event:a\nevent:b\ndata:x\n\n", &[("b", "x", "")]);
}

#[test]
fn format_field_id_persists_over_reconnects_byte_for_byte() {
    assert_connections(
        &["id: …\nretry: 200\ndata: hello\n\n".as_bytes(), b"data: again\n\n"],
        &[("message", "hello", "…"), ("message", "again", "…")],
    );
    let mut parser = Parser::new();
    properties::parse(&mut parser, "id: …\nretry: 200\ndata: hello\n\n".as_bytes(), &[1]);
    assert_eq!(parser.last_event_id().as_bytes(), b"\xe2\x80\xa6");
}

#[test]
fn format_field_id_3_an_id_holds_until_another_comes() {
    assert_events(
        b"id: 1\ndata: 1\n\ndata: 2\n\nid: 2\ndata:3\n\ndata:4\n\n",
        &[("message", "1", "1"), ("message", "2", "1"), ("message", "3", "2"), ("message", "4", "2")],
    );
}

#[test]
fn format_field_id_3_an_empty_id_resets_it() {
    for reset in ["id:", "id"] {
        let stream = format!("id: 1\ndata: 1\n\n{reset}\ndata: 2\n\ndata: 3\n\n");
        assert_events(
            stream.as_bytes(),
            &[("message", "1", "1"), ("message", "2", ""), ("message", "3", "")],
        );
    }
}

#[test]
fn format_field_id_null_is_ignored() {
    for id in ["\0\0", "x\0", "\0x", "x\0x", " \0"] {
        let stream = format!("id:{id}\ndata:x\n\n");
        assert_events(stream.as_bytes(), &[message("x")]);
        let stream = format!("id: kept\nid:{id}\ndata:x\n\n");
        assert_events(stream.as_bytes(), &[("message", "x", "kept")]);
    }
}

#[test]
fn an_id_without_data_is_committed_by_its_blank_line() {
    assert_events(b"id: 1\n\ndata: x\n\n", &[("message", "x", "1")]);
}

#[test]
fn format_field_parsing() {
    assert_events(
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n",
        &[message("\0\n 2\n1\n3\n\n4")],
    );
}

#[test]
fn format_field_retry_is_decimal_whatever_it_begins_with() {
    let stream = b"retry:03000\ndata:x\n\n";
    assert_events(stream, &[message("x")]);
    assert_eq!(retries(stream), [3000]);
}

#[test]
fn format_field_retry_bogus_is_ignored() {
    let stream = b"retry:3000\nretry:1000x\ndata:x\n\n";
    assert_events(stream, &[message("x")]);
    assert_eq!(retries(stream), [3000]);
}

#[test]
fn format_field_retry_empty_is_ignored() {
    let stream = b"retry\ndata:test\n\n";
    assert_events(stream, &[message("test")]);
    assert_eq!(retries(stream), []);
}

#[test]
fn a_retry_holds_although_its_event_is_never_completed() {
    assert_eq!(retries(b"data:x\nretry:7\n"), [7]);
}

#[test]
fn format_field_unknown() {
    assert_events(
        b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n",
        &[message("test\n\ntest")],
    );
}

#[test]
fn format_leading_space() {
    assert_events(b"data:\ttest\rdata: \ndata:test\n\n", &[message("\ttest\n\ntest")]);
}

#[test]
fn format_newlines() {
    assert_events(b"data:test\r\ndata\ndata:test\r\n\r\n", &[message("test\n\ntest")]);
}

#[test]
fn format_null_character() {
    assert_events(b"data:\0\n\n", &[message("\0")]);
}

#[test]
fn format_utf_8() {
    assert_events("data:ok…\n\n".as_bytes(), &[message("ok…")]);
}

#[test]
fn each_maximal_subpart_of_invalid_utf_8_becomes_one_replacement() {
    // Unicode, "U+FFFD Substitution of Maximal Subparts": surrogates and overlong forms byte by
    // byte, a character cut short as one.
    assert_events(
        b"data:a\xf0\x9f\x98b\xed\xa0\x80c\xc0\xafd\xe2\x80\ndata:\x80\xff\n\n",
        &[message("a\u{fffd}b\u{fffd}\u{fffd}\u{fffd}c\u{fffd}\u{fffd}d\u{fffd}\n\u{fffd}\u{fffd}")],
    );
}

#[test]
fn unicode_separators_and_vertical_spaces_end_no_line() {
    let text = "a\u{2028}b\u{2029}c\u{85}d\u{b}e\u{c}f";
    assert_events(format!("data:{text}\n\n").as_bytes(), &[message(text)]);
}
