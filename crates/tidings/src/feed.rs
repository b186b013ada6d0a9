//! Feeds: the newest part of the log, encoded, one feed for each distinct matcher and format.
//!
//! A feed is written by one writer and read by everybody who asked for its matcher. It is a cache of the log and nothing more: it holds
//! every matching entry after its [`start`](FeedState::start), and whoever is behind that reads the log itself. So dropping the front of
//! a feed is always safe, and no subscriber has a queue.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tidings_log::{Cursor, Entry, Epoch, Position};
use tidings_topic::Matcher;

use crate::encode::{Format, encode_entry};

/// Encoded frames of one matcher in one format.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) matcher: Matcher,
    pub(crate) format: Format,
    state: Mutex<FeedState>,
    readers: Mutex<HashMap<u64, Arc<AtomicWaker>>>,
    next_reader: AtomicU64,
}

#[derive(Debug)]
struct FeedState {
    epoch: Epoch,
    /// Every matching entry of this epoch after this position, up to the published head, is in `blocks`.
    start: Position,
    /// Never empty ones, in order.
    blocks: VecDeque<Block>,
}

/// The frames that one turn of the writer appended: contiguous bytes and where each frame stands in them.
#[derive(Debug)]
struct Block {
    bytes: Bytes,
    frames: Box<[FrameMark]>,
}

#[derive(Debug)]
struct FrameMark {
    position: Position,
    /// The event inside the chunk.
    inner_start: u32,
    inner_end: u32,
    /// Kept for an event that not every reader of this feed may receive.
    restricted: Option<Arc<Entry>>,
}

/// One frame as a reader takes it.
#[derive(Clone, Debug)]
pub(crate) struct FeedFrame {
    pub(crate) position: Position,
    /// The event, without its chunk framing; shares the memory of its block.
    pub(crate) event: Bytes,
    pub(crate) restricted: Option<Arc<Entry>>,
}

/// What a feed has for a reader at some place.
#[derive(Clone, Debug)]
pub(crate) enum Peek {
    /// The next frame after the place.
    Frame(FeedFrame),
    /// Nothing after the place, up to the head.
    Nothing,
    /// The feed begins after the place, or belongs to another epoch: read the log.
    Behind,
}

impl Feed {
    /// An empty feed that will hold what comes after the head.
    pub(crate) fn new(matcher: Matcher, format: Format, head: Cursor) -> Self {
        let state = FeedState { epoch: head.epoch, start: head.position, blocks: VecDeque::new() };
        Self {
            matcher,
            format,
            state: Mutex::new(state),
            readers: Mutex::default(),
            next_reader: AtomicU64::new(0),
        }
    }

    /// The first frame after a place and not after the head.
    pub(crate) fn peek(&self, place: Cursor, head: Position) -> Peek {
        let state = self.state();
        if state.epoch != place.epoch || place.position < state.start {
            return Peek::Behind;
        }
        let block = state.blocks.partition_point(|block| block.last() <= place.position);
        let Some(block) = state.blocks.get(block) else { return Peek::Nothing };
        let frame = block.frames.partition_point(|frame| frame.position <= place.position);
        let frame = &block.frames[frame];
        if frame.position > head {
            return Peek::Nothing;
        }
        Peek::Frame(FeedFrame {
            position: frame.position,
            event: block.bytes.slice(frame.inner_start as usize..frame.inner_end as usize),
            restricted: frame.restricted.clone(),
        })
    }

    /// Adds what the writer has gathered; returns its size in bytes.
    pub(crate) fn push(&self, gathered: Gathered) -> usize {
        let bytes = gathered.bytes.into_boxed_slice().into();
        let block = Block { bytes, frames: gathered.frames.into() };
        let bytes = block.memory_bytes();
        self.state().blocks.push_back(block);
        bytes
    }

    /// Drops the oldest block: whoever has not read it finds it in the log.
    pub(crate) fn drop_front(&self) {
        let mut state = self.state();
        if let Some(block) = state.blocks.pop_front() {
            state.start = block.last();
        }
    }

    /// Forgets everything and begins after a place, as a new feed does.
    pub(crate) fn restart(&self, after: Cursor) {
        let mut state = self.state();
        state.epoch = after.epoch;
        state.start = after.position;
        state.blocks.clear();
    }

    /// Adds a reader that is woken when the feed grows. Returns the number to remove it with.
    pub(crate) fn add_reader(&self, waker: Arc<AtomicWaker>) -> u64 {
        let number = self.next_reader.fetch_add(1, Ordering::Relaxed);
        self.readers().insert(number, waker);
        number
    }

    /// Removes a reader. Returns how many remain.
    pub(crate) fn remove_reader(&self, number: u64) -> usize {
        let mut readers = self.readers();
        readers.remove(&number);
        readers.len()
    }

    pub(crate) fn reader_count(&self) -> usize {
        self.readers().len()
    }

    pub(crate) fn wake_readers(&self) {
        for waker in self.readers().values() {
            waker.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, FeedState> {
        self.state.lock().expect("nothing panics while it holds a feed")
    }

    fn readers(&self) -> MutexGuard<'_, HashMap<u64, Arc<AtomicWaker>>> {
        self.readers.lock().expect("nothing panics while it holds the readers")
    }
}

impl Block {
    fn last(&self) -> Position {
        self.frames.last().expect("a block has frames").position
    }

    fn memory_bytes(&self) -> usize {
        let entries = self.frames.iter().filter_map(|frame| frame.restricted.as_ref());
        let entries: usize = entries.map(|entry| entry.memory_bytes()).sum();
        BLOCK_BYTES + self.bytes.len() + size_of_val(&*self.frames) + entries
    }
}

/// Memory of a block beside its frames: its places in the feed and in the list of all blocks, and the shell of a feed that is gone,
/// which lasts as long as its blocks are in that list.
const BLOCK_BYTES: usize = 256;

/// What one turn of the writer has for one feed.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    bytes: Vec<u8>,
    frames: Vec<FrameMark>,
}

impl Gathered {
    /// Encodes an entry behind those before it. An entry that was just gathered is not gathered twice, as when two of its topics lead
    /// to one feed.
    pub(crate) fn add(&mut self, entry: &Arc<Entry>, format: Format) {
        let position = entry.cursor.position;
        if self.frames.last().is_some_and(|frame| frame.position == position) {
            return;
        }
        let inner = encode_entry(entry, format, &mut self.bytes);
        let restricted = entry.event.private || entry.event.except.is_some();
        self.frames.push(FrameMark {
            position,
            inner_start: offset(inner.start),
            inner_end: offset(inner.end),
            restricted: restricted.then(|| Arc::clone(entry)),
        });
    }
}

fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("one turn of the writer is bounded far below 4 GiB")
}
