//! The bytes of an HTTP/2 client, forwarded frame by frame: no more than fits into a pass, and no
//! end of a block of header fields before the block is checked.
//!
//! [`Inbound`] is a state machine over bytes, with no socket and no clock, and the only place that
//! parses frames. It charges each frame to the connection's account ([`Work`]) and forwards the
//! bytes unchanged, with one exception: to the fields of a request that the library would misread
//! (see [`Fields`]), it adds the field [`FRAGMENT_MARK`], by which the service refuses the request.
//!
//! Invariants:
//! - What is forwarded, and whether the client is rejected, does not depend on how the bytes were
//!   cut into packets.
//! - A pass ends between two frames.
//!
//! Whether a frame is allowed where it stands is left to the library, as far as the boundaries of
//! frames and the fields do not depend on it.

use bytes::{Buf, BytesMut};

use super::{
    fields::{Fields, Unreadable},
    work::{BODY_BYTES_PER_WORK, FIELD_WORK, FRAME_WORK, REQUEST_WORK, Work, units},
};
use crate::http1::HTTP2_PREFACE;

/// The name of a field that no client sends, and that is refused if one does.
pub(super) const FRAGMENT_MARK: &str = "tidings-target-has-fragment";

/// RFC 9113, 4.2: the longest frame that a client may send, unless SETTINGS say otherwise, and ours
/// do not.
const FRAME_BYTES_MAX: usize = 16 * 1024;
/// RFC 9113, 4.1: a length of three bytes, a type, flags, and a stream of four.
const FRAME_HEADER_BYTES: usize = 9;
/// Where the flags of a frame are.
const FLAGS_AT: usize = 4;
/// The longest padding of a frame, with the byte that tells it (RFC 9113, 6.1).
const PADDING_BYTES_MAX: usize = 256;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// Flag of DATA and HEADERS.
const END_STREAM: u8 = 0x1;
/// Flag of HEADERS and CONTINUATION.
const END_HEADERS: u8 = 0x4;
/// Flag of DATA and HEADERS.
const PADDED: u8 = 0x8;
/// Flag of HEADERS.
const PRIORITY: u8 = 0x20;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Inbound {
    buffer: BytesMut,
    /// Bytes at the front that the library may read.
    released: usize,
    /// Bytes of the current frame that are still to come, and are released as they come.
    skip: usize,
    /// What has come of a block of fields whose end has not.
    block: Option<Vec<u8>>,
    block_bytes_max: usize,
    fields: Fields,
    last_stream: u32,
}

/// Why a connection is ended because of what its client has sent, with the error code of RFC 9113,
/// 7.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[repr(u8)]
pub(super) enum Rejection {
    #[error("the client sends another frame within a block of header fields")]
    Protocol = 0x1,
    #[error("the client sends a frame that is too large, or too short for its flags")]
    FrameSize = 0x6,
    #[error("the client sends header fields that cannot be decompressed")]
    Compression = 0x9,
    #[error("the client causes too much work without use")]
    Flood = 0xb,
}

impl Inbound {
    /// For a connection whose preface has not been forwarded.
    pub(super) fn new(block_bytes_max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            released: 0,
            skip: HTTP2_PREFACE.len(),
            block: None,
            block_bytes_max,
            fields: Fields::default(),
            last_stream: 0,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The bytes that the library may read in this pass.
    pub(super) fn released(&self) -> &[u8] {
        &self.buffer[..self.released]
    }

    /// The library has read this much of them.
    pub(super) fn advance(&mut self, length: usize) {
        self.buffer.advance(length);
        self.released -= length;
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Whether the rest of a frame, or of a block of fields, has to come.
    pub(super) fn has_part(&self) -> bool {
        self.block.is_some() || self.buffer.len() > self.released
    }

    /// RFC 9113, 6.8: GOAWAY, with the last request that was read.
    pub(super) fn closing_frame(&self, rejection: Rejection) -> [u8; 17] {
        let mut frame = [0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, rejection as u8];
        frame[FRAME_HEADER_BYTES..][..4].copy_from_slice(&self.last_stream.to_be_bytes());
        frame
    }

    /// Releases what has come, as far as there is work left for it in this pass.
    pub(super) fn release(&mut self, work: &Work) -> Result<(), Rejection> {
        loop {
            let passing = self.skip.min(self.buffer.len() - self.released);
            self.skip -= passing;
            self.released += passing;
            let rest = &self.buffer[self.released..];
            let Some((header, behind)) = rest.split_first_chunk() else { return Ok(()) };
            let frame = FrameHeader::parse(*header);
            if frame.length > FRAME_BYTES_MAX {
                return Err(Rejection::FrameSize);
            }
            // RFC 9113, 6.10: nothing else stands within a block.
            if self.block.is_some() != (frame.kind == CONTINUATION) {
                return Err(Rejection::Protocol);
            }
            if frame.has_fields() && behind.len() < frame.length {
                return Ok(());
            }
            if !work.may_read_next(frame.work()) {
                return Ok(());
            }
            if !work.charge(frame.work_without_use()) {
                return Err(Rejection::Flood);
            }
            self.skip = FRAME_HEADER_BYTES + frame.length;
            if frame.has_fields() && self.read_fields(frame, work)? {
                self.mark(frame.stream);
            }
        }
    }

    /// Reads the fields of the frame that begins behind what is released. True if they are the last
    /// ones of a request whose target has a fragment.
    fn read_fields(&mut self, frame: FrameHeader, work: &Work) -> Result<bool, Rejection> {
        let payload = &self.buffer[self.released + FRAME_HEADER_BYTES..][..frame.length];
        let mut block = self.block.take().unwrap_or_default();
        block.extend_from_slice(if frame.kind == HEADERS {
            fragment(frame.flags, payload)?
        } else {
            payload
        });
        if block.len() > self.block_bytes_max {
            return Err(Rejection::Flood);
        }
        self.last_stream = self.last_stream.max(frame.stream);
        if frame.flags & END_HEADERS == 0 {
            self.block = Some(block);
            return Ok(false);
        }
        let found = self.fields.read(&block).map_err(|Unreadable| Rejection::Compression)?;
        work.count_reading(FIELD_WORK.saturating_mul(units(found.count)));
        Ok(found.has_fragment)
    }

    /// Ends the block of the frame that begins behind what is released with [`FRAGMENT_MARK`].
    fn mark(&mut self, stream: u32) {
        self.buffer[self.released + FLAGS_AT] &= !END_HEADERS;
        let behind = self.buffer.split_off(self.released + self.skip);
        let mark = mark_frame(stream);
        self.buffer.extend_from_slice(&mark);
        self.buffer.unsplit(behind);
        self.skip += mark.len();
    }
}

#[derive(Clone, Copy, Debug)]
struct FrameHeader {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl FrameHeader {
    fn parse([long, middle, short, kind, flags, stream @ ..]: [u8; FRAME_HEADER_BYTES]) -> Self {
        Self {
            length: usize::from(long) << 16 | usize::from(middle) << 8 | usize::from(short),
            kind,
            flags,
            // RFC 9113, 4.1: the first bit is reserved, and ignored.
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }

    fn has_fields(self) -> bool {
        matches!(self.kind, HEADERS | CONTINUATION)
    }

    /// Whether it has a part of a body. (How large a body may be, and so how many parts it has, is
    /// its reader's business.)
    fn has_body(self) -> bool {
        let padding = if self.flags & PADDED == 0 { 0 } else { PADDING_BYTES_MAX };
        self.kind == DATA && (self.length > padding || (self.flags & END_STREAM != 0 && self.length > 0))
    }

    /// What it costs in a pass.
    fn work(self) -> u32 {
        match self.kind {
            HEADERS => REQUEST_WORK + units(self.length),
            DATA => FRAME_WORK + units(self.length) / BODY_BYTES_PER_WORK,
            _ => FRAME_WORK + units(self.length),
        }
    }

    fn work_without_use(self) -> u32 {
        match self.kind {
            HEADERS => REQUEST_WORK,
            CONTINUATION => FRAME_WORK,
            _ if self.has_body() => 0,
            _ => FRAME_WORK + units(self.length),
        }
    }
}

/// RFC 9113, 6.2: what of a HEADERS frame is fields.
fn fragment(flags: u8, mut payload: &[u8]) -> Result<&[u8], Rejection> {
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (first, rest) = payload.split_first().ok_or(Rejection::FrameSize)?;
        (padding, payload) = (usize::from(*first), rest);
    }
    if flags & PRIORITY != 0 {
        payload = payload.get(5..).ok_or(Rejection::FrameSize)?;
    }
    let length = payload.len().checked_sub(padding).ok_or(Rejection::FrameSize)?;
    Ok(&payload[..length])
}

/// A frame that ends a block with [`FRAGMENT_MARK`]: a literal field that the library does not
/// remember (RFC 7541, 6.2.2).
fn mark_frame(stream: u32) -> Vec<u8> {
    let length = |bytes: usize| u8::try_from(bytes).expect("the name is short");
    let name = FRAGMENT_MARK.as_bytes();
    let field = [&[0, length(name.len())][..], name, &[0]].concat();
    [&[0, 0, length(field.len()), CONTINUATION, END_HEADERS][..], &stream.to_be_bytes(), &field].concat()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index};
    use tokio::time::Instant;

    use super::{
        super::work::{ALLOWANCE, PASS_WORK},
        *,
    };

    const RST_STREAM: u8 = 3;
    const WINDOW_UPDATE: u8 = 8;
    const PATH: &[u8] = b"\x82\x04\x02/a";
    const FRAGMENT: &[u8] = b"\x82\x04\x04/a#7";

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&[length[1], length[2], length[3], kind, flags][..], &stream.to_be_bytes(), payload].concat()
    }

    /// A connection behind its preface.
    struct Connection {
        inbound: Inbound,
        work: Work,
        now: Instant,
        forwarded: Vec<u8>,
    }

    impl Connection {
        fn new() -> Self {
            let (now, inbound) = (Instant::now(), Inbound::new(1_000));
            let mut begun = Self { inbound, work: Work::new(now), now, forwarded: Vec::new() };
            begun.receive(HTTP2_PREFACE, 1, PASS_WORK).expect("a preface");
            begun.forwarded.clear();
            begun
        }

        /// These bytes come, and are forwarded in so many passes.
        fn receive(&mut self, bytes: &[u8], passes: usize, pass_work: u32) -> Result<(), Rejection> {
            self.inbound.push(bytes);
            for _ in 0..passes {
                self.work.begin_pass(pass_work, self.now);
                let released = self.inbound.release(&self.work);
                self.forwarded.extend_from_slice(self.inbound.released());
                self.inbound.advance(self.inbound.released().len());
                released?;
            }
            Ok(())
        }
    }

    /// What is forwarded of these bytes, and why the rest was not.
    fn forwarded<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Result<(), Rejection>) {
        let mut connection = Connection::new();
        let outcome = pieces.into_iter().try_for_each(|piece| connection.receive(piece, 30, PASS_WORK));
        (connection.forwarded, outcome)
    }

    #[test]
    fn a_connection_that_has_sent_nothing_more_holds_no_buffer() {
        let request = frame(HEADERS, END_HEADERS, 1, PATH);
        let mut connection = Connection::new();
        for count in [3, 1] {
            connection.receive(&request.repeat(count), 1, PASS_WORK).expect("requests");
            assert_eq!(connection.inbound.buffer.capacity(), 0);
        }
    }

    #[test]
    fn a_pass_ends_between_two_frames() {
        let request = frame(HEADERS, END_HEADERS, 1, PATH);
        let mut connection = Connection::new();
        connection.receive(&request.repeat(3), 2, 250).expect("requests");
        assert_eq!(connection.forwarded, request.repeat(2));
    }

    /// A byte may stand for a field (RFC 7541, 6.1), which costs more than its byte.
    #[test]
    fn a_pass_reads_fewer_requests_of_many_fields() {
        let [many, few] = [vec![0x82; 400], [&b"\x82\x04\x7f\x8b\x02"[..], &[b'a'; 394]].concat()]
            .map(|fields| frame(HEADERS, END_HEADERS, 1, &fields));
        let read = |request: &[u8]| {
            let mut connection = Connection::new();
            connection.receive(&request.repeat(5), 1, PASS_WORK).expect("requests");
            connection.forwarded.len() / request.len()
        };
        assert_eq!((read(&many), read(&few)), (1, 3));
    }

    #[test]
    fn a_request_with_a_fragment_is_marked_and_no_other() {
        let padded = [&[2, 0, 0, 0, 0, 9][..], FRAGMENT, &[0, 0]].concat();
        let bytes = [
            frame(HEADERS, END_HEADERS, 1, PATH),
            frame(HEADERS, END_STREAM | END_HEADERS | PADDED | PRIORITY, 3, &padded),
            frame(HEADERS, END_STREAM, 5, &FRAGMENT[..3]),
            frame(CONTINUATION, END_HEADERS, 5, &FRAGMENT[3..]),
            frame(DATA, 0, 1, b"hello"),
        ];
        let expected = [
            bytes[0].clone(),
            frame(HEADERS, END_STREAM | PADDED | PRIORITY, 3, &padded),
            mark_frame(3),
            bytes[2].clone(),
            frame(CONTINUATION, 0, 5, &FRAGMENT[3..]),
            mark_frame(5),
            bytes[4].clone(),
        ];
        assert_eq!(forwarded([&bytes.concat()[..]]), (expected.concat(), Ok(())));
    }

    #[test]
    fn frames_that_cannot_be_read_are_refused() {
        for (rejection, bytes) in [
            (Rejection::FrameSize, frame(HEADERS, 0, 1, &vec![0; FRAME_BYTES_MAX + 1])),
            (Rejection::FrameSize, frame(HEADERS, PADDED, 1, &[5, 0x82])),
            (Rejection::FrameSize, frame(HEADERS, PADDED, 1, &[])),
            (Rejection::FrameSize, frame(HEADERS, PRIORITY, 1, &[0; 4])),
            (Rejection::Compression, frame(HEADERS, END_HEADERS, 1, &[0x80])),
            (Rejection::Protocol, [frame(HEADERS, 0, 1, PATH), frame(DATA, 0, 1, b"")].concat()),
            (Rejection::Protocol, frame(CONTINUATION, END_HEADERS, 1, PATH)),
            (
                Rejection::Flood,
                [frame(HEADERS, 0, 1, PATH), frame(CONTINUATION, 0, 1, &[0x82; 1_000])].concat(),
            ),
        ] {
            assert_eq!(forwarded([&bytes[..]]).1, Err(rejection));
        }
    }

    /// RFC 9113, 6.8, and 4.1: the first bit of the number of a request is ignored.
    #[test]
    fn the_closing_frame_has_the_last_request_and_the_reason() {
        let mut connection = Connection::new();
        let requests = [frame(HEADERS, END_HEADERS, 1 << 31 | 7, PATH), frame(HEADERS, END_HEADERS, 3, PATH)];
        connection.receive(&requests.concat(), 1, PASS_WORK).expect("requests");
        let frame = connection.inbound.closing_frame(Rejection::Flood);
        assert_eq!(frame, [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0xb]);
    }

    #[test]
    fn what_asks_for_nothing_ends_after_a_bounded_number_of_frames() {
        let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, PATH);
        let reset = frame(RST_STREAM, 0, 1, &[0; 4]);
        for (name, flood, work) in [
            ("PING", frame(6, 0, 0, &[0; 8]), 24),
            ("PING ACK", frame(6, 1, 0, &[0; 8]), 24),
            ("SETTINGS", frame(4, 0, 0, &[]), 16),
            ("full SETTINGS", frame(4, 0, 0, &[0; 6_000]), 6_016),
            ("PRIORITY", frame(2, 0, 5, &[0; 5]), 21),
            ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), 20),
            ("empty DATA", frame(DATA, 0, 1, &[]), 16),
            ("padding without DATA", frame(DATA, PADDED, 1, &[255; 256]), 272),
            ("RST_STREAM", reset.clone(), 20),
            ("unanswered requests", request.clone(), 200),
            ("cancelled requests", [request, reset].concat(), 220),
            ("unknown frames", frame(200, 0, 0, &[0; 100]), 116),
        ] {
            let mut connection = Connection::new();
            let count = (0..100_000).find(|_| connection.receive(&flood, 3, PASS_WORK).is_err());
            assert_eq!(count, Some(ALLOWANCE / work), "{name}");
        }
        let mut connection = Connection::new();
        connection.receive(&frame(HEADERS, 0, 1, PATH), 1, PASS_WORK).expect("a block");
        let empty = frame(CONTINUATION, 0, 1, &[]);
        let count = (0..100_000).find(|_| connection.receive(&empty, 1, PASS_WORK).is_err());
        assert_eq!(count, Some((ALLOWANCE - REQUEST_WORK) / FRAME_WORK), "CONTINUATION");
    }

    /// Uploads in small parts, clients that widen both windows for each event or part of it, and
    /// one of a busy proxy.
    #[test]
    fn a_client_that_is_answered_is_never_stopped() {
        let parts = [frame(DATA, 0, 1, &[1]), frame(DATA, PADDED, 1, &[0; 300])].concat();
        let update = [frame(WINDOW_UPDATE, 0, 1, &[0; 4]), frame(WINDOW_UPDATE, 0, 0, &[0; 4])].concat();
        let request = [
            frame(HEADERS, END_HEADERS, 1, PATH),
            frame(2, 0, 1, &[0; 5]).repeat(3),
            frame(DATA, END_STREAM, 1, &[]),
            frame(RST_STREAM, 0, 1, &[0; 4]),
        ];
        for (useful, client) in [
            (0, parts),
            (FRAME_WORK + 3, update.clone()),
            (FRAME_WORK + 60, update.clone()),
            (FRAME_WORK + 16_384, update.repeat(1_000)),
            (REQUEST_WORK, [request.concat(), update].concat()),
        ] {
            let mut connection = Connection::new();
            for _ in 0..10_000_000 / client.len() {
                connection.work.credit(useful);
                connection.receive(&client, client.len() / 1_000 + 1, PASS_WORK).expect("it is welcome");
            }
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
        fn what_is_forwarded_does_not_depend_on_how_the_bytes_were_cut(
            frames in vec(any_frame(), 0..20),
            cuts in vec(any::<Index>(), 0..12),
        ) {
            let bytes = frames.concat();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let whole = forwarded([&bytes[..]]);
            prop_assert_eq!(&forwarded(cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]])), &whole);
            prop_assert_eq!(&forwarded(bytes.chunks(7)), &whole);
        }
    }
}
