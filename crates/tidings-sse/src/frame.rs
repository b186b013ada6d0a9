//! An event encoded once for everybody who reads it.

use std::ops::Range;

use bytes::Bytes;

use crate::encode::{EncodeError, EventFields};

/// One event as one HTTP/1.1 chunk, and inside it the event itself, in one allocation.
///
/// Sockets that speak HTTP/1.1 are sent the chunk; HTTP/2 and users of the library, whose transport has its own
/// framing, take the inner event. Clones share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    chunk: Bytes,
    event: Range<usize>,
}

impl Frame {
    /// Encodes the event into one allocation of the size that it takes.
    pub fn new(fields: &EventFields<'_>) -> Result<Self, EncodeError> {
        // An empty vector reserves what the encoder has computed, so the length is not computed here again.
        let mut out = Vec::new();
        let event = fields.encode_chunk(&mut out)?;
        Ok(Self { chunk: out.into(), event })
    }

    /// The event in its HTTP/1.1 chunk.
    pub fn chunk(&self) -> Bytes {
        self.chunk.clone()
    }

    /// The event alone: the same memory, not a copy.
    pub fn event(&self) -> Bytes {
        self.chunk.slice(self.event.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_and_chunk_of_a_frame_share_their_memory() {
        let fields = EventFields { id: Some("#1"), data: "hello", ..EventFields::default() };
        let frame = Frame::new(&fields).expect("these fields are valid");
        assert_eq!(frame.chunk(), "14\r\nid: #1\ndata: hello\n\n\r\n");
        assert_eq!(frame.event(), "id: #1\ndata: hello\n\n");
        let chunk = frame.chunk();
        assert!(chunk.as_ptr_range().contains(&frame.event().as_ptr()));
        assert_eq!(frame.clone().chunk().as_ptr(), chunk.as_ptr());
    }

    #[test]
    fn a_frame_of_an_invalid_event_does_not_exist() {
        let fields = EventFields { event: Some("a\nb"), ..EventFields::default() };
        assert_eq!(Frame::new(&fields), Err(EncodeError::ControlInEvent));
    }
}
