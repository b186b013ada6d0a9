//! Encoded events, one after the other: the contents of feeds and of pages of history.
//!
//! Each frame is one HTTP/1.1 chunk with one event in it, so any run of complete frames can be sent
//! as it is. [`FrameMeta`] gives each frame's place in the log and in the bytes, and who may receive
//! it.
//!
//! Frames are changed only by the one that owns them. Everybody else has them in an [`Arc`], and
//! nobody changes what somebody else can see: so they are read and sent without a lock.

use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tidings_log::{Entry, Position};
use tidings_topic::{ConnectionId, Topic};

use crate::{
    counts::deliveries::Delivered,
    feed::{
        encode::{Format, encode_entry},
        place::{FrameKey, LivePlace},
    },
};

/// A part of a frame that is kept by itself is copied if it is shorter than this. Otherwise it
/// shares the memory of its frames: many sockets that are full in the middle of one large event
/// must not cost its size each.
const SHARED_BYTES_MIN: usize = 16 * 1024;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    metas: Vec<FrameMeta>,
    audience_bytes: usize,
}

/// One frame: where it is and whom it is for.
#[derive(Clone, Debug)]
pub(crate) struct FrameMeta {
    pub(crate) position: Position,
    /// The number of an ephemeral event, which is after the entry at this position. 0 for an entry.
    ephemeral: u64,
    /// Where the chunk begins.
    start: u32,
    /// The event inside the chunk.
    event_start: u32,
    event_end: u32,
    /// Set if not everybody who reads these frames may receive this one.
    pub(crate) audience: Option<Arc<Audience>>,
}

/// Whom an event is for that is not for everybody. Neighbours with the same audience share it, so
/// that a filter that has been compared with it need not be compared again.
#[derive(Debug)]
pub(crate) struct Audience {
    /// Distinguishes audiences for as long as the process lives.
    pub(crate) serial: u64,
    topics: Vec<Topic>,
    private: bool,
    except: Option<ConnectionId>,
}

/// One frame, kept for as long as it is needed.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    frames: Arc<Frames>,
    index: usize,
}

/// What one write to a socket has achieved.
#[derive(Debug, Default)]
pub(crate) struct WriteProgress {
    /// Where the next frame begins.
    pub(crate) offset: usize,
    /// The last frame that was written completely, or skipped if none was written.
    pub(crate) position: Option<Position>,
    pub(crate) partial: Option<PartialFrame>,
    pub(crate) accepted: Accepted,
    pub(crate) delivered: Delivered,
}

/// How much a socket accepted of what it was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Accepted {
    /// There was nothing to write.
    #[default]
    Nothing,
    /// Not everything: it is full.
    Part,
    All,
}

/// A frame of which the socket accepted only the beginning.
#[derive(Debug)]
pub(crate) struct PartialFrame {
    pub(crate) position: Position,
    /// Where the rest is.
    pub(crate) rest: Range<usize>,
}

impl Frames {
    /// Room for about this many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Encodes an entry of the log after those before it.
    pub(crate) fn push(&mut self, entry: &Entry, format: Format) {
        self.push_numbered(entry, 0, format);
    }

    /// Encodes an entry, or the ephemeral event with this number, after those before it.
    pub(crate) fn push_numbered(&mut self, entry: &Entry, ephemeral: u64, format: Format) {
        let start = offset(self.bytes.len());
        let event = encode_entry(entry, format, &mut self.bytes);
        let audience = Audience::new(entry).map(|audience| self.share_audience(Arc::new(audience)));
        self.metas.push(FrameMeta {
            position: entry.cursor.position,
            ephemeral,
            start,
            event_start: offset(event.start),
            event_end: offset(event.end),
            audience,
        });
    }

    /// Copies other frames to the end.
    pub(crate) fn append(&mut self, other: &Self) {
        self.append_run(other, 0..other.metas.len());
    }

    fn append_run(&mut self, other: &Self, run: Range<usize>) {
        let metas = &other.metas[run];
        let (Some(first), Some(last)) = (metas.first(), metas.last()) else { return };
        let (start, end) = (offset(self.bytes.len()), last.end());
        self.bytes.extend_from_slice(&other.bytes[first.start as usize..end]);
        let moved = |at: u32| at - first.start + start;
        for meta in metas {
            let audience = meta.audience.as_ref().map(|audience| self.share_audience(Arc::clone(audience)));
            self.metas.push(FrameMeta {
                position: meta.position,
                ephemeral: meta.ephemeral,
                start: moved(meta.start),
                event_start: moved(meta.event_start),
                event_end: moved(meta.event_end),
                audience,
            });
        }
    }

    /// The audience of the last frame, if it is the same as this.
    fn share_audience(&mut self, audience: Arc<Audience>) -> Arc<Audience> {
        let last = self.metas.last().and_then(|meta| meta.audience.as_ref());
        if let Some(last) = last.filter(|last| last.is_same(&audience)) {
            return Arc::clone(last);
        }
        self.audience_bytes += audience.memory_bytes();
        audience
    }

    /// Forgets all frames and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.metas.clear();
        self.audience_bytes = 0;
    }

    /// Gives back memory that was taken for more frames.
    pub(crate) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.metas.shrink_to_fit();
    }

    /// Copies of those frames that `keep` accepts.
    pub(crate) fn retain(&self, keep: impl Fn(&FrameMeta) -> bool) -> Self {
        let mut kept = Self::with_capacity(self.bytes.len());
        for (index, _) in self.metas.iter().enumerate().filter(|(_, meta)| keep(meta)) {
            kept.append_run(self, index..index + 1);
        }
        kept
    }

    pub(crate) fn metas(&self) -> &[FrameMeta] {
        &self.metas
    }

    /// How many bytes the frames have.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How many bytes they can have before more memory is needed.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Where the last frame is.
    pub(crate) fn last(&self) -> Option<FrameKey> {
        self.metas.last().map(FrameMeta::key)
    }

    /// The position of the last frame that is an entry of the log.
    pub(crate) fn last_entry(&self) -> Option<Position> {
        self.metas.iter().rfind(|meta| meta.ephemeral == 0).map(|meta| meta.position)
    }

    /// Whether the last frame is not for everybody.
    pub(crate) fn ends_with_audience(&self) -> bool {
        self.metas.last().is_some_and(|meta| meta.audience.is_some())
    }

    /// The memory of the frames, and of audiences where they are not shared.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.metas.capacity() * size_of::<FrameMeta>() + self.audience_bytes
    }

    /// The first frame after a place.
    pub(crate) fn after(&self, place: LivePlace) -> usize {
        let first = self.metas.partition_point(|meta| meta.key() <= place.key());
        first + self.metas[first..].iter().take_while(|meta| !place.is_before(meta.key())).count()
    }

    /// The frame that begins at an offset.
    pub(crate) fn at(&self, offset: usize) -> usize {
        self.metas.partition_point(|meta| (meta.start as usize) < offset)
    }

    /// Where this frame begins; the end of the bytes if there is none.
    pub(crate) fn offset_of(&self, index: usize) -> usize {
        self.metas.get(index).map_or(self.bytes.len(), |meta| meta.start as usize)
    }

    /// The frames as they are sent.
    #[cfg(test)]
    pub(crate) fn chunks(&self) -> Vec<&[u8]> {
        self.metas.iter().map(|meta| &self.bytes[meta.start as usize..meta.end()]).collect()
    }

    /// A part of the bytes, to be kept.
    pub(crate) fn bytes_of(frames: &Arc<Self>, range: Range<usize>) -> Bytes {
        struct Shared(Arc<Frames>);

        impl AsRef<[u8]> for Shared {
            fn as_ref(&self) -> &[u8] {
                &self.0.bytes
            }
        }

        if range.len() < SHARED_BYTES_MIN {
            return Bytes::copy_from_slice(&frames.bytes[range]);
        }
        Bytes::from_owner(Shared(Arc::clone(frames))).slice(range)
    }

    /// Writes frames from an offset on, as many as follow each other and may be received, in one
    /// call of `write`. Frames before them that may not be received are skipped.
    pub(crate) fn write_permitted(
        &self,
        offset: usize,
        mut may_receive: impl FnMut(&Audience) -> bool,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<WriteProgress> {
        let mut last_decision: Option<(u64, bool)> = None;
        let mut is_permitted = |meta: &FrameMeta| match &meta.audience {
            None => true,
            Some(audience) => match last_decision {
                Some((serial, decision)) if serial == audience.serial => decision,
                _ => {
                    let decision = may_receive(audience);
                    last_decision = Some((audience.serial, decision));
                    decision
                }
            },
        };
        let from = self.at(offset);
        let first = from + self.metas[from..].iter().take_while(|meta| !is_permitted(meta)).count();
        let end = first + self.metas[first..].iter().take_while(|meta| is_permitted(meta)).count();
        if first == end {
            return Ok(WriteProgress {
                offset: self.bytes.len(),
                position: self.metas[from..].last().map(|meta| meta.position),
                ..WriteProgress::default()
            });
        }
        self.write_range(self.offset_of(first)..self.metas[end - 1].end(), write)
    }

    /// Writes everything from an offset on, which is known to be for everybody.
    pub(crate) fn write_all(
        &self,
        offset: usize,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<WriteProgress> {
        if offset >= self.bytes.len() {
            return Ok(WriteProgress { offset: self.bytes.len(), ..WriteProgress::default() });
        }
        self.write_range(offset..self.bytes.len(), write)
    }

    /// Writes complete frames.
    fn write_range(
        &self,
        range: Range<usize>,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<WriteProgress> {
        let written = write(&self.bytes[range.clone()])?;
        let stop = range.start + written;
        // Those that were written completely, and those before them.
        let complete = if stop == self.bytes.len() {
            self.metas.len()
        } else {
            self.metas.partition_point(|meta| meta.end() <= stop)
        };
        let last = complete.checked_sub(1).map(|index| &self.metas[index]);
        let last = last.filter(|last| last.end() > range.start);
        let position = last.map(|last| last.position);
        let events = match last {
            None => 0,
            // Most often there is one.
            Some(last) if last.start as usize == range.start => 1,
            Some(_) => complete - self.at(range.start),
        };
        let delivered = Delivered { events: events as u64, bytes: written as u64 };
        if stop == range.end {
            return Ok(WriteProgress {
                offset: stop,
                position,
                partial: None,
                accepted: Accepted::All,
                delivered,
            });
        }
        let next = &self.metas[complete];
        let is_partial = (next.start as usize) < stop;
        Ok(WriteProgress {
            offset: if is_partial { next.end() } else { stop },
            position,
            partial: is_partial.then(|| PartialFrame { position: next.position, rest: stop..next.end() }),
            accepted: Accepted::Part,
            delivered,
        })
    }
}

impl FrameMeta {
    pub(crate) fn key(&self) -> FrameKey {
        FrameKey { position: self.position, ephemeral: self.ephemeral }
    }

    /// Where the chunk ends: after the line end that follows the event.
    fn end(&self) -> usize {
        self.event_end as usize + b"\r\n".len()
    }

    fn event(&self) -> Range<usize> {
        self.event_start as usize..self.event_end as usize
    }
}

impl Frame {
    pub(crate) fn new(frames: &Arc<Frames>, index: usize) -> Option<Self> {
        (index < frames.metas.len()).then(|| Self { frames: Arc::clone(frames), index })
    }

    pub(crate) fn position(&self) -> Position {
        self.meta().position
    }

    pub(crate) fn key(&self) -> FrameKey {
        self.meta().key()
    }

    pub(crate) fn audience(&self) -> Option<&Audience> {
        self.meta().audience.as_deref()
    }

    /// The whole frame.
    pub(crate) fn chunk(&self) -> &[u8] {
        &self.frames.bytes[self.meta().start as usize..self.meta().end()]
    }

    /// Where the next frame begins.
    pub(crate) fn end(&self) -> usize {
        self.meta().end()
    }

    /// The event, without its chunk.
    pub(crate) fn event(&self) -> Bytes {
        Frames::bytes_of(&self.frames, self.meta().event())
    }

    fn meta(&self) -> &FrameMeta {
        &self.frames.metas[self.index]
    }
}

impl Audience {
    /// None for an event that is for everybody.
    fn new(entry: &Entry) -> Option<Self> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let event = &entry.event;
        (event.private || event.except.is_some()).then(|| Self {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            topics: event.topics.clone(),
            private: event.private,
            except: event.except,
        })
    }

    /// Whether a subscriber belongs to it, of which `is_granted` knows whether the topics are
    /// covered; it is asked only if that matters.
    pub(crate) fn admits(
        &self,
        connection: &ConnectionId,
        is_granted: impl FnOnce(&[Topic]) -> bool,
    ) -> bool {
        !self.leaves_out(connection) && (!self.private || is_granted(&self.topics))
    }

    /// Whether the publisher has excepted this connection.
    pub(crate) fn leaves_out(&self, connection: &ConnectionId) -> bool {
        self.except.as_ref() == Some(connection)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.private == other.private && self.except == other.except && self.topics == other.topics
    }

    /// Its memory, near enough for limits.
    fn memory_bytes(&self) -> usize {
        let topics: usize = self.topics.iter().map(|topic| topic.as_str().len() + 32).sum();
        size_of::<Self>() + topics
    }
}

fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("segments and pages are bounded far below 4 GiB")
}

#[cfg(test)]
pub(crate) mod tests {
    use tidings_log::{Cursor, Epoch, Timestamp};
    use tidings_topic::{NewEvent, Validator};

    use super::*;

    /// Private events on these topics, so many on each.
    pub(crate) fn private(each: usize, topics: &[&str]) -> Frames {
        let mut frames = Frames::default();
        for (number, topic) in topics.iter().flat_map(|topic| std::iter::repeat_n(topic, each)).enumerate() {
            push(&mut frames, number as u128 + 1, NewEvent::new(*topic, number.to_string()).private());
        }
        frames
    }

    fn push(frames: &mut Frames, number: u128, new: NewEvent) {
        let position = Position::from_bytes(number.to_be_bytes());
        let cursor = Cursor { epoch: Epoch::from_u64(1), position };
        let event = Validator::default().event(new).expect("valid");
        frames.push(&Entry::new(cursor, Timestamp::from_millis(0), event), Format::Plain);
    }

    #[test]
    fn neighbours_with_the_same_audience_are_authorised_once() {
        // However they came to stand next to each other.
        let mut joined = private(50, &["a"]);
        let rest = private(100, &["a", "b", "c"]);
        joined.append_run(&rest, 50..300);
        for frames in [private(100, &["a", "b", "c"]), joined] {
            let mut asked = Vec::new();
            let topic = |audience: &Audience| audience.topics[0].as_str().to_owned();
            let progress = frames.write_permitted(
                0,
                |audience| {
                    asked.push(topic(audience));
                    asked.len() < 3
                },
                |bytes| Ok(bytes.len()),
            );
            let progress = progress.expect("it accepted everything");
            assert_eq!(asked, ["a", "b", "c"]);
            assert_eq!(progress.position, Some(frames.metas()[199].position), "a and b in one call");
        }
    }

    /// A decision that was made for one of them is taken for the other.
    #[test]
    fn neighbours_share_an_audience_only_if_all_of_it_is_the_same() {
        let new = |topic: &str, except: u8| {
            NewEvent::new(topic, "x").except(ConnectionId::from_random([except; 16]))
        };
        for (next, is_shared) in [
            (new("a", 1).private(), true),
            (new("a", 1), false),
            (new("a", 2).private(), false),
            (new("b", 1).private(), false),
        ] {
            let mut frames = Frames::default();
            push(&mut frames, 1, new("a", 1).private());
            push(&mut frames, 2, next.clone());
            let serials: Vec<_> = frames
                .metas
                .iter()
                .filter_map(|meta| meta.audience.as_ref())
                .map(|audience| audience.serial)
                .collect();
            assert_eq!((serials.len(), serials[0] == serials[1]), (2, is_shared), "{next:?}");
        }
    }

    #[test]
    fn frames_that_were_cleared_count_no_audience_of_before() {
        let mut frames = private(10, &["a", "b"]);
        let memory_bytes = frames.memory_bytes();
        frames.clear();
        frames.append(&private(10, &["a", "b"]));
        assert_eq!(frames.memory_bytes(), memory_bytes);
    }

    #[test]
    fn appended_frames_are_the_same_as_frames_encoded_in_place() {
        let whole = private(3, &["a", "b"]);
        let mut joined = Frames::default();
        for run in [0..2, 2..2, 2..3, 3..6] {
            joined.append_run(&whole, run);
        }
        assert_eq!(joined.bytes, whole.bytes);
        let places = |frames: &Frames| -> Vec<_> {
            frames.metas.iter().map(|meta| (meta.position, meta.start, meta.event())).collect()
        };
        assert_eq!(places(&joined), places(&whole));
    }

    #[test]
    fn the_rest_of_a_large_frame_is_shared_and_that_of_a_small_one_is_not_kept_alive_by_it() {
        let frames = Arc::new(Frames { bytes: vec![b'x'; SHARED_BYTES_MIN], ..Frames::default() });
        let [large, small] = [0, 1].map(|from| Frames::bytes_of(&frames, from..SHARED_BYTES_MIN));
        assert_eq!(large.as_ptr(), frames.bytes.as_ptr());
        assert_eq!(Arc::strong_count(&frames), 2);
        assert_eq!(small, large[1..]);
    }
}
