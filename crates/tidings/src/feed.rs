//! A feed: the newest part of the log, encoded, for one distinct matcher and format.
//!
//! A feed is written by one writer and read by every subscriber of its matcher. It is only a cache
//! of the log: it holds every matching entry after its [`start`](FeedState::start), and a reader
//! that is behind that reads the log itself. So dropping the front of a feed is always safe, and no
//! subscriber has a queue.
//!
//! Its bytes are in contiguous segments, the first ones small, so that a reader that is behind is
//! sent everything that it lacks of a segment in one call, straight from here. Positions in a feed
//! are counted in bytes since it began ([`Offset`]); they do not change when the front is dropped.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tidings_log::{Cursor, Entry, Epoch, Position};
use tidings_topic::Matcher;

use crate::{
    encode::Format,
    frames::{Audience, Frames, OpenFrames, Sent, Took, View},
    inbox::Seat,
};

/// A segment begins with room for this much, so that a quiet topic costs little.
const SEGMENT_BYTES_MIN: usize = 512;
/// It doubles until it has room for this much, which bounds what one call hands to a socket. A
/// larger event has a segment of its own.
const SEGMENT_BYTES_MAX: usize = 64 * 1024;
/// Memory of a segment beside its bytes and marks: its places in the feed and in the list of all
/// segments, and the shell of a feed that is gone, which lasts as long as its segments are in that
/// list.
pub(crate) const SEGMENT_OVERHEAD_BYTES: usize = 256;

/// How many bytes of a feed stand before a place.
pub(crate) type Offset = u64;

/// Encoded frames of one matcher in one format.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) matcher: Matcher,
    pub(crate) format: Format,
    state: RwLock<FeedState>,
    reader_count: AtomicUsize,
    /// The writer has written here and not woken anybody yet.
    touched: AtomicBool,
    listeners: Mutex<Listeners>,
}

#[derive(Debug)]
struct FeedState {
    epoch: Epoch,
    /// Every matching entry of this epoch after this position, up to the published head, is here.
    start: Position,
    /// Full segments, oldest first, never empty ones.
    sealed: VecDeque<Segment>,
    /// The segment that is being written.
    open: OpenFrames,
    open_offset: Offset,
    /// Memory of the open segment.
    open_bytes: usize,
    /// From this offset on, everything is for everybody.
    public_from: Offset,
}

#[derive(Debug)]
struct Segment {
    offset: Offset,
    frames: Arc<Frames>,
    memory_bytes: usize,
}

#[derive(Debug, Default)]
struct Listeners {
    pulled: HashMap<u64, Arc<AtomicWaker>>,
    next_number: u64,
    seats: Vec<Arc<Seat>>,
}

/// Where a frame stands, as a reader finds it.
#[derive(Clone, Debug)]
pub(crate) struct FrameAt {
    pub(crate) position: Position,
    pub(crate) audience: Option<Arc<Audience>>,
}

/// What a feed has for a reader at some place.
#[derive(Clone, Debug)]
pub(crate) enum Peek<T = FrameAt> {
    /// The next frame after the place.
    Frame(T),
    /// Nothing after the place, up to the head.
    Nothing,
    /// The feed begins after the place, or belongs to another epoch: read the log.
    Behind,
}

/// What came of sending from a feed.
#[derive(Debug)]
pub(crate) enum Owed {
    /// There was something, or there were only frames for others.
    Sent {
        /// Where to go on.
        offset: Offset,
        place: Option<Position>,
        /// The rest of a frame that has to be finished first.
        half: Option<(Position, Bytes)>,
        took: Took,
        /// Nothing is left after this.
        at_end: bool,
    },
    Nothing,
    /// The feed does not have this place any more: read the log.
    Behind,
}

impl Feed {
    /// An empty feed that will hold what comes after the head.
    pub(crate) fn new(matcher: Matcher, format: Format, head: Cursor) -> Self {
        let state = FeedState {
            epoch: head.epoch,
            start: head.position,
            sealed: VecDeque::new(),
            open: OpenFrames::default(),
            open_offset: 0,
            open_bytes: 0,
            public_from: 0,
        };
        Self {
            matcher,
            format,
            state: RwLock::new(state),
            reader_count: AtomicUsize::new(0),
            touched: AtomicBool::new(false),
            listeners: Mutex::default(),
        }
    }

    /// The first frame after a place and not after the head.
    pub(crate) fn peek(&self, place: Cursor, head: Position) -> Peek {
        let state = self.state();
        if state.is_behind(place) {
            return Peek::Behind;
        }
        let Some((view, index)) = state.find(place.position) else { return Peek::Nothing };
        let mark = &view.marks[index];
        if mark.position > head {
            return Peek::Nothing;
        }
        Peek::Frame(FrameAt { position: mark.position, audience: mark.audience.clone() })
    }

    /// The frame at this position, as long as the feed has it.
    pub(crate) fn with_frame<T>(&self, place: Cursor, use_it: impl FnOnce(&[u8], &[u8]) -> T) -> Option<T> {
        let state = self.state();
        if state.epoch != place.epoch || place.position <= state.start {
            return None;
        }
        let (view, index) = state.find_at(place.position)?;
        let mark = &view.marks[index];
        Some(use_it(&view.bytes[mark.start as usize..mark.end()], mark.event(view.bytes)))
    }

    /// The offset of the first frame after a place; none if the feed does not reach back to it.
    pub(crate) fn locate(&self, place: Cursor) -> Option<Offset> {
        let state = self.state();
        if state.is_behind(place) {
            return None;
        }
        let in_sealed = state.sealed.partition_point(|segment| segment.last() <= place.position);
        let (base, view) = match state.sealed.get(in_sealed) {
            Some(segment) => (segment.offset, segment.frames.view()),
            None => (state.open_offset, state.open.view()),
        };
        let start = view.marks.get(view.after(place.position)).map(|mark| u64::from(mark.start));
        Some(base + start.unwrap_or(view.bytes.len() as u64))
    }

    /// Hands everything from an offset on that stands together, and that this reader may receive,
    /// to one call of `write`.
    pub(crate) fn send(
        &self,
        offset: Offset,
        may_receive: impl FnMut(&Audience) -> bool,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<Owed> {
        let state = self.state();
        if offset < state.first_offset() {
            return Ok(Owed::Behind);
        }
        let sealed = (offset < state.open_offset).then(|| {
            let index = state.sealed.partition_point(|segment| segment.offset <= offset);
            &state.sealed[index - 1]
        });
        let (base, view) = match sealed {
            Some(segment) => (segment.offset, segment.frames.view()),
            None => (state.open_offset, state.open.view()),
        };
        let within = usize::try_from(offset - base).expect("a segment is far below 4 GiB");
        if within >= view.bytes.len() {
            return Ok(Owed::Nothing);
        }
        let Sent { offset, place, half, took } = if offset >= state.public_from {
            view.send_all(within, write)?
        } else {
            view.send(within, may_receive, write)?
        };
        let half = half.map(|half| {
            let rest = match sealed {
                Some(segment) => segment.frames.slice(half.start, half.end),
                // Only frames of ordinary size stand in an open segment.
                None => Bytes::copy_from_slice(&view.bytes[half.start..half.end]),
            };
            (half.position, rest)
        });
        let offset = base + offset as u64;
        Ok(Owed::Sent { offset, place, half, took, at_end: offset == state.end() })
    }

    /// Encodes an entry at the end. An entry that is here already is not written twice, as when two
    /// of its topics lead to one feed.
    pub(crate) fn push(&self, entry: &Entry) -> Grown {
        let mut state = self.state_mut();
        let position = entry.cursor.position;
        if state.last_position().is_some_and(|last| last >= position) {
            return Grown::default();
        }
        let mut grown = Grown::default();
        let size = entry.event.data.len() + FRAME_OVERHEAD_BYTES;
        if !state.open.is_empty() && state.open.len() + size > SEGMENT_BYTES_MAX {
            state.seal();
        }
        if state.open.is_empty() {
            state.open = OpenFrames::with_capacity(size.max(SEGMENT_BYTES_MIN));
            grown = Grown { bytes: SEGMENT_OVERHEAD_BYTES, begins_segment: true };
        }
        state.open.push(entry, position, self.format);
        let memory_bytes = state.open.memory_bytes();
        grown.bytes += memory_bytes - state.open_bytes;
        state.open_bytes = memory_bytes;
        if state.open.last().is_some_and(|mark| mark.audience.is_some()) {
            state.public_from = state.end();
        }
        if size > SEGMENT_BYTES_MAX {
            state.seal();
        }
        grown
    }

    /// Notes that the feed was written; true the first time since it was announced.
    pub(crate) fn touch(&self) -> bool {
        !self.touched.swap(true, Ordering::Relaxed)
    }

    /// Wakes the one that reads this feed.
    pub(crate) fn announce(&self) {
        self.touched.store(false, Ordering::Relaxed);
        self.wake_readers();
    }

    /// Drops the oldest segment: the one that has not read it finds it in the log. Returns its
    /// memory.
    pub(crate) fn drop_front(&self) -> usize {
        let mut state = self.state_mut();
        if state.sealed.is_empty() {
            state.seal();
        }
        let Some(segment) = state.sealed.pop_front() else { return 0 };
        state.start = segment.last();
        segment.memory_bytes
    }

    /// Forgets everything; returns how much memory that was.
    pub(crate) fn clear(&self) -> usize {
        let mut state = self.state_mut();
        state.seal();
        state.start = state.last_position().unwrap_or(state.start);
        state.sealed.drain(..).map(|segment| segment.memory_bytes).sum()
    }

    /// Forgets everything and begins after a place, as a new feed does.
    pub(crate) fn restart(&self, after: Cursor) {
        let mut state = self.state_mut();
        state.seal();
        state.sealed.clear();
        state.epoch = after.epoch;
        state.start = after.position;
        // Nobody's offset is valid any more, whatever the epoch, and none becomes it by chance.
        state.open_offset += 1;
        state.public_from = state.open_offset;
    }

    /// Adds a reader that is woken when the feed grows. Returns the number to remove it with.
    pub(crate) fn add_reader(&self, waker: Arc<AtomicWaker>) -> u64 {
        let mut listeners = self.listeners();
        let number = listeners.next_number;
        listeners.next_number += 1;
        listeners.pulled.insert(number, waker);
        self.reader_count.fetch_add(1, Ordering::Relaxed);
        number
    }

    /// Removes a reader, the one that wakes it. Returns how many remain.
    pub(crate) fn remove_reader(&self, number: u64) -> usize {
        self.listeners().pulled.remove(&number);
        self.reader_count.fetch_sub(1, Ordering::Relaxed) - 1
    }

    /// Lets a reader be woken by its shard from now on instead of by itself: it stays counted.
    pub(crate) fn hand_over(&self, number: u64) {
        self.listeners().pulled.remove(&number);
    }

    /// Wakes this shard, too, when the feed grows.
    pub(crate) fn add_seat(&self, seat: Arc<Seat>) {
        self.listeners().seats.push(seat);
    }

    pub(crate) fn remove_seat(&self, seat: &Arc<Seat>) {
        self.listeners().seats.retain(|other| !Arc::ptr_eq(other, seat));
    }

    pub(crate) fn reader_count(&self) -> usize {
        self.reader_count.load(Ordering::Relaxed)
    }

    pub(crate) fn wake_readers(&self) {
        let listeners = self.listeners();
        for waker in listeners.pulled.values() {
            waker.wake();
        }
        for seat in &listeners.seats {
            seat.ring();
        }
    }

    // A panic while somebody holds a feed ends that connection; the feed itself is changed by
    // infallible steps only.
    fn state(&self) -> RwLockReadGuard<'_, FeedState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, FeedState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By how much a feed has grown.
#[derive(Debug, Default)]
pub(crate) struct Grown {
    pub(crate) bytes: usize,
    pub(crate) begins_segment: bool,
}

/// What a frame has beside its data, near enough to know whether it fits: chunk size, field names,
/// id, type.
const FRAME_OVERHEAD_BYTES: usize = 128;

impl Segment {
    fn last(&self) -> Position {
        self.frames.marks().last().expect("a segment has frames").position
    }
}

impl FeedState {
    fn is_behind(&self, place: Cursor) -> bool {
        self.epoch != place.epoch || place.position < self.start
    }

    fn first_offset(&self) -> Offset {
        self.sealed.front().map_or(self.open_offset, |segment| segment.offset)
    }

    fn end(&self) -> Offset {
        self.open_offset + self.open.len() as u64
    }

    fn last_position(&self) -> Option<Position> {
        let open = self.open.last().map(|mark| mark.position);
        open.or_else(|| self.sealed.back().map(Segment::last))
    }

    /// The first frame after a position.
    fn find(&self, position: Position) -> Option<(View<'_>, usize)> {
        let in_sealed = self.sealed.partition_point(|segment| segment.last() <= position);
        let view =
            self.sealed.get(in_sealed).map_or_else(|| self.open.view(), |segment| segment.frames.view());
        let index = view.after(position);
        (index < view.marks.len()).then_some((view, index))
    }

    /// The frame at a position.
    fn find_at(&self, position: Position) -> Option<(View<'_>, usize)> {
        let in_sealed = self.sealed.partition_point(|segment| segment.last() < position);
        let view =
            self.sealed.get(in_sealed).map_or_else(|| self.open.view(), |segment| segment.frames.view());
        let index = view.marks.partition_point(|mark| mark.position < position);
        (view.marks.get(index)?.position == position).then_some((view, index))
    }

    /// Makes the open segment a full one, if there is anything in it.
    fn seal(&mut self) {
        let end = self.end();
        let open = std::mem::take(&mut self.open);
        let memory_bytes = std::mem::take(&mut self.open_bytes);
        if !open.is_empty() {
            self.sealed.push_back(Segment {
                offset: self.open_offset,
                frames: Arc::new(open.seal()),
                memory_bytes,
            });
        }
        self.open_offset = end;
    }
}

#[cfg(test)]
mod tests {
    use tidings_log::Timestamp;
    use tidings_topic::{NewEvent, Validator};

    use super::*;

    fn cursor(number: u128) -> Cursor {
        Cursor { epoch: Epoch::from_u64(1), position: Position::from_bytes(number.to_be_bytes()) }
    }

    /// A feed with events of this size at the positions from 1 on.
    fn feed(sizes: &[usize]) -> Feed {
        let feed = Feed::new(Validator::default().exact("a").expect("valid"), Format::Plain, cursor(0));
        for (size, number) in sizes.iter().zip(1..) {
            let event = Validator::default().event(NewEvent::new("a", "x".repeat(*size))).expect("valid");
            feed.push(&Entry::new(cursor(number), Timestamp::from_millis(0), event));
        }
        feed
    }

    /// What one call hands to a socket that takes so many bytes, and what came of it.
    fn send(feed: &Feed, offset: Offset, room: usize) -> (usize, Owed) {
        let mut given = 0;
        let owed = feed.send(
            offset,
            |_| true,
            |bytes| {
                given = bytes.len();
                Ok(room.min(given))
            },
        );
        (given, owed.expect("the socket works"))
    }

    #[test]
    fn what_lies_beyond_the_head_is_not_there_yet() {
        let feed = feed(&[10, 10]);
        assert!(matches!(feed.peek(cursor(1), cursor(1).position), Peek::Nothing));
        assert!(matches!(feed.peek(cursor(1), cursor(2).position), Peek::Frame(_)));
    }

    #[test]
    fn one_call_hands_over_one_segment_at_most() {
        let feed = feed(&[1_000; 500]);
        let (mut offset, mut calls) = (0, 0);
        loop {
            let (given, owed) = send(&feed, offset, usize::MAX);
            let Owed::Sent { offset: next, at_end, .. } = owed else { panic!("there is more: {owed:?}") };
            assert!(given <= SEGMENT_BYTES_MAX, "{given}");
            (offset, calls) = (next, calls + 1);
            if at_end {
                break;
            }
        }
        assert!((8..=10).contains(&calls), "{calls}");
    }

    /// A hundred stalled sockets in the middle of one event of a megabyte must not cost a hundred
    /// megabytes.
    #[test]
    fn the_rest_of_a_large_event_is_shared() {
        let feed = feed(&[1 << 20]);
        let rests = [1_000, 2_000].map(|room| match send(&feed, 0, room).1 {
            Owed::Sent { half: Some((_, rest)), .. } => rest,
            owed => panic!("it took only a part: {owed:?}"),
        });
        assert_eq!(rests[0][1_000..].as_ptr(), rests[1].as_ptr());
    }

    #[test]
    fn no_offset_of_before_is_valid_after_a_restart() {
        let feed = feed(&[10]);
        let Owed::Sent { offset, at_end: true, .. } = send(&feed, 0, usize::MAX).1 else {
            panic!("all of it")
        };
        assert!(matches!(send(&feed, offset, usize::MAX).1, Owed::Nothing));
        feed.restart(cursor(5));
        assert!(matches!(send(&feed, offset, usize::MAX).1, Owed::Behind));
    }
}
