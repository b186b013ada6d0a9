//! A feed: the newest part of the log, encoded, for one distinct matcher and format.
//!
//! A feed is written by one writer and read by every subscriber of its matcher. It is only a cache
//! of the log: it holds every matching entry after its [`start`](Content::start), and a reader that
//! is behind that reads the log itself. So dropping the front of a feed is always safe, and no
//! subscriber has a queue. Between the entries there are ephemeral events, which are nowhere else:
//! one that is dropped is lost to those who have not read it, and sends nobody to the log.
//!
//! Its bytes are in contiguous [segments](Segment), so that a reader that is behind is sent
//! everything that it lacks of a segment in one call. Positions in a feed are counted in bytes
//! since it began ([`Offset`]); they do not change when the front is dropped.
//!
//! **Nobody sends while holding a lock.** A shard takes a [`Snapshot`] and sends from that; a
//! pulled reader takes single [`Frame`]s. Both keep the frames alive that they came from, and what
//! somebody keeps is never changed: the writer appends in place as long as it is alone with the end
//! of the segment, and begins another piece otherwise. Pieces are joined again as soon as nobody
//! keeps the first of them, at the latest when the next snapshot is taken. So one shard is always
//! sent from one piece.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, PoisonError},
};

use bytes::Bytes;
use smallvec::SmallVec;
use tidings_log::{Cursor, Epoch, Position};
use tidings_topic::Matcher;

use crate::{
    counts::deliveries::Delivered,
    feed::encode::Format,
    feed::frames::{Accepted, Audience, Frame, Frames},
    feed::place::{FrameKey, LivePlace},
    feed::sampling::LastMark,
    shard::inbox::FeedNotifier,
    sync::{
        AtomicWaker, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

/// A piece begins with room for this much, so that a quiet topic costs little.
const PIECE_BYTES_MIN: usize = 512;
/// It doubles as it grows. A segment holds this much at most, which bounds what one call hands to a
/// socket. A larger event has a segment of its own.
pub(crate) const SEGMENT_BYTES_MAX: usize = 64 * 1024;

/// How many bytes of a feed are before a place in it.
pub(crate) type Offset = u64;

/// Encoded frames of one matcher in one format.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) matcher: Matcher,
    pub(crate) format: Format,
    content: Mutex<Content>,
    /// The end of the content, for those that only ask whether it has grown.
    end: AtomicU64,
    /// The memory of all feeds of the hub.
    memory_of_all: Arc<AtomicUsize>,
    reader_count: AtomicUsize,
    /// The writer has written here and not notified the readers yet.
    has_grown: AtomicBool,
    /// The last entry here that is followed on its way. Readers are notified of it later.
    pub(crate) mark: LastMark,
    listeners: Mutex<Listeners>,
}

#[derive(Debug)]
struct Content {
    epoch: Epoch,
    /// Every matching entry of this epoch after this position, up to the published head, is here.
    start: Position,
    /// The last entry that was written, or the start.
    last: Position,
    /// The number of the last ephemeral event that was written.
    last_ephemeral: u64,
    /// From this offset on, everything is from the log.
    stored_from: Offset,
    /// Oldest first, none of them empty. The last one grows.
    segments: VecDeque<Segment>,
    end: Offset,
    /// From this offset on, everything is for everybody.
    public_from: Offset,
    memory_bytes: usize,
    /// It has no readers any more: what the writer is about to write here is not wanted.
    is_closed: bool,
}

/// Contiguous frames, at most [`SEGMENT_BYTES_MAX`] or one event: in one piece, or in a few for as
/// long as a reader keeps one of them.
#[derive(Debug)]
struct Segment {
    offset: Offset,
    pieces: SmallVec<[Arc<Frames>; 1]>,
}

#[derive(Debug, Default)]
struct Listeners {
    pulled: HashMap<u64, Arc<AtomicWaker>>,
    next_number: u64,
    shards: SmallVec<[Arc<FeedNotifier>; 1]>,
}

/// The frames of a feed from some offset on, as they were at one moment. It keeps them from being
/// changed and their memory from being freed, so it is short-lived.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Oldest first.
    pieces: SmallVec<[(Offset, Arc<Frames>); 2]>,
    from: Offset,
    end: Offset,
    public_from: Offset,
}

/// What a feed has for a reader after some position.
#[derive(Clone, Debug)]
pub(crate) enum Peek<T = Frame> {
    /// The next frame.
    Frame(T),
    /// Nothing up to the head.
    Nothing,
    /// The feed begins later, or belongs to another epoch: read the log.
    Behind,
}

/// What one write from a snapshot has achieved.
#[derive(Debug)]
pub(crate) struct FeedProgress {
    /// Where to continue.
    pub(crate) offset: Offset,
    /// The last frame that was written completely, or skipped because it is for others.
    pub(crate) position: Option<Position>,
    /// The rest of a frame that has to be finished first.
    pub(crate) partial: Option<(Position, Bytes)>,
    pub(crate) accepted: Accepted,
    /// Nothing is left after this.
    pub(crate) at_end: bool,
    pub(crate) delivered: Delivered,
}

impl Feed {
    /// An empty feed that will hold what comes after a place in the log.
    pub(crate) fn new(
        matcher: Matcher,
        format: Format,
        after: Cursor,
        memory_of_all: Arc<AtomicUsize>,
    ) -> Self {
        let content = Content {
            epoch: after.epoch,
            start: after.position,
            last: after.position,
            last_ephemeral: 0,
            stored_from: 0,
            segments: VecDeque::new(),
            end: 0,
            public_from: 0,
            memory_bytes: 0,
            is_closed: false,
        };
        Self {
            matcher,
            format,
            content: Mutex::new(content),
            end: AtomicU64::new(0),
            memory_of_all,
            reader_count: AtomicUsize::new(0),
            has_grown: AtomicBool::new(false),
            mark: LastMark::default(),
            listeners: Mutex::default(),
        }
    }

    /// The first frame after a place and not after the head.
    pub(crate) fn peek(&self, after: LivePlace, head: LivePlace) -> Peek {
        let content = self.content();
        if content.is_behind(after.log) {
            return Peek::Behind;
        }
        let frame = content.frame_after(after).filter(|frame| frame.key() <= head.key());
        frame.map_or(Peek::Nothing, Peek::Frame)
    }

    /// The offset from which on everything is after a place. None if the feed does not reach back
    /// to it, or may have ephemeral events there that are not for a reader at this place.
    pub(crate) fn locate(&self, after: LivePlace) -> Option<Offset> {
        let content = self.content();
        let offset = (!content.is_behind(after.log)).then(|| content.offset_after(after));
        offset.filter(|offset| *offset >= content.stored_from)
    }

    /// Everything from an offset on; none if the feed does not reach back to it.
    pub(crate) fn snapshot(&self, from: Offset) -> Option<Snapshot> {
        self.change(|content| content.snapshot(from))
    }

    /// Whether a snapshot lacks nothing. What is written at the same time may be missing from the
    /// answer: the readers are notified of it afterwards.
    pub(crate) fn is_current(&self, snapshot: &Snapshot) -> bool {
        self.end.load(Ordering::Relaxed) == snapshot.end
    }

    /// Appends the frame of an entry. One that is here already is not written twice, as when two of
    /// its topics lead to one feed. Whether a new segment was begun for it.
    pub(crate) fn append(&self, frame: &Arc<Frames>) -> bool {
        self.change(|content| content.append(frame))
    }

    /// Drops the oldest segment: a reader that has not read it finds it in the log.
    pub(crate) fn drop_front(&self) {
        drop(self.change(Content::drop_front));
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        drop(self.change(Content::clear));
    }

    /// Drops everything, and whatever may still be written.
    pub(crate) fn close(&self) {
        drop(self.change(|content| {
            content.is_closed = true;
            content.clear()
        }));
    }

    /// Drops everything and begins after a place, as a new feed does.
    pub(crate) fn restart(&self, after: Cursor) {
        drop(self.change(|content| {
            let dropped = content.clear();
            content.epoch = after.epoch;
            content.start = after.position;
            content.last = after.position;
            // No earlier offset is valid any more, whatever the epoch, and none becomes it by
            // chance.
            content.end += 1;
            content.public_from = content.end;
            dropped
        }));
    }

    /// Notes that the feed has grown; true the first time since it was announced.
    pub(crate) fn mark_grown(&self) -> bool {
        !self.has_grown.swap(true, Ordering::Relaxed)
    }

    /// How many bytes come after an offset of a reader, which the feed need not have any more.
    pub(crate) fn bytes_after_offset(&self, offset: Offset) -> u64 {
        self.end.load(Ordering::Relaxed).saturating_sub(offset)
    }

    /// How many bytes the feed has that come after a place.
    pub(crate) fn bytes_after(&self, place: LivePlace) -> u64 {
        let content = self.content();
        let from =
            if content.is_behind(place.log) { content.first_offset() } else { content.offset_after(place) };
        content.end - from
    }

    /// The number of the last ephemeral event that was written here.
    pub(crate) fn last_ephemeral(&self) -> u64 {
        self.content().last_ephemeral
    }

    /// Notifies the readers that the feed has grown.
    pub(crate) fn announce(&self) {
        self.has_grown.store(false, Ordering::Relaxed);
        self.wake_readers();
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

    /// Removes a reader and its waker. Returns how many remain.
    pub(crate) fn remove_reader(&self, number: u64) -> usize {
        self.listeners().pulled.remove(&number);
        self.reader_count.fetch_sub(1, Ordering::Relaxed) - 1
    }

    /// From now on a shard wakes this reader: it stays counted.
    pub(crate) fn hand_over(&self, number: u64) {
        let mut listeners = self.listeners();
        listeners.pulled.remove(&number);
        if listeners.pulled.is_empty() {
            listeners.pulled = HashMap::new();
        }
    }

    /// Notifies this shard, too, when the feed grows.
    pub(crate) fn add_shard(&self, notifier: Arc<FeedNotifier>) {
        self.listeners().shards.push(notifier);
    }

    pub(crate) fn remove_shard(&self, notifier: &Arc<FeedNotifier>) {
        self.listeners().shards.retain(|other| !Arc::ptr_eq(other, notifier));
    }

    pub(crate) fn reader_count(&self) -> usize {
        self.reader_count.load(Ordering::Relaxed)
    }

    /// How many readers have a waker here.
    #[cfg(test)]
    pub(crate) fn waker_count(&self) -> usize {
        self.listeners().pulled.len()
    }

    pub(crate) fn wake_readers(&self) {
        // Copied, because waking a thread is a system call.
        let (pulled, shards) = {
            let listeners = self.listeners();
            let pulled: SmallVec<[_; 8]> = listeners.pulled.values().cloned().collect();
            (pulled, listeners.shards.clone())
        };
        for notifier in shards {
            notifier.notify();
        }
        for waker in pulled {
            waker.wake();
        }
    }

    /// Changes the content, and counts its memory. What is taken out of it is returned, to be
    /// dropped without the lock.
    fn change<T>(&self, change: impl FnOnce(&mut Content) -> T) -> T {
        let mut content = self.content();
        let before = content.memory_bytes;
        let result = change(&mut content);
        self.end.store(content.end, Ordering::Relaxed);
        if content.memory_bytes != before {
            // Relaxed is enough: it counts and orders nothing else.
            self.memory_of_all.fetch_add(content.memory_bytes, Ordering::Relaxed);
            self.memory_of_all.fetch_sub(before, Ordering::Relaxed);
        }
        result
    }

    // A panic while somebody holds a feed ends that connection; the feed itself is changed by
    // infallible steps only.
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshot {
    /// Whether it reaches back to this offset.
    pub(crate) fn covers(&self, offset: Offset) -> bool {
        offset >= self.from
    }

    /// Hands everything from an offset on that is contiguous, and that this reader may receive, to
    /// one call of `write`. None if there is nothing.
    pub(crate) fn send(
        &self,
        offset: Offset,
        may_receive: impl FnMut(&Audience) -> bool,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<Option<FeedProgress>> {
        if offset >= self.end {
            return Ok(None);
        }
        let index = self.pieces.partition_point(|(begin, _)| *begin <= offset) - 1;
        let (begin, frames) = &self.pieces[index];
        let within = usize::try_from(offset - begin).expect("a segment is far below 4 GiB");
        let progress = if offset >= self.public_from {
            frames.write_all(within, write)?
        } else {
            frames.write_permitted(within, may_receive, write)?
        };
        let partial = progress.partial.map(|partial| {
            let rest = Frames::bytes_of(frames, partial.rest);
            (partial.position, rest)
        });
        let offset = begin + progress.offset as Offset;
        Ok(Some(FeedProgress {
            offset,
            position: progress.position,
            partial,
            accepted: progress.accepted,
            at_end: offset == self.end,
            delivered: progress.delivered,
        }))
    }
}

impl Content {
    fn is_behind(&self, after: Cursor) -> bool {
        self.epoch != after.epoch || after.position < self.start
    }

    /// The first frame after a place: its offset, the piece that it is in, and its index there.
    fn first_after(&self, place: LivePlace) -> Option<(Offset, &Arc<Frames>, usize)> {
        let first = self.segments.partition_point(|segment| segment.last() <= place.key());
        let pieces = self.segments.range(first..).flat_map(Segment::pieces_with_offsets);
        pieces.filter(|(_, frames)| frames.last() > Some(place.key())).find_map(|(base, frames)| {
            let index = frames.after(place);
            let offset = frames.offset_of(index);
            (offset < frames.len()).then_some((base + offset as Offset, frames, index))
        })
    }

    fn frame_after(&self, place: LivePlace) -> Option<Frame> {
        let (_, frames, index) = self.first_after(place)?;
        Frame::new(frames, index)
    }

    fn offset_after(&self, place: LivePlace) -> Offset {
        self.first_after(place).map_or(self.end, |(offset, ..)| offset)
    }

    fn first_offset(&self) -> Offset {
        self.segments.front().map_or(self.end, |segment| segment.offset)
    }

    fn snapshot(&mut self, from: Offset) -> Option<Snapshot> {
        if from < self.first_offset() {
            return None;
        }
        let first = self.segments.partition_point(|segment| segment.offset <= from).saturating_sub(1);
        let mut pieces = SmallVec::new();
        for segment in self.segments.range_mut(first..) {
            self.memory_bytes -= segment.memory_bytes();
            segment.join();
            self.memory_bytes += segment.memory_bytes();
            pieces.extend(segment.pieces_with_offsets().map(|(offset, frames)| (offset, Arc::clone(frames))));
        }
        let from = pieces.first().map_or(self.end, |(offset, _)| *offset);
        Some(Snapshot { pieces, from, end: self.end, public_from: self.public_from })
    }

    fn append(&mut self, frame: &Arc<Frames>) -> bool {
        let Some(key) = frame.last().filter(|_| !self.is_closed) else { return false };
        let is_stored = key.ephemeral == 0;
        let is_here =
            if is_stored { self.last >= key.position } else { self.last_ephemeral >= key.ephemeral };
        if is_here {
            return false;
        }
        let last = self.segments.back_mut().filter(|last| last.len() + frame.len() <= SEGMENT_BYTES_MAX);
        let begins_segment = last.is_none();
        if let Some(last) = last {
            self.memory_bytes -= last.memory_bytes();
            last.append(frame);
            self.memory_bytes += last.memory_bytes();
        } else {
            let segment = Segment::new(self.end, frame);
            self.memory_bytes += segment.memory_bytes();
            self.segments.push_back(segment);
        }
        self.end += frame.len() as Offset;
        if is_stored {
            self.last = key.position;
        } else {
            self.last_ephemeral = key.ephemeral;
            self.stored_from = self.end;
        }
        if frame.ends_with_audience() {
            self.public_from = self.end;
        }
        begins_segment
    }

    fn drop_front(&mut self) -> Option<Segment> {
        let segment = self.segments.pop_front()?;
        self.start = segment.last_entry().unwrap_or(self.start);
        self.memory_bytes -= segment.memory_bytes();
        Some(segment)
    }

    fn clear(&mut self) -> VecDeque<Segment> {
        self.start = self.last;
        self.memory_bytes = 0;
        std::mem::take(&mut self.segments)
    }
}

impl Segment {
    fn new(offset: Offset, frame: &Arc<Frames>) -> Self {
        let is_large = frame.len() > SEGMENT_BYTES_MAX;
        let piece = if is_large { Arc::clone(frame) } else { new_piece(frame) };
        Self { offset, pieces: SmallVec::from_iter([piece]) }
    }

    /// Appends a frame to the last piece, or, where a reader keeps that, in a new one.
    fn append(&mut self, frame: &Frames) {
        self.join();
        match self.pieces.last_mut().and_then(Arc::get_mut) {
            Some(piece) => piece.append(frame),
            None => self.pieces.push(new_piece(frame)),
        }
    }

    /// Joins pieces, as far as nobody keeps those that are to be extended.
    fn join(&mut self) {
        let mut index = 1;
        while let Some(next) = self.pieces.get(index).map(Arc::clone) {
            if let Some(piece) = Arc::get_mut(&mut self.pieces[index - 1]) {
                piece.append(&next);
                self.pieces.remove(index);
            } else {
                index += 1;
            }
        }
    }

    fn len(&self) -> usize {
        self.pieces.iter().map(|frames| frames.len()).sum()
    }

    fn last(&self) -> FrameKey {
        let last = self.pieces.last().and_then(|frames| frames.last());
        last.expect("a segment has a piece, and a piece has frames")
    }

    fn last_entry(&self) -> Option<Position> {
        self.pieces.iter().rev().find_map(|frames| frames.last_entry())
    }

    fn memory_bytes(&self) -> usize {
        self.pieces.iter().map(|frames| frames.memory_bytes()).sum()
    }

    fn pieces_with_offsets(&self) -> impl Iterator<Item = (Offset, &Arc<Frames>)> {
        self.pieces.iter().scan(self.offset, |offset, frames| {
            let begin = *offset;
            *offset += frames.len() as Offset;
            Some((begin, frames))
        })
    }
}

fn new_piece(frame: &Frames) -> Arc<Frames> {
    let mut piece = Frames::with_capacity(frame.len().max(PIECE_BYTES_MIN));
    piece.append(frame);
    Arc::new(piece)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use tidings_log::{Entry, Timestamp};
    use tidings_topic::{NewEvent, Validator};

    use super::*;

    fn cursor(number: u128) -> Cursor {
        Cursor { epoch: Epoch::from_u64(1), position: Position::from_bytes(number.to_be_bytes()) }
    }

    fn empty() -> Feed {
        let matcher = Validator::default().exact("a").expect("valid");
        Feed::new(matcher, Format::Plain, cursor(0), Arc::default())
    }

    pub(crate) fn frame(number: u128, size: usize) -> Arc<Frames> {
        let event = Validator::default().event(NewEvent::new("a", "x".repeat(size))).expect("valid");
        let mut frame = Frames::default();
        frame.push(&Entry::new(cursor(number), Timestamp::from_millis(0), event), Format::Plain);
        Arc::new(frame)
    }

    /// A feed with events of this size at the positions from 1 on.
    pub(crate) fn feed(sizes: &[usize]) -> Feed {
        let feed = empty();
        for (size, number) in sizes.iter().zip(1..) {
            feed.append(&frame(number, *size));
        }
        feed
    }

    /// What one call hands to a socket that accepts so many bytes, and what it achieved.
    pub(crate) fn send(
        snapshot: &Snapshot,
        offset: Offset,
        capacity: usize,
    ) -> (usize, Option<FeedProgress>) {
        let mut given = 0;
        let progress = snapshot.send(
            offset,
            |_| true,
            |bytes| {
                given = bytes.len();
                Ok(capacity.min(given))
            },
        );
        (given, progress.expect("the socket works"))
    }

    fn all(snapshot: &Snapshot) -> Vec<u8> {
        snapshot.pieces.iter().flat_map(|(_, frames)| frames.chunks().concat()).collect()
    }

    #[test]
    fn what_is_after_the_head_is_not_there_yet() {
        let feed = feed(&[10, 10]);
        assert!(matches!(feed.peek(cursor(1).into(), cursor(1).into()), Peek::Nothing));
        assert!(matches!(feed.peek(cursor(1).into(), cursor(2).into()), Peek::Frame(_)));
    }

    #[test]
    fn one_call_hands_over_one_segment_at_most() {
        let feed = feed(&[1_000; 500]);
        let snapshot = feed.snapshot(0).expect("from the beginning");
        let (mut offset, mut calls) = (0, 0);
        while let (given, Some(progress)) = send(&snapshot, offset, usize::MAX) {
            assert!(given <= SEGMENT_BYTES_MAX, "{given}");
            (offset, calls) = (progress.offset, calls + 1);
        }
        assert!((8..=10).contains(&calls), "{calls}");
    }

    /// A hundred stalled sockets in the middle of one event of a megabyte must not cost a hundred
    /// megabytes.
    #[test]
    fn the_rest_of_a_large_event_is_shared() {
        let snapshot = feed(&[1 << 20]).snapshot(0).expect("from the beginning");
        let rests = [1_000, 2_000].map(|capacity| {
            let progress = send(&snapshot, 0, capacity).1.expect("an event");
            progress.partial.expect("it accepted only a part").1
        });
        assert_eq!(rests[0][1_000..].as_ptr(), rests[1].as_ptr());
    }

    #[test]
    fn no_earlier_offset_is_valid_after_a_restart() {
        let feed = feed(&[10]);
        let snapshot = feed.snapshot(0).expect("from the beginning");
        let progress = send(&snapshot, 0, usize::MAX).1.expect("an event");
        assert!(progress.at_end);
        assert!(send(&snapshot, progress.offset, usize::MAX).1.is_none());
        feed.restart(cursor(5));
        assert!(feed.snapshot(progress.offset).is_none());
        let offset = feed.locate(cursor(5).into()).expect("it begins there");
        assert!(send(&snapshot, offset, usize::MAX).1.is_none(), "no older snapshot has it");
    }

    /// Positions of one epoch mean nothing in another, and those of a new one may be the smaller.
    #[test]
    fn a_reader_of_another_epoch_is_behind_whatever_its_position() {
        let feed = feed(&[10, 10]);
        let elsewhere = Cursor { epoch: Epoch::from_u64(2), ..cursor(1) };
        assert!(matches!(feed.peek(elsewhere.into(), cursor(2).into()), Peek::Behind));
        assert_eq!(feed.locate(elsewhere.into()), None);
    }

    /// Otherwise a popular topic would keep something of everybody who has ever read it.
    #[test]
    fn a_feed_keeps_no_waker_of_a_reader_that_left_or_was_handed_over() {
        let feed = empty();
        let waker = Arc::<AtomicWaker>::default();
        let readers: Vec<_> = (0..100).map(|_| feed.add_reader(Arc::clone(&waker))).collect();
        let (leaving, handed_over) = readers.split_at(50);
        for number in leaving {
            feed.remove_reader(*number);
        }
        assert_eq!(feed.waker_count(), 50);
        for number in handed_over {
            feed.hand_over(*number);
        }
        assert_eq!(feed.listeners().pulled.capacity(), 0);
        assert_eq!((feed.reader_count(), Arc::strong_count(&waker)), (50, 1));
    }

    #[test]
    fn what_the_writer_still_has_for_a_feed_without_readers_costs_nothing() {
        let feed = feed(&[10]);
        feed.close();
        assert!(!feed.append(&frame(2, 10)));
        assert_eq!(feed.memory_of_all.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_shard_that_takes_one_snapshot_after_the_other_always_finds_one_piece() {
        let feed = empty();
        let mut snapshot = feed.snapshot(0);
        for number in 1..=200 {
            feed.append(&frame(number, 100));
            if number % 3 == 0 {
                drop(snapshot.take());
                snapshot = feed.snapshot(0);
                assert_eq!(snapshot.as_ref().map(|snapshot| snapshot.pieces.len()), Some(1));
            }
        }
    }

    /// Pulled readers take no snapshots, at which pieces are joined at the latest.
    #[test]
    fn readers_that_keep_one_frame_after_the_other_leave_few_pieces() {
        let feed = empty();
        let mut kept = None;
        for number in 1..=200 {
            feed.append(&frame(number, 100));
            kept.replace(feed.peek(cursor(number - 1).into(), cursor(number).into()));
            assert!(matches!(kept, Some(Peek::Frame(_))));
            let pieces = feed.content().segments.back().map(|segment| segment.pieces.len());
            assert!(pieces <= Some(2), "{pieces:?}");
        }
    }

    /// What may happen to a feed, in any order.
    #[derive(Clone, Debug)]
    enum Act {
        Append(usize),
        TakeSnapshot(usize),
        DropSnapshot(usize),
        DropFront,
        Restart,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            8 => prop_oneof![20 => 0..200_usize, 1 => 20_000..70_000_usize].prop_map(Act::Append),
            4 => (0..3_usize).prop_map(Act::TakeSnapshot),
            3 => (0..3_usize).prop_map(Act::DropSnapshot),
            1 => Just(Act::DropFront),
            1 => Just(Act::Restart),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// Several readers keep snapshots while the feed is changed: none of them changes, each has
        /// everything that the feed had, and all memory is counted.
        #[test]
        fn a_snapshot_is_everything_and_stays_as_it_is(acts in prop::collection::vec(act(), 0..100)) {
            let feed = empty();
            let mut expected: Vec<u8> = Vec::new();
            let mut kept: [Option<(Snapshot, Vec<u8>)>; 3] = Default::default();
            for (act, number) in acts.into_iter().zip(1..) {
                match act {
                    Act::Append(size) => {
                        let frame = frame(number, size);
                        feed.append(&frame);
                        expected.extend(frame.chunks().concat());
                    }
                    Act::TakeSnapshot(slot) => {
                        let first = feed.content().first_offset();
                        let snapshot = feed.snapshot(first).expect("from the beginning");
                        prop_assert_eq!(&all(&snapshot), &expected);
                        prop_assert_eq!(snapshot.end - first, expected.len() as Offset);
                        kept[slot] = Some((snapshot, expected.clone()));
                    }
                    Act::DropSnapshot(slot) => kept[slot] = None,
                    Act::DropFront => {
                        let before = feed.content().first_offset();
                        feed.drop_front();
                        let dropped = feed.content().first_offset() - before;
                        expected.drain(..usize::try_from(dropped).expect("small"));
                    }
                    Act::Restart => {
                        feed.restart(cursor(number));
                        expected.clear();
                    }
                }
                for (snapshot, then) in kept.iter().flatten() {
                    prop_assert_eq!(&all(snapshot), then);
                }
                let content = feed.content();
                let memory: usize = content.segments.iter().map(Segment::memory_bytes).sum();
                prop_assert_eq!(content.memory_bytes, memory);
                prop_assert_eq!(feed.memory_of_all.load(Ordering::Relaxed), memory);
            }
        }
    }
}
