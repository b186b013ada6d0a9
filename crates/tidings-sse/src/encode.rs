//! From fields to bytes. Every length is known before the first byte is written, so that an
//! HTTP/1.1 chunk is written in place and nothing is built twice.

use std::fmt;
use std::ops::Range;

use crate::lines::lines;

/// The heartbeat: a comment with text and a single line end. A blank line after it makes several
/// clients emit phantom events, and a comment without text has broken others.
pub const HEARTBEAT: &[u8] = b": hb\n";

/// The chunk that ends an HTTP/1.1 body cleanly, so that the reader can distinguish the end from a
/// broken connection.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// One event, borrowed.
///
/// `id` and `event` have been validated before they get here, but the encoder does not rely on it:
/// every method that writes refuses what could break the framing.
///
/// A line break in `data` is sent as the start of another line. The protocol cannot carry CR, so CR
/// and CRLF both arrive as LF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventFields<'a> {
    /// The event's type. `None` leaves the field out, which browsers deliver as `message`.
    pub event: Option<&'a str>,
    /// How long the client waits before it reconnects.
    pub retry_millis: Option<u64>,
    /// The id that the client sends back when it reconnects.
    pub id: Option<&'a str>,
    /// The data, any number of lines.
    pub data: &'a str,
}

impl EventFields<'_> {
    /// Whether this event can be written.
    ///
    /// HTML, "Interpreting an event stream": a field ends with its line, and an id with NUL is
    /// ignored. No other control character is useful in a name, and browsers have differed in
    /// handling them.
    pub fn check(&self) -> Result<(), EncodeError> {
        let has_control = |field: Option<&str>| field.is_some_and(|text| text.contains(char::is_control));
        if has_control(self.event) {
            return Err(EncodeError::ControlInEvent);
        }
        if has_control(self.id) {
            return Err(EncodeError::ControlInId);
        }
        Ok(())
    }

    /// Exactly how many bytes [`encode`](Self::encode) writes.
    pub fn encoded_len(&self) -> usize {
        let event = self.event.map_or(0, |event| line_len(EVENT, event.len()));
        let retry = self.retry_millis.map_or(0, |retry| line_len(RETRY, decimal_len(retry)));
        let id = self.id.map_or(0, |id| line_len(ID, id.len()));
        let data: usize = lines(self.data).map(|line| line_len(DATA, line.len())).sum();
        event + retry + id + data + BLANK_LINE.len()
    }

    /// Appends the event: `event`, `retry`, `id`, one `data` line per line, a blank line. On an
    /// error nothing is written.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.check()?;
        out.reserve(self.encoded_len());
        self.write(out);
        Ok(())
    }

    /// Appends the event as one HTTP/1.1 chunk and returns the range in `out` of the event itself,
    /// without the chunk's framing. On an error nothing is written.
    pub fn encode_chunk(&self, out: &mut Vec<u8>) -> Result<Range<usize>, EncodeError> {
        self.check()?;
        let length = self.encoded_len();
        Ok(write_chunk(length, out, |out| self.write(out)))
    }

    fn write(&self, out: &mut Vec<u8>) {
        if let Some(event) = self.event {
            push_line(EVENT, event.as_bytes(), out);
        }
        if let Some(retry) = self.retry_millis {
            push_retry(retry, out);
        }
        if let Some(id) = self.id {
            push_line(ID, id.as_bytes(), out);
        }
        for line in lines(self.data) {
            push_line(DATA, line, out);
        }
        out.extend_from_slice(BLANK_LINE);
    }
}

/// Why an event was not written. No byte of it has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The event type contains a line break or another control character. The publisher must choose
    /// another.
    ControlInEvent,
    /// The id contains a line break or another control character. The publisher must choose
    /// another.
    ControlInId,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ControlInEvent => "an event type must not contain control characters",
            Self::ControlInId => "an event id must not contain control characters",
        })
    }
}

impl std::error::Error for EncodeError {}

/// Appends a comment, one line per line of `text`. No blank line follows: it would end an event
/// that contains the comment.
pub fn comment(text: &str, out: &mut Vec<u8>) {
    for line in lines(text) {
        push_line(COMMENT, line, out);
    }
}

/// The beginning of a stream: a comment, so that the browser's `onopen` fires at once, and the
/// reconnect time. No blank line follows: some clients would emit an empty event.
pub fn preface(retry_millis: u64) -> Vec<u8> {
    let mut out = Vec::new();
    comment("tidings", &mut out);
    push_retry(retry_millis, &mut out);
    out
}

/// Appends `inner` as one HTTP/1.1 chunk. Nothing is appended for an empty `inner`, because a chunk
/// without bytes would end the body (RFC 9112, "Chunked Transfer Coding").
pub fn chunk(inner: &[u8], out: &mut Vec<u8>) {
    if !inner.is_empty() {
        write_chunk(inner.len(), out, |out| out.extend_from_slice(inner));
    }
}

fn write_chunk(length: usize, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
    out.reserve(hex_len(length) + CRLF.len() + length + CRLF.len());
    push_number(length as u64, 16, out);
    out.extend_from_slice(CRLF);
    let start = out.len();
    write(out);
    let inner = start..out.len();
    debug_assert_eq!(inner.len(), length, "the chunk's announced size is what was written");
    out.extend_from_slice(CRLF);
    inner
}

// Always one space after the colon. A parser strips one, so a value that begins with a space keeps
// it.
const EVENT: &[u8] = b"event: ";
const RETRY: &[u8] = b"retry: ";
const ID: &[u8] = b"id: ";
const DATA: &[u8] = b"data: ";
const COMMENT: &[u8] = b": ";
const BLANK_LINE: &[u8] = b"\n";
const CRLF: &[u8] = b"\r\n";

const fn line_len(field: &[u8], value_bytes: usize) -> usize {
    field.len() + value_bytes + 1
}

fn push_line(field: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(field);
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn push_retry(retry_millis: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(RETRY);
    push_number(retry_millis, 10, out);
    out.push(b'\n');
}

const fn decimal_len(number: u64) -> usize {
    match number.checked_ilog10() {
        Some(log) => log as usize + 1,
        None => 1,
    }
}

const fn hex_len(number: usize) -> usize {
    match number.checked_ilog2() {
        Some(log) => log as usize / 4 + 1,
        None => 1,
    }
}

/// Appends a number without going through `fmt`, which would cost more than the rest of a short
/// event.
fn push_number(mut number: u64, radix: u64, out: &mut Vec<u8>) {
    // The longest is `u64::MAX` in decimal.
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        let digit = usize::try_from(number % radix).expect("a digit is below the radix");
        digits[start] = b"0123456789abcdef"[digit];
        number /= radix;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: EventFields<'_> = EventFields { event: None, retry_millis: None, id: None, data: "x" };

    fn encoded(fields: &EventFields<'_>) -> String {
        let mut out = Vec::new();
        fields.encode(&mut out).expect("these fields are valid");
        String::from_utf8(out).expect("text encodes to text")
    }

    #[test]
    fn fields_come_in_the_order_event_retry_id_data() {
        let fields = EventFields { event: Some("tick"), retry_millis: Some(3000), id: Some("#7"), data: "x" };
        assert_eq!(encoded(&fields), "event: tick\nretry: 3000\nid: #7\ndata: x\n\n");
    }

    #[test]
    fn absent_fields_are_not_written() {
        assert_eq!(encoded(&PLAIN), "data: x\n\n");
    }

    #[test]
    fn empty_data_is_still_one_data_line() {
        assert_eq!(encoded(&EventFields { data: "", ..PLAIN }), "data: \n\n");
    }

    #[test]
    fn every_kind_of_line_end_in_data_starts_another_data_line() {
        let fields = EventFields { data: "a\rb\nc\r\nd\n", ..PLAIN };
        assert_eq!(encoded(&fields), "data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n");
    }

    #[test]
    fn a_leading_space_survives_a_round_trip() {
        assert_eq!(encoded(&EventFields { data: " x", ..PLAIN }), "data:  x\n\n");
    }

    #[test]
    fn a_line_feed_in_an_id_is_refused() {
        let fields = EventFields { id: Some("1\ndata: forged"), ..PLAIN };
        assert_refused(&fields, EncodeError::ControlInId);
    }

    #[test]
    fn a_carriage_return_in_an_event_type_is_refused() {
        let fields = EventFields { event: Some("a\rid: forged"), ..PLAIN };
        assert_refused(&fields, EncodeError::ControlInEvent);
    }

    #[test]
    fn no_control_character_passes_in_an_id_or_an_event_type() {
        for control in (0..=0x1f).chain(0x7f..=0x9f).filter_map(char::from_u32) {
            let text = format!("a{control}b");
            assert_refused(&EventFields { id: Some(&text), ..PLAIN }, EncodeError::ControlInId);
            assert_refused(&EventFields { event: Some(&text), ..PLAIN }, EncodeError::ControlInEvent);
        }
    }

    fn assert_refused(fields: &EventFields<'_>, error: EncodeError) {
        let mut out = b"before".to_vec();
        assert_eq!(fields.check(), Err(error));
        assert_eq!(fields.encode(&mut out), Err(error));
        assert_eq!(fields.encode_chunk(&mut out), Err(error));
        assert_eq!(out, b"before", "a refused event leaves no bytes behind");
    }

    #[test]
    fn numbers_at_their_limits_are_written_in_full() {
        for number in [0, 9, 10, 99, 100, u64::MAX] {
            let fields = EventFields { retry_millis: Some(number), ..PLAIN };
            let wire = encoded(&fields);
            assert_eq!(wire, format!("retry: {number}\ndata: x\n\n"));
            assert_eq!(fields.encoded_len(), wire.len());
        }
    }

    #[test]
    fn a_chunk_announces_its_size_in_hex() {
        for size in [1, 15, 16, 255, 256, 4096, 65_536] {
            let inner = vec![b'x'; size];
            let mut out = Vec::new();
            chunk(&inner, &mut out);
            let head = format!("{size:x}\r\n");
            assert_eq!(out, [head.as_bytes(), &inner, b"\r\n"].concat());
            assert_eq!(head.len(), hex_len(size) + CRLF.len());
        }
    }

    #[test]
    fn wrapping_nothing_does_not_end_the_body() {
        let mut out = Vec::new();
        chunk(b"", &mut out);
        assert_eq!(out, b"");
    }

    #[test]
    fn a_chunk_is_appended_and_returns_the_range_of_its_event() {
        let mut out = b"before".to_vec();
        let inner = PLAIN.encode_chunk(&mut out).expect("these fields are valid");
        assert_eq!(out, b"before9\r\ndata: x\n\n\r\n");
        assert_eq!(out[inner], *b"data: x\n\n");
    }

    #[test]
    fn a_comment_of_several_lines_stays_a_comment() {
        let mut out = Vec::new();
        comment("a\r\ndata: forged\rb\n", &mut out);
        assert_eq!(out, b": a\n: data: forged\n: b\n: \n");
    }

    #[test]
    fn neither_preface_nor_heartbeat_holds_a_blank_line() {
        assert_eq!(preface(2500), b": tidings\nretry: 2500\n");
        assert_eq!(HEARTBEAT, b": hb\n");
    }
}
