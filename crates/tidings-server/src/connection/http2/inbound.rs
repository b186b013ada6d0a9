//! The bytes of an HTTP/2 client, forwarded frame by frame: no more than fits into a pass, and no
//! block of fields before it is checked.
//!
//! [`Inbound`] is a pure state machine over bytes. It forwards the bytes unchanged, with one
//! exception: to the fields of a request that the library would misread (see [`Fields`]), it adds
//! the field [`FRAGMENT_MARK`], by which the service refuses the request.
//!
//! Invariants:
//! - What is forwarded does not depend on how the bytes were cut into packets.
//! - A pass ends between two frames, and never within a block of fields (RFC 9113, 4.3).

use bytes::{Buf, BytesMut};

use super::{
    fields::Fields,
    frames::{CONTINUATION, DATA, FrameHead, HEAD_BYTES, HEADERS, PADDED, Rejection},
    work::{BODY_BYTES_PER_WORK, FRAME_WORK, REQUEST_WORK, Work},
};
use crate::head::HTTP2_PREFACE;

/// The name of a field that no client sends, and that is refused if one does.
pub(super) const FRAGMENT_MARK: &str = "tidings-target-has-fragment";

/// RFC 9113, 4.2: the longest frame that a client may send, unless SETTINGS say otherwise, and ours
/// do not.
const FRAME_BYTES_MAX: usize = 16 * 1024;
/// Most frames of a block of fields besides those that it fills.
const SMALL_FRAMES_MAX: usize = 8;
/// Flags of HEADERS, and the first one of CONTINUATION (RFC 9113, 6.2).
const END_HEADERS: u8 = 0x4;
const PRIORITY: u8 = 0x20;
/// Where the flags of a frame are.
const FLAGS_AT: usize = 4;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Inbound {
    buffer: BytesMut,
    /// Bytes at the front that the library may read.
    released: usize,
    /// Bytes at the front that have been looked at.
    scanned: usize,
    /// Bytes of the current frame that are still to come.
    skip: usize,
    /// A block of fields of which a frame is still to come.
    block: Option<Block>,
    block_bytes_max: usize,
    fields: Fields,
}

/// A part of a block of fields.
#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    frames: usize,
}

impl Inbound {
    /// For a connection whose preface has not been passed on.
    pub(super) fn new(block_bytes_max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            released: 0,
            scanned: 0,
            skip: HTTP2_PREFACE.len(),
            block: None,
            block_bytes_max,
            fields: Fields::default(),
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The bytes that the library may read in this turn.
    pub(super) fn released(&self) -> &[u8] {
        &self.buffer[..self.released]
    }

    /// The library has read this much of them.
    pub(super) fn advance(&mut self, length: usize) {
        self.buffer.advance(length);
        self.released -= length;
        self.scanned -= length;
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Whether something has come that is not passed on before more of it is here.
    pub(super) fn has_part(&self) -> bool {
        self.buffer.len() > self.released
    }

    /// Looks at what has come, as far as there is work left for it in this turn.
    pub(super) fn release(&mut self, work: &Work) -> Result<(), Rejection> {
        loop {
            let passing = self.skip.min(self.buffer.len() - self.scanned);
            self.skip -= passing;
            self.scanned += passing;
            if self.block.is_none() {
                self.released = self.scanned;
            }
            let rest = &self.buffer[self.scanned..];
            let Some(head) = rest.first_chunk::<HEAD_BYTES>() else { return Ok(()) };
            let head = FrameHead::parse(*head);
            if head.length > FRAME_BYTES_MAX {
                return Err(Rejection::FrameTooLarge);
            }
            match (head.kind, self.block.take()) {
                (HEADERS, None) => {
                    if rest.len() < HEAD_BYTES + head.length {
                        return Ok(());
                    }
                    if !work.may_read_next(REQUEST_WORK + units(head.length)) {
                        return Ok(());
                    }
                    let fragment = fragment(head.flags, &rest[HEAD_BYTES..][..head.length])?;
                    let is_whole = head.flags & END_HEADERS != 0;
                    let bad = if is_whole {
                        Some(self.fields.read(fragment)?)
                    } else {
                        self.block = Some(Block { bytes: fragment.to_vec(), frames: 1 });
                        None
                    };
                    self.end_frame(head, bad);
                }
                (CONTINUATION, Some(mut block)) => {
                    if rest.len() < HEAD_BYTES + head.length {
                        self.block = Some(block);
                        return Ok(());
                    }
                    block.bytes.extend_from_slice(&rest[HEAD_BYTES..][..head.length]);
                    block.frames += 1;
                    work.count_reading(FRAME_WORK + units(head.length));
                    let frames_max = self.block_bytes_max / FRAME_BYTES_MAX + SMALL_FRAMES_MAX;
                    if block.bytes.len() > self.block_bytes_max || block.frames > frames_max {
                        return Err(Rejection::Flood);
                    }
                    let bad = if head.flags & END_HEADERS != 0 {
                        Some(self.fields.read(&block.bytes)?)
                    } else {
                        self.block = Some(block);
                        None
                    };
                    self.end_frame(head, bad);
                }
                // RFC 9113, 6.10: nothing else stands within a block.
                (_, Some(_)) => return Err(Rejection::BlockInterrupted),
                (kind, None) => {
                    let bytes = if kind == DATA { head.length / BODY_BYTES_PER_WORK } else { head.length };
                    if !work.may_read_next(FRAME_WORK + units(bytes)) {
                        return Ok(());
                    }
                    self.skip = HEAD_BYTES + head.length;
                }
            }
        }
    }

    /// Goes on behind a frame that is here whole. `has_fragment`: what was found in the block of
    /// fields that ends with it, if one does.
    fn end_frame(&mut self, head: FrameHead, has_fragment: Option<bool>) {
        let begin = self.scanned;
        self.scanned += HEAD_BYTES + head.length;
        if has_fragment == Some(true) {
            self.buffer[begin + FLAGS_AT] &= !END_HEADERS;
            let behind = self.buffer.split_off(self.scanned);
            let mark = mark(head.stream);
            self.buffer.extend_from_slice(&mark);
            self.buffer.unsplit(behind);
            self.scanned += mark.len();
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// RFC 9113, 6.2: what of a HEADERS frame is fields.
fn fragment(flags: u8, mut payload: &[u8]) -> Result<&[u8], Rejection> {
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (first, rest) = payload.split_first().ok_or(Rejection::FrameTooShort)?;
        (padding, payload) = (usize::from(*first), rest);
    }
    if flags & PRIORITY != 0 {
        payload = payload.get(5..).ok_or(Rejection::FrameTooShort)?;
    }
    let length = payload.len().checked_sub(padding).ok_or(Rejection::FrameTooShort)?;
    Ok(&payload[..length])
}

/// The frame that ends a block with [`FRAGMENT_MARK`]: a literal field that the other end does not
/// remember (RFC 7541, 6.2.2).
fn mark(stream: u32) -> Vec<u8> {
    let length = |bytes: usize| u8::try_from(bytes).expect("the name is short");
    let name = FRAGMENT_MARK.as_bytes();
    let field = [&[0, length(name.len())][..], name, &[0]].concat();
    [&[0, 0, length(field.len()), CONTINUATION, END_HEADERS][..], &stream.to_be_bytes(), &field].concat()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::{super::work::TURN_WORK, *};

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&[length[1], length[2], length[3], kind, flags][..], &stream.to_be_bytes(), payload].concat()
    }

    /// What is passed on of these bytes in so many turns, and why they were refused.
    fn passed_on<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        turns: usize,
        turn_work: u32,
    ) -> (Vec<u8>, Option<Rejection>) {
        let mut inbound = Inbound::new(1_000);
        let mut passed = Vec::new();
        let work = Work::default();
        for piece in pieces {
            inbound.push(piece);
            for _ in 0..turns {
                work.begin(turn_work);
                let released = inbound.release(&work);
                passed.extend_from_slice(inbound.released());
                if let Err(rejection) = released {
                    return (passed, Some(rejection));
                }
                inbound.advance(inbound.released().len());
            }
        }
        (passed, None)
    }

    const PATH: &[u8] = b"\x82\x04\x02/a";
    const FRAGMENT: &[u8] = b"\x82\x04\x04/a#7";

    #[test]
    fn a_turn_ends_between_two_frames() {
        let request = frame(HEADERS, END_HEADERS, 1, PATH);
        let bytes = [HTTP2_PREFACE, &request, &request, &request].concat();
        let (passed, _) = passed_on([&bytes[..]], 2, 250);
        assert_eq!(passed.len(), HTTP2_PREFACE.len() + 2 * request.len());
        let split = [frame(HEADERS, 0, 1, PATH), frame(CONTINUATION, END_HEADERS, 1, &[])].concat();
        let bytes = [HTTP2_PREFACE, &split, &request].concat();
        assert_eq!(passed_on([&bytes[..]], 1, 250).0.len(), HTTP2_PREFACE.len() + split.len());
    }

    #[test]
    fn a_request_with_a_fragment_is_marked_and_no_other() {
        let bytes = [
            frame(HEADERS, END_HEADERS, 1, PATH),
            frame(
                HEADERS,
                1 | END_HEADERS | PADDED | PRIORITY,
                3,
                &[&[2, 0, 0, 0, 0, 9][..], FRAGMENT, &[0, 0]].concat(),
            ),
            frame(HEADERS, 1, 5, &FRAGMENT[..3]),
            frame(CONTINUATION, END_HEADERS, 5, &FRAGMENT[3..]),
            frame(DATA, 0, 1, b"hello"),
        ];
        let expected = [
            bytes[0].clone(),
            frame(HEADERS, 1 | PADDED | PRIORITY, 3, &[&[2, 0, 0, 0, 0, 9][..], FRAGMENT, &[0, 0]].concat()),
            mark(3),
            bytes[2].clone(),
            frame(CONTINUATION, 0, 5, &FRAGMENT[3..]),
            mark(5),
            bytes[4].clone(),
        ];
        let passed = passed_on([HTTP2_PREFACE, &bytes.concat()], 10, TURN_WORK);
        assert_eq!(passed, ([HTTP2_PREFACE, &expected.concat()].concat(), None));
    }

    #[test]
    fn frames_that_cannot_be_read_are_refused() {
        for (rejection, bytes) in [
            (Rejection::FrameTooLarge, frame(HEADERS, 0, 1, &vec![0; FRAME_BYTES_MAX + 1])),
            (Rejection::FrameTooShort, frame(HEADERS, PADDED, 1, &[5, 0x82])),
            (Rejection::FrameTooShort, frame(HEADERS, PADDED, 1, &[])),
            (Rejection::FrameTooShort, frame(HEADERS, PRIORITY, 1, &[0; 4])),
            (Rejection::FieldsUnreadable, frame(HEADERS, END_HEADERS, 1, &[0x80])),
            (Rejection::BlockInterrupted, [frame(HEADERS, 0, 1, PATH), frame(DATA, 0, 1, b"")].concat()),
            (
                Rejection::Flood,
                [frame(HEADERS, 0, 1, PATH), frame(CONTINUATION, 0, 1, &[0x82; 1_000])].concat(),
            ),
            (
                Rejection::Flood,
                [frame(HEADERS, 0, 1, PATH), frame(CONTINUATION, 0, 1, &[]).repeat(SMALL_FRAMES_MAX)]
                    .concat(),
            ),
        ] {
            assert_eq!(passed_on([HTTP2_PREFACE, &bytes], 10, TURN_WORK).1, Some(rejection));
        }
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            (0_u8..12, any::<u8>(), 0_u32..9, vec(any::<u8>(), 0..30))
                .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload)),
            Just(frame(HEADERS, END_HEADERS, 1, FRAGMENT)),
            Just([frame(HEADERS, 0, 1, FRAGMENT), frame(CONTINUATION, END_HEADERS, 1, PATH)].concat()),
        ]
    }

    proptest! {
        #[test]
        fn what_is_passed_on_does_not_depend_on_how_the_bytes_were_cut(
            frames in vec(any_frame(), 0..12),
            cuts in vec(any::<Index>(), 0..12),
        ) {
            let bytes = [HTTP2_PREFACE, &frames.concat()].concat();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(passed_on(pieces, 30, TURN_WORK), passed_on([&bytes[..]], 30, TURN_WORK));
            prop_assert_eq!(passed_on(bytes.chunks(1), 30, TURN_WORK), passed_on([&bytes[..]], 30, TURN_WORK));
        }
    }
}
