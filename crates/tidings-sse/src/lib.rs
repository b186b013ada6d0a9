//! Server-Sent Events as bytes.
//!
//! The encoder ([`EventFields`]) turns an event into the bytes that every client tried understands. The
//! [`Parser`] turns bytes, cut anywhere, back into events. Nothing here does I/O or reads a clock: bytes come
//! in as arguments and go out as values, so that both halves can be proven.
//!
//! Invariants:
//!
//! - No input can break the framing: a line break in `id` or `event` is refused, one in `data` starts
//!   another `data:` line.
//! - The encoder writes LF only, one space after every colon, and ends every event with a blank line.
//! - The parser's memory is bounded by its [`Limits`]; what it yields does not depend on how its input was cut.
//!
//! The rules are those of the WHATWG HTML standard, "Server-sent events", narrowed on the sending side to
//! what all clients read alike.
//!
//! ```
//! use tidings_sse::{EventFields, Item, Parser};
//!
//! let mut wire = Vec::new();
//! EventFields { event: None, retry_millis: None, id: Some("#1"), data: "hello\nworld" }.encode(&mut wire)?;
//! assert_eq!(wire, b"id: #1\ndata: hello\ndata: world\n\n");
//!
//! let mut parser = Parser::new();
//! let mut input = &wire[..];
//! while let Some(item) = parser.next(&mut input) {
//!     if let Item::Event(event) = item? {
//!         assert_eq!(event.data, "hello\nworld");
//!     }
//! }
//! assert_eq!(parser.last_event_id(), "#1");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod encode;
mod lines;
mod parse;

pub use encode::{EncodeError, EventFields, HEARTBEAT, LAST_CHUNK, chunk, comment, preface};
pub use parse::{Item, Limits, ParseError, ParsedEvent, Parser};
