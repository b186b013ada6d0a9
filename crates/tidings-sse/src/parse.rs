//! From bytes, split anywhere, to events: HTML, "Parsing an event stream" and "Interpreting an
//! event stream".
//!
//! Bytes become lines, lines become fields, a blank line completes an event. Only an unfinished
//! line and an unfinished event are ever kept, each with a limit. Items are returned as the input
//! is consumed, so there is no queue between the two.

use std::fmt;

use bytes::Buf;

use crate::lines::line_break;

/// How much of an unfinished stream a [`Parser`] keeps. Beyond it the parser fails.
///
/// The defaults allow the largest event of a hub, 1 MiB of data, in a JSON frame that writes every
/// byte as six.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest line, without its end.
    pub line_bytes_max: usize,
    /// The largest event: data, type and id together, as text.
    pub event_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { line_bytes_max: 8 << 20, event_bytes_max: 8 << 20 }
    }
}

/// An incremental parser of one event stream.
///
/// Its output depends on the bytes alone, not on how they were split: a byte order mark, a CRLF or
/// a character may arrive in parts, and an event is complete as soon as the CR of its blank line is
/// there.
#[derive(Debug, Default)]
pub struct Parser {
    limits: Limits,
    /// The line whose end has not arrived yet.
    line: Vec<u8>,
    /// A line has ended. Before that the line may begin with the byte order mark.
    past_first_line: bool,
    /// The last byte was a CR. An LF right after it belongs to the same line end.
    after_carriage_return: bool,
    /// The event whose blank line has not arrived yet.
    block: Block,
    /// The id that the last blank line committed.
    last_event_id: String,
    failure: Option<ParseError>,
}

#[derive(Debug, Default)]
struct Block {
    event_type: String,
    /// Every line of data with an LF after it, as in the standard: so "no data" and "one empty
    /// line" differ.
    data: String,
    id: Option<String>,
}

/// An item of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An event with data.
    Event(ParsedEvent),
    /// The time that the client must wait before it reconnects. It holds from here on, whether or
    /// not the event that contains it is ever completed. A number beyond 64 bits is the largest of
    /// 64 bits.
    Retry(u64),
    /// A comment line without its colon and the one space after it.
    Comment(String),
}

/// An event as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedEvent {
    /// The type, `message` if the event has none.
    pub event_type: String,
    /// The data, its lines joined with LF.
    pub data: String,
    /// The id in force, set by this event or one before it. Empty if there is none.
    pub last_event_id: String,
    /// Whether this event itself set the id, even an empty one.
    pub has_id: bool,
}

impl Parser {
    /// A parser with the default [`Limits`].
    pub fn new() -> Self {
        Self::default()
    }

    /// A parser with custom limits.
    pub fn with_limits(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A parser for a client that already has an id and asks the server to resume from there:
    /// events without an id keep this one.
    #[must_use]
    pub fn resuming_from(mut self, last_event_id: impl Into<String>) -> Self {
        self.last_event_id = last_event_id.into();
        self
    }

    /// The id to reconnect with. Empty means: send none.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The stream has ended and another will follow, after a reconnect. The unfinished event is
    /// discarded together with its id; the id in force stays.
    pub fn end_of_stream(&mut self) {
        let last_event_id = std::mem::take(&mut self.last_event_id);
        *self = Self::with_limits(self.limits).resuming_from(last_event_id);
    }

    /// Consumes input up to the end of the next item, or all of it if no item ends there.
    ///
    /// Call it until it returns `None`, then pass more input. After an error the stream cannot be
    /// parsed any more: that call and every later one discards its input, and each call with input
    /// reports the error again, until [`end_of_stream`](Self::end_of_stream).
    pub fn next(&mut self, input: &mut impl Buf) -> Option<Result<Item, ParseError>> {
        if !input.has_remaining() {
            return None;
        }
        match self.failure.map_or_else(|| self.read_item(input), Err) {
            Ok(item) => item.map(Ok),
            Err(failure) => {
                input.advance(input.remaining());
                self.line = Vec::new();
                self.block = Block::default();
                self.failure = Some(failure);
                Some(Err(failure))
            }
        }
    }

    fn read_item(&mut self, input: &mut impl Buf) -> Result<Option<Item>, ParseError> {
        while input.has_remaining() {
            if let Some(item) = self.step(input)? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// Takes one line, or as much of it as has arrived.
    fn step(&mut self, input: &mut impl Buf) -> Result<Option<Item>, ParseError> {
        let bytes = input.chunk();
        if std::mem::take(&mut self.after_carriage_return) && bytes[0] == b'\n' {
            input.advance(1);
            return Ok(None);
        }
        let end = line_break(bytes);
        let part = &bytes[..end.unwrap_or(bytes.len())];
        if self.line.len() + part.len() > self.limits.line_bytes_max {
            return Err(ParseError::LineTooLong { line_bytes_max: self.limits.line_bytes_max });
        }
        let Some(end) = end else {
            self.line.extend_from_slice(part);
            input.advance(input.chunk().len());
            return Ok(None);
        };
        self.after_carriage_return = bytes[end] == b'\r';
        let item = if self.line.is_empty() {
            self.take_line(part)
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(part);
            let item = self.take_line(&line);
            // The next unfinished line reuses the memory.
            line.clear();
            self.line = line;
            item
        };
        input.advance(end + 1);
        item
    }

    fn take_line(&mut self, mut line: &[u8]) -> Result<Option<Item>, ParseError> {
        // "The UTF-8 decode algorithm strips one leading UTF-8 Byte Order Mark (BOM), if any."
        if !std::mem::replace(&mut self.past_first_line, true) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.is_empty() {
            return Ok(self.dispatch().map(Item::Event));
        }
        // A line without a colon is a field with an empty value; a line that begins with one is a
        // comment.
        let (field, value) = match line.iter().position(|&byte| byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"" => return Ok(Some(Item::Comment(decode(value)))),
            b"retry" => return Ok(parse_retry(value).map(Item::Retry)),
            b"event" => self.block.event_type = decode(value),
            b"data" => {
                self.block.data.push_str(&String::from_utf8_lossy(value));
                self.block.data.push('\n');
            }
            b"id" if !value.contains(&0) => self.block.id = Some(decode(value)),
            // "Otherwise: the field is ignored." Names are compared as bytes, case and all.
            _ => return Ok(None),
        }
        if self.block.text_bytes() > self.limits.event_bytes_max {
            return Err(ParseError::EventTooLarge { event_bytes_max: self.limits.event_bytes_max });
        }
        Ok(None)
    }

    /// What a blank line does. The id is committed even if the block has no data and so is no
    /// event.
    fn dispatch(&mut self) -> Option<ParsedEvent> {
        let Block { mut event_type, mut data, id } = std::mem::take(&mut self.block);
        let has_id = id.is_some();
        if let Some(id) = id {
            self.last_event_id = id;
        }
        // The LF after the last line is not data. Without one there was no line of data at all.
        data.pop()?;
        if event_type.is_empty() {
            event_type.push_str("message");
        }
        Some(ParsedEvent { event_type, data, last_event_id: self.last_event_id.clone(), has_id })
    }
}

impl Block {
    fn text_bytes(&self) -> usize {
        // The LF after the last line of data does not reach the client.
        self.event_type.len() + self.data.len().saturating_sub(1) + self.id.as_ref().map_or(0, String::len)
    }
}

/// Why the parser stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseError {
    /// The server sent a line beyond [`Limits::line_bytes_max`].
    LineTooLong {
        /// The limit.
        line_bytes_max: usize,
    },
    /// The server sent an event beyond [`Limits::event_bytes_max`].
    EventTooLarge {
        /// The limit.
        event_bytes_max: usize,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineTooLong { line_bytes_max } => {
                write!(f, "the stream contains a line of more than {line_bytes_max} bytes")
            }
            Self::EventTooLarge { event_bytes_max } => {
                write!(f, "the stream contains an event of more than {event_bytes_max} bytes")
            }
        }
    }
}

impl std::error::Error for ParseError {}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Invalid UTF-8 becomes U+FFFD, one for each maximal subpart. No character contains a line end, a
/// colon or a space, so decoding value by value gives what decoding the whole stream would.
fn decode(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// "If the field value consists of only ASCII digits", in base ten; anything else, or nothing, is
/// ignored.
fn parse_retry(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = value.iter().map(|digit| u64::from(digit - b'0'));
    Some(digits.fold(0, |number: u64, digit| number.saturating_mul(10).saturating_add(digit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(mut input: &[u8], parser: &mut Parser) -> Vec<String> {
        std::iter::from_fn(|| parser.next(&mut input))
            .map(|item| match item {
                Ok(Item::Event(event)) => event.data,
                other => panic!("{other:?} is not an event"),
            })
            .collect()
    }

    #[test]
    fn an_event_is_complete_at_the_carriage_return_of_its_blank_line() {
        let mut parser = Parser::new();
        assert_eq!(data(b"data:1\r\n\r", &mut parser), ["1"]);
        // The LF that follows ends no line of its own: the next event is complete.
        assert_eq!(data(b"\ndata:2\r", &mut parser), [""; 0]);
        assert_eq!(data(b"\n\n", &mut parser), ["2"]);
    }

    #[test]
    fn input_after_an_item_is_left_for_the_next_call() {
        let mut input = &b"data:1\n\ndata:2\n\n"[..];
        let mut parser = Parser::new();
        assert!(matches!(parser.next(&mut input), Some(Ok(Item::Event(_)))));
        assert_eq!(input, b"data:2\n\n");
    }

    #[test]
    fn an_input_in_several_pieces_of_memory_is_read_to_its_end() {
        let mut input = (&b"data:1\r"[..]).chain(&b"\ndata:2\n\n"[..]);
        let Some(Ok(Item::Event(event))) = Parser::new().next(&mut input) else {
            panic!("an event is there")
        };
        assert_eq!(event.data, "1\n2");
    }

    #[test]
    fn a_client_that_resumes_keeps_its_id_until_the_server_names_one() {
        let mut parser = Parser::new().resuming_from("7");
        assert_eq!(parser.last_event_id(), "7");
        let mut input = &b"data:x\n\nid:8\ndata:y\n\n"[..];
        let ids: Vec<_> = std::iter::from_fn(|| parser.next(&mut input))
            .map(|item| match item {
                Ok(Item::Event(event)) => (event.last_event_id, event.has_id),
                other => panic!("{other:?} is not an event"),
            })
            .collect();
        assert_eq!(ids, [("7".to_owned(), false), ("8".to_owned(), true)]);
    }

    #[test]
    fn a_retry_beyond_64_bits_is_the_largest_of_64_bits() {
        assert_eq!(parse_retry(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_retry(b"18446744073709551616"), Some(u64::MAX));
        assert_eq!(parse_retry(&[b'9'; 100]), Some(u64::MAX));
    }

    const LIMITS: Limits = Limits { line_bytes_max: 10, event_bytes_max: 8 };

    #[test]
    fn a_line_and_an_event_may_be_exactly_as_long_as_their_limits() {
        let mut parser = Parser::with_limits(LIMITS);
        assert_eq!(data(b"data:12345\n\ndata:123\ndata:4567\n\n", &mut parser), ["12345", "123\n4567"]);
    }

    #[test]
    fn a_line_without_end_fails_at_its_limit_and_is_not_kept() {
        let mut parser = Parser::with_limits(LIMITS);
        assert_eq!(parser.next(&mut &b"data:12345"[..]), None);
        let failure = ParseError::LineTooLong { line_bytes_max: 10 };
        assert_eq!(parser.next(&mut &b"6"[..]), Some(Err(failure)));
        assert_eq!(parser.line.capacity(), 0);
    }

    #[test]
    fn an_event_without_end_fails_at_its_limit_and_is_not_kept() {
        let failure = ParseError::EventTooLarge { event_bytes_max: 8 };
        // Even empty lines of data count, because each adds an LF.
        for line in [&b"data:1\n"[..], b"data\n"] {
            let mut parser = Parser::with_limits(LIMITS);
            let outcome = (0..10).find_map(|_| parser.next(&mut &line[..]));
            assert_eq!(outcome, Some(Err(failure)));
            assert_eq!(parser.block.data.capacity(), 0);
        }
    }

    #[test]
    fn a_type_and_an_id_count_towards_the_size_of_an_event() {
        let failure = ParseError::EventTooLarge { event_bytes_max: 8 };
        for stream in [&b"event:123\nid:456\ndata:789\n\n"[..], b"data:789\nid:456\nevent:123\n\n"] {
            let mut parser = Parser::with_limits(LIMITS);
            assert_eq!(parser.next(&mut &stream[..]), Some(Err(failure)));
        }
    }

    #[test]
    fn after_a_failure_all_input_is_refused_until_the_next_stream() {
        let mut parser = Parser::with_limits(LIMITS);
        let failure = ParseError::LineTooLong { line_bytes_max: 10 };
        let mut input = &b"id:1\n\n12345678901\ndata:1\n\n"[..];
        assert_eq!(parser.next(&mut input), Some(Err(failure)));
        assert_eq!((input, parser.next(&mut input)), (&b""[..], None));
        assert_eq!(parser.next(&mut &b"\n\ndata:1\n\n"[..]), Some(Err(failure)));

        parser.end_of_stream();
        assert_eq!(parser.last_event_id(), "1");
        assert_eq!(data(b"data:1\n\n", &mut parser), ["1"]);
        assert_eq!(parser.next(&mut &b"12345678901"[..]), Some(Err(failure)), "the limits stay");
    }
}
