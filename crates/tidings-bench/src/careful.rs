//! A subscriber that reads as browsers do: it decodes HTTP chunks, parses events and remembers the
//! last id.
//!
//! That is ten times the work of searching for marks, so only subscribers that resume from an id do
//! it.

use bytes::Buf;
use tidings_sse::{Item, Parser};

use crate::{
    BenchError,
    mark::{Carry, Mark, Scanner},
};

/// The longest chunk-size line that is read: sixteen digits, a line end, some extensions.
const CHUNK_LINE_BYTES_MAX: usize = 256;

/// The gap notice of a hub: an event of this type, with these words in its data.
const NOTICE_TYPE: &str = "tidings";
const GAP: &str = "\"kind\":\"gap\"";

/// An item of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// An event.
    Event(Mark),
    /// A gap notice of the hub.
    Gap,
}

/// One subscriber across its connections.
#[derive(Debug, Default)]
pub(crate) struct Careful {
    parser: Parser,
    framing: Framing,
}

#[derive(Debug, Default)]
enum Framing {
    /// The body ends with the connection.
    #[default]
    Plain,
    /// Bytes left of this chunk, then of its line end.
    Chunk { data: u64, line_end: u8 },
    /// A line with the size of the next chunk.
    Size(Vec<u8>),
    /// The last chunk has arrived.
    Ended,
}

impl Careful {
    /// A response has begun.
    pub(crate) fn begin(&mut self, chunked: bool) {
        self.parser.end_of_stream();
        self.framing = if chunked { Framing::Size(Vec::new()) } else { Framing::Plain };
    }

    /// The id to resume from, if any event had one.
    pub(crate) fn last_event_id(&self) -> Option<&str> {
        Some(self.parser.last_event_id()).filter(|id| !id.is_empty())
    }

    /// Calls `found` for each event and each gap whose end is in this input.
    pub(crate) fn read(
        &mut self,
        mut input: &[u8],
        scanner: &Scanner,
        mut found: impl FnMut(Arrival),
    ) -> Result<(), BenchError> {
        while let Some(mut piece) = self.framing.next_piece(&mut input)? {
            while piece.has_remaining() {
                match self.parser.next(&mut piece) {
                    Some(Ok(Item::Event(event))) => {
                        let mut carry = Carry::default();
                        scanner.scan(&mut carry, event.data.as_bytes(), |mark| found(Arrival::Event(mark)));
                        if event.event_type == NOTICE_TYPE && event.data.contains(GAP) {
                            found(Arrival::Gap);
                        }
                    }
                    Some(Err(error)) => {
                        return Err(BenchError::hub(format!("the hub sent no event stream: {error}")));
                    }
                    Some(Ok(_)) | None => {}
                }
            }
        }
        Ok(())
    }
}

impl Framing {
    /// Takes the next bytes of the body off the input; none when the input is used up.
    fn next_piece<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, BenchError> {
        while !input.is_empty() {
            match self {
                Self::Plain => return Ok(Some(std::mem::take(input))),
                Self::Ended => {
                    *input = &[];
                }
                Self::Chunk { data: 0, line_end: 0 } => *self = Self::Size(Vec::new()),
                Self::Chunk { data: 0, line_end } => {
                    *line_end -= 1;
                    *input = &input[1..];
                }
                Self::Chunk { data, .. } => {
                    let length = usize::try_from(*data).unwrap_or(usize::MAX).min(input.len());
                    let (piece, behind) = input.split_at(length);
                    *data -= length as u64;
                    *input = behind;
                    return Ok(Some(piece));
                }
                Self::Size(line) => {
                    line.push(input[0]);
                    *input = &input[1..];
                    let size =
                        httparse::parse_chunk_size(line).ok().filter(|_| line.len() <= CHUNK_LINE_BYTES_MAX);
                    match size {
                        Some(httparse::Status::Complete((_, 0))) => *self = Self::Ended,
                        Some(httparse::Status::Complete((_, data))) => {
                            *self = Self::Chunk { data, line_end: 2 }
                        }
                        Some(httparse::Status::Partial) => {}
                        None => return Err(BenchError::hub("the hub sent a chunk without a size")),
                    }
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_events_are_found_and_the_id_is_that_of_the_last_complete_one() {
        let mark = Mark { run: 1, publisher: 0, topic: 0, sequence: 5, due_nanos: 9 };
        let mut payload = Vec::new();
        mark.write_payload(60, &mut payload);
        let payload = String::from_utf8(payload).unwrap();
        let event = format!("id: a\ndata: {payload}\n\nid: b\ndata: {payload}\n");
        for cut in 0..event.len() {
            let (first, second) = event.split_at(cut);
            let chunk = |text: &str| {
                if text.is_empty() { String::new() } else { format!("{:x}\r\n{text}\r\n", text.len()) }
            };
            let body = chunk(first) + &chunk(second);
            let mut careful = Careful::default();
            careful.begin(true);
            let scanner = Scanner::new();
            let mut found = Vec::new();
            for byte in body.as_bytes().chunks(1) {
                careful.read(byte, &scanner, |arrival| found.push(arrival)).unwrap();
            }
            assert_eq!(found, [Arrival::Event(mark)], "cut at {cut}");
            assert_eq!(careful.last_event_id(), Some("a"));
        }
    }

    #[test]
    fn a_gap_notice_is_distinguished_from_other_events() {
        let mut careful = Careful::default();
        careful.begin(false);
        let mut found = Vec::new();
        let text = "event: tidings\ndata: {\"kind\":\"gap\"}\n\nevent: tidings\ndata: {\"kind\":\"reconnect\"}\n\n\
                    data: {\"kind\":\"gap\"}\n\n";
        careful.read(text.as_bytes(), &Scanner::new(), |arrival| found.push(arrival)).unwrap();
        assert_eq!(found, [Arrival::Gap]);
    }

    #[test]
    fn a_chunk_without_a_size_is_refused() {
        let mut careful = Careful::default();
        careful.begin(true);
        assert!(careful.read(b"data: x\n", &Scanner::new(), |_| {}).is_err());
    }
}
