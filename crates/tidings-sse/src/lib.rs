//! Server-Sent Events as bytes.
//!
//! The encoder ([`EventFields`]) turns an event into bytes that every tested client understands.
//! The [`Parser`] turns bytes, split anywhere, back into events. Nothing here does I/O or reads a
//! clock: bytes are arguments and results, so that both parts can be tested exhaustively.
//!
//! Invariants:
//!
//! - No input can break the framing: a line break in `id` or `event` is refused, one in `data`
//!   starts another `data:` line.
//! - The encoder writes LF only, one space after every colon, and ends every event with a blank
//!   line.
//! - The parser's memory is bounded by its [`Limits`]; its output does not depend on how its input
//!   was split.
//!
//! The rules are those of the WHATWG HTML standard, "Server-sent events", narrowed on the sending
//! side to what all clients parse alike.
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
