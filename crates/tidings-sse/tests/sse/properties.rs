//! The properties, as functions of their input: proptest calls them with generated input, the fuzz
//! targets with the fuzzer's.

use tidings_sse::{EventFields, Item, Limits, ParseError, ParsedEvent, Parser, chunk};

use super::reference;

/// Everything that the parser yields, and the failure that ends it, if any. The stream arrives in
/// parts of the given sizes, over and over; a size of 0 is an empty part, and no sizes at all means
/// all at once.
pub fn parse(parser: &mut Parser, stream: &[u8], part_sizes: &[u8]) -> (Vec<Item>, Option<ParseError>) {
    let mut items = Vec::new();
    for mut part in parts(stream, part_sizes) {
        while let Some(item) = parser.next(&mut part) {
            match item {
                Ok(item) => items.push(item),
                Err(failure) => return (items, Some(failure)),
            }
        }
        assert!(part.is_empty(), "the parser stops only when the input is used up");
    }
    (items, None)
}

/// The stream split into parts whose sizes repeat.
fn parts<'a>(mut stream: &'a [u8], part_sizes: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    if part_sizes.iter().any(|&size| size > 0) {
        let mut sizes = part_sizes.iter().cycle();
        while !stream.is_empty() {
            let size = usize::from(*sizes.next().expect("the sizes repeat forever")).min(stream.len());
            let (part, rest) = stream.split_at(size);
            parts.push(part);
            stream = rest;
        }
    } else {
        parts.push(stream);
    }
    parts
}

/// However a stream is split, the parser yields the same as the reference does for the complete
/// stream, and also for the stream after a reconnect.
pub fn assert_equals_reference(streams: &[&[u8]], part_sizes: &[u8]) {
    let mut parser = Parser::new();
    let mut last_event_id = String::new();
    for stream in streams {
        let (expected, expected_id) = reference::parse(stream, last_event_id);
        assert_eq!(parse(&mut parser, stream, part_sizes), (expected, None));
        assert_eq!(parser.last_event_id(), expected_id);
        parser.end_of_stream();
        last_event_id = expected_id;
    }
}

/// However a stream is split, the same items precede the same failure, and no text is larger than
/// allowed.
pub fn assert_limits_hold_at_any_cut(stream: &[u8], part_sizes: &[u8], limits: Limits) {
    let (items, failure) = parse(&mut Parser::with_limits(limits), stream, &[]);
    assert_eq!(parse(&mut Parser::with_limits(limits), stream, part_sizes), (items.clone(), failure));

    let (unlimited, _) = reference::parse(stream, String::new());
    assert!(unlimited.starts_with(&items), "a limit changes nothing before it is hit");
    assert!(failure.is_some() || unlimited == items, "nothing is left out without a failure");
    for item in items {
        match item {
            Item::Event(event) => {
                let named = if event.event_type == "message" { 0 } else { event.event_type.len() };
                let id = if event.has_id { event.last_event_id.len() } else { 0 };
                assert!(event.data.len() + named + id <= limits.event_bytes_max);
            }
            // Each invalid byte may have become the three bytes of U+FFFD.
            Item::Comment(text) => assert!(text.len() <= 3 * limits.line_bytes_max),
            Item::Retry(_) => {}
        }
    }
}

/// An event is either refused, because of a control character in its id or type, or it arrives as
/// exactly one equal event; and all ways to encode it agree.
pub fn assert_round_trip(fields: &EventFields<'_>, part_sizes: &[u8]) {
    let has_control = |text: Option<&str>| text.is_some_and(|text| text.chars().any(char::is_control));
    let mut wire = Vec::new();
    if has_control(fields.event) || has_control(fields.id) {
        let error = fields.check().expect_err("control characters are refused");
        assert_eq!(fields.encode(&mut wire), Err(error));
        assert_eq!(fields.encode_chunk(&mut wire), Err(error));
        assert!(wire.is_empty(), "a refused event leaves no bytes behind");
        return;
    }
    assert_eq!(fields.check(), Ok(()));
    fields.encode(&mut wire).expect("the fields were checked");
    assert_eq!(fields.encoded_len(), wire.len());
    assert!(!wire.contains(&b'\r'), "lines end with LF alone");
    let blank_line = wire.windows(2).position(|two| two == b"\n\n");
    assert_eq!(blank_line, Some(wire.len() - 2), "the one blank line is the last");

    assert_chunks_hold(fields, &wire);
    assert_parses_to(fields, &wire, part_sizes);
}

fn assert_chunks_hold(fields: &EventFields<'_>, wire: &[u8]) {
    let mut expected = Vec::new();
    chunk(wire, &mut expected);
    let mut chunked = b"before".to_vec();
    let event = fields.encode_chunk(&mut chunked).expect("the fields were checked");
    assert_eq!(chunked[event], *wire);
    assert_eq!(chunked["before".len()..], expected);
}

fn assert_parses_to(fields: &EventFields<'_>, wire: &[u8], part_sizes: &[u8]) {
    let event = ParsedEvent {
        event_type: fields.event.filter(|event| !event.is_empty()).unwrap_or("message").to_owned(),
        data: fields.data.replace("\r\n", "\n").replace('\r', "\n"),
        last_event_id: fields.id.unwrap_or("earlier").to_owned(),
        has_id: fields.id.is_some(),
    };
    let expected: Vec<Item> =
        fields.retry_millis.map(Item::Retry).into_iter().chain([Item::Event(event)]).collect();
    let mut parser = Parser::new().resuming_from("earlier");
    assert_eq!(parse(&mut parser, wire, part_sizes), (expected, None));
}
