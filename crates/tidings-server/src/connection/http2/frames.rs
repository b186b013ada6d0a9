//! Flood protection of an HTTP/2 connection: counts the client's frames against useful work.
//!
//! A frame of a few bytes causes work on the server, and many kinds of frames need no response that
//! would slow down their sender (RFC 9113, 10.5, lists what can be abused). So each connection has
//! an allowance. Each frame of the client costs one, unless it carries a part of a body. Each
//! response adds several, each chunk of a response adds one for its WINDOW_UPDATE, and time adds a
//! few. A client that sends requests and reads responses never gets near the limit; a client that
//! floods pings, settings, priorities, windows, empty data, resets or cancelled requests soon does.
//!
//! [`Frames`] is a pure state machine: it parses the frame headers, nine bytes each, in the bytes
//! that are read and written. It owns no socket and no clock, and buffers only an incomplete frame
//! header.
//!
//! Invariants:
//! - A verdict depends on the bytes and their times, not on how they were cut into packets.
//! - `allowance` is at most [`ALLOWANCE_MAX`], so that past responses never allow more frames than
//!   that.
//! - Malformed frames are detected by the library that reads the frames; here they count like any
//!   other.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::fields::Unreadable;
use crate::head::HTTP2_PREFACE;

/// Frames that a client may send at first, and again after a while, without being answered.
pub(super) const ALLOWANCE: u32 = 1_000;
/// Most frames that a client may ever send unanswered, whatever was answered before.
pub(super) const ALLOWANCE_MAX: u32 = 8_000;
/// Frames that are forgiven each second, up to [`ALLOWANCE`].
pub(super) const FORGIVEN_PER_SEC: u32 = 20;
/// Frames that one answer pays for: those of its request, with priorities and windows, its end, and
/// some more.
pub(super) const PAID_BY_ANSWER: u32 = 8;
/// Windows that may be widened for each piece of an answer: the stream's and the connection's.
pub(super) const UPDATES_PER_PIECE: u32 = 2;
/// Most windows that may be widened for pieces of the past: a reader that comes back to a full
/// buffer may say so for each.
pub(super) const UPDATES_DUE_MAX: u32 = 1 << 18;

/// RFC 9113, 4.1: a length of three bytes, a type, flags, and a stream of four.
pub(super) const HEAD_BYTES: usize = 9;
/// The longest padding of a frame, with the byte that tells it (RFC 9113, 6.1).
const PADDING_BYTES_MAX: usize = 256;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
/// Flag of DATA and HEADERS.
const END_STREAM: u8 = 0x1;
/// Flag of DATA and HEADERS.
pub(super) const PADDED: u8 = 0x8;

/// The account of one connection. See the module's documentation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frames {
    received: Walk,
    sent: Walk,
    allowance: u32,
    /// Up to when time has been counted.
    forgiven_until: Instant,
    updates_due: u32,
    last_stream: u32,
    /// The requests whose answers have not ended, by their streams. Bounded by `allowance`, and by
    /// what the library lets in.
    open: BTreeSet<u32>,
}

/// Why a connection is ended because of what its client has sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Rejection {
    /// More frames than were answered.
    #[error("the client sends too many frames that request nothing")]
    Flood,
    #[error("the client sends a frame that is larger than announced in SETTINGS")]
    FrameTooLarge,
    #[error("the client sends a frame that is too short for its flags")]
    FrameTooShort,
    #[error("the client sends another frame within a block of header fields")]
    BlockInterrupted,
    #[error("the client sends header fields that cannot be decompressed")]
    FieldsUnreadable,
}

impl Rejection {
    /// RFC 9113, 7.
    fn error_code(self) -> u8 {
        match self {
            Self::Flood => 0xb,
            Self::FrameTooLarge | Self::FrameTooShort => 0x6,
            Self::BlockInterrupted => 0x1,
            Self::FieldsUnreadable => 0x9,
        }
    }
}

impl From<Unreadable> for Rejection {
    fn from(Unreadable: Unreadable) -> Self {
        Self::FieldsUnreadable
    }
}

impl Frames {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            received: Walk { skip: HTTP2_PREFACE.len(), ..Walk::default() },
            sent: Walk::default(),
            allowance: ALLOWANCE,
            forgiven_until: now,
            updates_due: 0,
            last_stream: 0,
            open: BTreeSet::new(),
        }
    }

    /// Judges what has been read, from the preface on.
    pub(super) fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<(), Rejection> {
        self.forgive(now);
        let Self { received, allowance, updates_due, last_stream, open, .. } = self;
        let walked = received.over(bytes, |head| {
            if head.kind == HEADERS && head.stream > *last_stream {
                *last_stream = head.stream;
                open.insert(head.stream);
            } else if head.kind == RST_STREAM {
                open.remove(&head.stream);
            }
            if head.brings_data() {
                return ControlFlow::Continue(());
            }
            let is_due = head.kind == WINDOW_UPDATE && *updates_due > 0;
            let account = if is_due { &mut *updates_due } else { &mut *allowance };
            let Some(left) = account.checked_sub(1) else { return ControlFlow::Break(()) };
            *account = left;
            ControlFlow::Continue(())
        });
        if walked.is_break() { Err(Rejection::Flood) } else { Ok(()) }
    }

    /// Counts what has been written.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        let Self { sent, allowance, updates_due, open, .. } = self;
        let _all = sent.over(bytes, |head| {
            let ends = matches!(head.kind, HEADERS | DATA) && head.flags & END_STREAM != 0;
            if ends || head.kind == RST_STREAM {
                open.remove(&head.stream);
            }
            match head.kind {
                HEADERS => *allowance = (*allowance + PAID_BY_ANSWER).min(ALLOWANCE_MAX),
                DATA => *updates_due = (*updates_due + UPDATES_PER_PIECE).min(UPDATES_DUE_MAX),
                _ => {}
            }
            ControlFlow::Continue(())
        });
    }

    /// The last frame: GOAWAY (RFC 9113, 6.8) with the reason. None if another frame has been
    /// written in part.
    pub(super) fn last_words(&self, rejection: Rejection) -> Option<[u8; 17]> {
        if !self.sent.is_between_frames() {
            return None;
        }
        let code = rejection.error_code();
        let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, code];
        frame[9..13].copy_from_slice(&self.last_stream.to_be_bytes());
        Some(frame)
    }

    /// The last request that has come.
    pub(super) fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// How many of the requests up to this one have an answer that has not been written to its end.
    pub(super) fn open_up_to(&self, stream: u32) -> usize {
        self.open.range(..=stream).count()
    }

    fn forgive(&mut self, now: Instant) {
        let secs = now.saturating_duration_since(self.forgiven_until).as_secs();
        self.forgiven_until += Duration::from_secs(secs);
        if self.allowance < ALLOWANCE {
            let forgiven = u32::try_from(secs).unwrap_or(u32::MAX).saturating_mul(FORGIVEN_PER_SEC);
            self.allowance = self.allowance.saturating_add(forgiven).min(ALLOWANCE);
        }
    }
}

/// How far one direction has been walked over.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Walk {
    /// Bytes until the next head.
    skip: usize,
    head: [u8; HEAD_BYTES],
    /// How much of that head is here.
    filled: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct FrameHead {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Walk {
    /// Shows `each` every head that ends within these bytes, until it breaks off.
    fn over(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(FrameHead) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        loop {
            let skipped = self.skip.min(bytes.len());
            bytes = &bytes[skipped..];
            self.skip -= skipped;
            if bytes.is_empty() {
                return ControlFlow::Continue(());
            }
            let (taken, behind) = bytes.split_at((HEAD_BYTES - self.filled).min(bytes.len()));
            self.head[self.filled..][..taken.len()].copy_from_slice(taken);
            self.filled += taken.len();
            bytes = behind;
            if self.filled < HEAD_BYTES {
                return ControlFlow::Continue(());
            }
            self.filled = 0;
            let head = FrameHead::parse(self.head);
            self.skip = head.length;
            each(head)?;
        }
    }

    fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.filled == 0
    }
}

impl FrameHead {
    pub(super) fn parse([long, middle, short, kind, flags, stream @ ..]: [u8; HEAD_BYTES]) -> Self {
        Self {
            length: usize::from(long) << 16 | usize::from(middle) << 8 | usize::from(short),
            kind,
            flags,
            // RFC 9113, 4.1: the first bit is reserved, and ignored.
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }

    /// A part of a body. (How large a body may be, and so how many parts it has, is its reader's
    /// business.)
    fn brings_data(self) -> bool {
        let padding = if self.flags & PADDED == 0 { 0 } else { PADDING_BYTES_MAX };
        self.kind == DATA && (self.length > padding || (self.flags & END_STREAM != 0 && self.length > 0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, stream: u32, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).expect("short").to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend(stream.to_be_bytes());
        bytes.resize(HEAD_BYTES + payload, 0);
        bytes
    }

    fn begun(now: Instant) -> Frames {
        let mut frames = Frames::new(now);
        frames.receive(HTTP2_PREFACE, now).expect("a preface");
        frames
    }

    /// How many of these frames, sent again and again, a client has sent when it is stopped.
    fn sent_until_stopped(frames: &mut Frames, flood: &[Vec<u8>], now: Instant) -> u32 {
        let mut count = 0;
        for bytes in flood.iter().cycle().take(1_000_000) {
            count += 1;
            if frames.receive(bytes, now).is_err() {
                return count;
            }
        }
        panic!("nobody stops it");
    }

    #[test]
    fn whatever_asks_for_nothing_ends_after_a_thousand_frames() {
        let now = Instant::now();
        for (name, flood) in [
            ("PING", vec![frame(PING, 0, 0, 8)]),
            ("PING ACK", vec![frame(PING, 1, 0, 8)]),
            ("SETTINGS", vec![frame(4, 0, 0, 0)]),
            ("full SETTINGS", vec![frame(4, 0, 0, 6_000)]),
            ("PRIORITY", vec![frame(2, 0, 5, 5)]),
            ("WINDOW_UPDATE", vec![frame(WINDOW_UPDATE, 0, 0, 4)]),
            ("empty DATA", vec![frame(DATA, 0, 1, 0)]),
            ("padding without DATA", vec![frame(DATA, PADDED, 1, 256)]),
            ("RST_STREAM", vec![frame(RST_STREAM, 0, 1, 4)]),
            ("CONTINUATION", vec![frame(9, 0, 1, 0)]),
            ("requests that are taken back", vec![frame(HEADERS, 5, 1, 40), frame(RST_STREAM, 0, 1, 4)]),
            ("unknown frames", vec![frame(200, 0, 0, 100)]),
        ] {
            assert_eq!(sent_until_stopped(&mut begun(now), &flood, now), ALLOWANCE + 1, "{name}");
        }
    }

    #[test]
    fn time_forgives_a_little_and_never_more_than_there_was_at_first() {
        let start = Instant::now();
        let ping = [frame(PING, 0, 0, 8)];
        let mut frames = begun(start);
        sent_until_stopped(&mut frames, &ping, start);
        let later = start + Duration::from_millis(2_900);
        assert_eq!(sent_until_stopped(&mut frames, &ping, later), 2 * FORGIVEN_PER_SEC + 1);
        assert_eq!(
            sent_until_stopped(&mut frames, &ping, start + Duration::from_secs(3)),
            FORGIVEN_PER_SEC + 1
        );
        let much_later = start + Duration::from_secs(1 << 40);
        assert_eq!(sent_until_stopped(&mut frames, &ping, much_later), ALLOWANCE + 1);
    }

    #[test]
    fn a_client_that_pings_every_second_is_welcome_for_ever() {
        let start = Instant::now();
        let mut frames = begun(start);
        for secs in 0..100_000 {
            let now = start + Duration::from_secs(secs);
            for _ in 0..FORGIVEN_PER_SEC {
                frames.receive(&frame(PING, 0, 0, 8), now).expect("welcome");
            }
        }
    }

    #[test]
    fn bodies_cost_nothing_however_many_pieces_they_have() {
        let now = Instant::now();
        let mut frames = begun(now);
        for _ in 0..100_000 {
            frames.receive(&frame(DATA, 0, 1, 1), now).expect("a piece");
            frames.receive(&frame(DATA, PADDED, 1, 300), now).expect("a piece");
        }
    }

    #[test]
    fn past_conduct_buys_a_bounded_number_of_frames() {
        let now = Instant::now();
        let mut frames = begun(now);
        for _ in 0..1_000_000 {
            frames.sent(&frame(HEADERS, 4, 1, 60));
        }
        let count = sent_until_stopped(&mut frames, &[frame(PING, 0, 0, 8)], now);
        assert_eq!(count, ALLOWANCE_MAX + 1);
        for _ in 0..1_000_000 {
            frames.sent(&frame(DATA, 0, 1, 60));
        }
        assert_eq!(
            sent_until_stopped(&mut frames, &[frame(PING, 0, 0, 8)], now),
            1,
            "windows pay for windows only"
        );
        let count = sent_until_stopped(&mut frames, &[frame(WINDOW_UPDATE, 0, 0, 4)], now);
        assert_eq!(count, UPDATES_DUE_MAX + 1);
    }

    /// RFC 9113, 6.8.
    #[test]
    fn the_last_words_name_the_last_request_and_never_stand_within_another_frame() {
        let now = Instant::now();
        let mut frames = begun(now);
        frames
            .receive(&[frame(HEADERS, 4, 7, 10), frame(HEADERS, 5, 3, 10)].concat(), now)
            .expect("requests");
        let data = frame(DATA, 0, 7, 5);
        for length in 1..data.len() {
            let mut frames = frames.clone();
            frames.sent(&data[..length]);
            assert_eq!(frames.last_words(Rejection::Flood), None, "{length}");
            frames.sent(&data[length..]);
            let last_words = frames.last_words(Rejection::Flood);
            assert_eq!(last_words, Some([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0xb]));
        }
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let payload = prop_oneof![4 => 0_usize..20, 1 => 0_usize..700];
        (0_u8..12, any::<u8>(), 0_u32..9, payload)
            .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, payload))
    }

    fn pieces<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
    }

    proptest! {
        #[test]
        fn a_verdict_does_not_depend_on_how_the_bytes_were_cut(
            kinds in vec(any_frame(), 1..20),
            repeats in 1_usize..200,
            cuts in vec(any::<Index>(), 0..12),
        ) {
            let now = Instant::now();
            let bytes = [HTTP2_PREFACE, &kinds.concat().repeat(repeats)].concat();
            let judge = |pieces: Vec<&[u8]>| {
                let mut frames = Frames::new(now);
                let verdict = pieces.into_iter().try_for_each(|piece| frames.receive(piece, now));
                // What has come behind the last straw is not looked at.
                (verdict, frames.allowance, frames.last_stream)
            };
            let whole = judge(vec![&bytes]);
            prop_assert_eq!(judge(pieces(&bytes, &cuts)), whole);
            prop_assert_eq!(judge(bytes.chunks(1).collect()), whole);
        }

        #[test]
        fn what_was_sent_is_counted_however_it_was_cut(kinds in vec(any_frame(), 1..200), cuts in vec(any::<Index>(), 0..12)) {
            let now = Instant::now();
            let bytes = kinds.concat();
            let (mut whole, mut cut) = (Frames::new(now), Frames::new(now));
            whole.sent(&bytes);
            for piece in pieces(&bytes, &cuts) {
                cut.sent(piece);
            }
            prop_assert_eq!(cut, whole);
        }

        /// Every client that was looked at sends fewer frames for what it is answered.
        #[test]
        fn those_who_asks_and_is_answered_is_never_stopped(asks in vec((0_u32..400, 0_u32..3, any::<bool>()), 1..200)) {
            let now = Instant::now();
            let mut frames = begun(now);
            for (pieces, priorities, is_reset) in asks {
                let mut client = vec![frame(HEADERS, 4, 1, 60), frame(WINDOW_UPDATE, 0, 1, 4), frame(DATA, END_STREAM, 1, 0)];
                client.extend((0..priorities).map(|_| frame(2, 0, 1, 5)));
                prop_assert!(frames.receive(&client.concat(), now).is_ok());
                frames.sent(&frame(HEADERS, 4, 1, 60));
                for _ in 0..pieces {
                    frames.sent(&frame(DATA, 0, 1, 50));
                }
                let updates = [frame(WINDOW_UPDATE, 0, 0, 4), frame(WINDOW_UPDATE, 0, 1, 4)].concat();
                prop_assert!((0..pieces).all(|_| frames.receive(&updates, now).is_ok()));
                if is_reset {
                    prop_assert!(frames.receive(&frame(RST_STREAM, 0, 1, 4), now).is_ok());
                }
            }
        }
    }
}
