//! What a hub knows of the stream: the position, time and audience of every event that is kept, and
//! the newest events themselves.
//!
//! Events are counted by **numbers**: the sequence of their message in the stream, then their index
//! in the batch. So the numbers are the same for every hub, and have holes. [`records`](Index)
//! holds one small record for each event, in that order; topics and publishers' ids lead to
//! numbers. Events that are dropped, deleted or found missing leave a floor. Nothing here waits or
//! reads a clock.

mod audiences;
mod places;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use tidings_log::{
    Cursor, Entry, Epoch, EpochStart, Epochs, Event, EventId, MemoryLimits, Timestamp, Topic,
    parts::{Audience, Floors, position},
};

use crate::{
    format::{BATCH_EVENTS_MAX, Spared},
    settings::NatsSettings,
};

pub(crate) use self::places::{Candidate, Followed, Seen};

/// The number of an event.
pub(crate) fn number_of(sequence: u64, index: usize) -> u64 {
    (sequence << INDEX_BITS) | index as u64
}

/// The last number that an event of this message can have.
pub(crate) fn last_number_of(sequence: u64) -> u64 {
    number_of(sequence, BATCH_EVENTS_MAX - 1)
}

/// The message of an event.
pub(crate) fn sequence_of(number: u64) -> u64 {
    number >> INDEX_BITS
}

/// The index of an event in its batch.
pub(crate) fn index_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX) & (BATCH_EVENTS_MAX - 1)
}

const INDEX_BITS: u32 = BATCH_EVENTS_MAX.trailing_zeros();

/// Memory of one record without its names: its slot in the queue, twice over while that grows.
const RECORD_BYTES: usize = 2 * size_of::<Record>();
/// Memory of one name of one event: a number in the list of the name, twice over, and a share of
/// the name itself.
const NAME_BYTES: usize = 48;
/// For this many batches with a key the own id of the first event is remembered beyond its
/// retention.
const NAMED_KEYS_MAX: usize = 10_000;

/// A message of the stream that was read, to distinguish it from another one at the same sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Mark {
    pub(crate) sequence: u64,
    /// When the server stored it, in nanoseconds since 1970.
    pub(crate) nanos: u64,
}

/// A batch as it is in the stream.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) mark: Mark,
    pub(crate) has_key: bool,
    /// Each with the bytes that it takes in the message.
    pub(crate) events: Vec<(Event, usize)>,
}

/// A message without any visible event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hidden {
    pub(crate) mark: Mark,
    pub(crate) has_key: bool,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Index {
    settings: NatsSettings,
    floor_limits: MemoryLimits,
    epochs: Epochs,
    records: VecDeque<Record>,
    topics: HashMap<Topic, VecDeque<u64>>,
    /// Publishers' own ids, by their hash.
    ids: HashMap<u64, Vec<u64>>,
    hasher: RandomState,
    audiences: HashMap<Arc<Audience>, Span>,
    /// The newest events, oldest first.
    recent: VecDeque<Arc<Entry>>,
    recent_bytes: usize,
    floors: Floors,
    /// The first own id of batches with a key, by their message.
    named_keys: BTreeMap<u64, EventId>,
    /// The newest number known to have been issued, or where the epoch began.
    newest: u64,
    /// Everything up to here is gone.
    front: u64,
    /// How many deletions took something away.
    deletions: u64,
    /// Everything up to here has been read.
    read: Mark,
    /// The first message that had been erased when its turn came.
    first_erased: Option<u64>,
    /// The server's clock has never gone back between two records.
    times_rise: bool,
    kept: u64,
    stored_bytes: u64,
    memory_bytes: usize,
}

#[derive(Debug)]
struct Record {
    number: u64,
    nanos: u64,
    audience: Arc<Audience>,
    /// Of a publisher's own id.
    id_hash: Option<u64>,
    /// [`Entry::memory_bytes`].
    bytes: u32,
    stored_bytes: u32,
    has_key: bool,
    /// It was deleted, or is missing in the stream.
    is_gone: bool,
}

/// Which events of an audience have records: none before the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Span {
    first: u64,
    newest: u64,
}

impl Index {
    /// An index of a stream of which nothing was read.
    pub(crate) fn new(settings: NatsSettings, epochs: Epochs) -> Self {
        let floor_limits = MemoryLimits { floors_max: settings.floors_max, ..MemoryLimits::default() };
        let newest = tidings_log::parts::number(epochs.current().after);
        Self {
            settings,
            floor_limits,
            epochs,
            records: VecDeque::new(),
            topics: HashMap::new(),
            ids: HashMap::new(),
            hasher: RandomState::new(),
            audiences: HashMap::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            floors: Floors::default(),
            named_keys: BTreeMap::new(),
            newest,
            front: 0,
            deletions: 0,
            read: Mark::default(),
            first_erased: None,
            times_rise: true,
            kept: 0,
            stored_bytes: 0,
            memory_bytes: 0,
        }
    }

    /// Everything up to here has been read.
    pub(crate) fn read(&self) -> Mark {
        self.read
    }

    /// The epochs of the log.
    pub(crate) fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// The epoch of an event: the last of those that began before it.
    pub(crate) fn epoch_of(&self, number: u64) -> Epoch {
        let place = position(number);
        let began_before = self.epochs.iter().filter(|start| start.after < place).last();
        began_before.map_or(self.epochs.current().epoch, |start| start.epoch)
    }

    /// Adds the next message of the stream.
    pub(crate) fn push(&mut self, message: Message) {
        let Message { mark, has_key, events } = message;
        if has_key && let Some(id) = events.first().and_then(|(event, _)| event.id.clone()) {
            self.named_keys.insert(mark.sequence, id);
            while self.named_keys.len() > NAMED_KEYS_MAX {
                self.named_keys.pop_first();
            }
        }
        for (index, (event, stored_bytes)) in events.into_iter().enumerate() {
            self.push_event(mark, index, has_key, event, stored_bytes);
        }
        self.pass(mark);
        self.keep_to_limits();
    }

    fn push_event(&mut self, mark: Mark, index: usize, has_key: bool, event: Event, stored_bytes: usize) {
        let number = number_of(mark.sequence, index);
        let audience = self.shared_audience(Audience::of(&event), number);
        for topic in &audience.topics {
            match self.topics.get_mut(topic) {
                Some(numbers) => numbers.push_back(number),
                None => drop(self.topics.insert(topic.clone(), VecDeque::from([number]))),
            }
        }
        let id_hash = event.id.as_ref().map(|id| self.hasher.hash_one(id));
        if let Some(hash) = id_hash {
            self.ids.entry(hash).or_default().push(number);
        }
        let cursor = Cursor { epoch: self.epoch_of(number), position: position(number) };
        let entry = Arc::new(Entry::new(cursor, Timestamp::from_millis(mark.nanos / 1_000_000), event));
        let bytes = entry.memory_bytes();
        let record = Record {
            number,
            nanos: mark.nanos,
            audience,
            id_hash,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            stored_bytes: u32::try_from(stored_bytes + STORED_BYTES).unwrap_or(u32::MAX),
            has_key,
            is_gone: false,
        };
        self.times_rise &= self.records.back().is_none_or(|last| last.nanos <= record.nanos);
        self.kept += 1;
        self.stored_bytes += u64::from(record.stored_bytes);
        self.memory_bytes += record.memory_bytes();
        self.records.push_back(record);
        self.newest = number;
        self.recent_bytes += bytes;
        self.recent.push_back(entry);
        while self.recent_bytes > self.settings.recent_bytes_max
            && let Some(oldest) = self.recent.pop_front()
        {
            self.recent_bytes -= oldest.memory_bytes();
        }
    }

    /// A message without events has been read.
    pub(crate) fn pass(&mut self, mark: Mark) {
        if mark.sequence > self.read.sequence {
            self.read = mark;
        }
    }

    /// The stream begins at this message: what came before is gone, whether it was read or not.
    pub(crate) fn begin_at(&mut self, sequence: u64) {
        let gone_through = last_number_of(sequence.saturating_sub(1));
        while self.records.front().is_some_and(|record| record.number <= gone_through) {
            self.drop_front();
        }
        if sequence > self.read.sequence + 1 {
            self.floors.forget_through(gone_through);
            self.front = self.front.max(gone_through);
            self.newest = self.newest.max(gone_through);
            self.read = Mark { sequence: sequence - 1, nanos: 0 };
        }
    }

    /// Hides every event of a topic that was read before and is not spared. Returns how many there
    /// are, and which messages have no visible event left.
    pub(crate) fn delete(&mut self, topic: &Topic, spared: Option<&Spared>) -> (u64, Vec<Hidden>) {
        let is_spared = |number, topics: &[Topic]| spared.is_some_and(|spared| spared.spares(number, topics));
        let mut numbers = self.topics.get(topic).cloned().unwrap_or_default();
        numbers.retain(|number| {
            self.record(*number).is_some_and(|record| !is_spared(*number, &record.audience.topics))
        });
        for number in &numbers {
            self.hide(*number);
        }
        if !numbers.is_empty() {
            self.deletions += 1;
            self.recent.retain(|entry| {
                let topics = &entry.event.topics;
                !topics.contains(topic)
                    || is_spared(tidings_log::parts::number(entry.cursor.position), topics)
            });
            self.recent_bytes = self.recent.iter().map(|entry| entry.memory_bytes()).sum();
        }
        let mut sequences: Vec<_> = numbers.iter().map(|number| sequence_of(*number)).collect();
        sequences.dedup();
        let hidden = sequences.into_iter().filter_map(|sequence| self.hidden(sequence)).collect();
        while self.records.front().is_some_and(|record| record.is_gone) {
            self.drop_front();
        }
        (numbers.len() as u64, hidden)
    }

    fn hidden(&self, sequence: u64) -> Option<Hidden> {
        let from = self.place_after(number_of(sequence, 0).saturating_sub(1));
        let records = self.records.range(from..);
        let mut of_message = records.take_while(|record| sequence_of(record.number) == sequence);
        let first = of_message.next()?;
        let hidden = Hidden { mark: Mark { sequence, nanos: first.nanos }, has_key: first.has_key };
        (first.is_gone && of_message.all(|record| record.is_gone)).then_some(hidden)
    }

    /// These events turned out to be missing in the stream.
    pub(crate) fn hide_all(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.hide(*number);
        }
    }

    /// An event turned out to be missing in the stream, or was deleted.
    fn hide(&mut self, number: u64) {
        let place = self.place_after(number.saturating_sub(1));
        let Some(record) =
            self.records.get_mut(place).filter(|record| record.number == number && !record.is_gone)
        else {
            return;
        };
        record.is_gone = true;
        let (audience, id_hash, stored_bytes) =
            (Arc::clone(&record.audience), record.id_hash, record.stored_bytes);
        self.forget_event(number, &audience, id_hash, stored_bytes);
        self.floors.record(number, Audience::clone(&audience), &self.floor_limits);
    }

    /// Loses everything after a number, where a new epoch begins.
    pub(crate) fn begin_epochs(&mut self, epochs: Epochs, through: u64) {
        while self.records.back().is_some_and(|record| record.number > through) {
            let Some(record) = self.records.pop_back() else { break };
            self.forget_record(&record);
        }
        self.recent.retain(|entry| entry.cursor.position <= position(through));
        self.recent_bytes = self.recent.iter().map(|entry| entry.memory_bytes()).sum();
        self.named_keys.split_off(&(sequence_of(through) + 1));
        self.newest = tidings_log::parts::number(epochs.current().after);
        self.front = self.front.min(self.newest);
        self.epochs = epochs;
        if self.read.sequence > sequence_of(through) {
            let last = self.records.back().filter(|last| sequence_of(last.number) == sequence_of(through));
            let nanos = last.map_or(0, |last| last.nanos);
            self.read = Mark { sequence: sequence_of(through), nanos };
        }
    }

    /// Another stream has replaced the one that was read.
    pub(crate) fn begin_anew(&mut self, epochs: Epochs) {
        let deletions = self.deletions;
        *self = Self::new(self.settings.clone(), epochs);
        self.deletions = deletions;
    }

    /// The messages that were read and are kept, newest first, up to a sequence.
    pub(crate) fn marks(&self, through: u64) -> Vec<Mark> {
        let mut marks: Vec<Mark> = Vec::new();
        for record in self.records.iter().take_while(|record| sequence_of(record.number) <= through) {
            let mark = Mark { sequence: sequence_of(record.number), nanos: record.nanos };
            if !record.is_gone && marks.last() != Some(&mark) {
                marks.push(mark);
            }
        }
        marks
    }

    /// The starts of epochs that this index does not know yet.
    pub(crate) fn new_starts(&self, epochs: &Epochs) -> Vec<EpochStart> {
        let current = self.epochs.current().epoch;
        let known = epochs.iter().position(|start| start.epoch == current).map_or(0, |index| index + 1);
        epochs.iter().skip(known).copied().collect()
    }

    /// Drops what is older than a point in time. No event is dropped before the events in front of
    /// it.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        let Some(age_max) = self.settings.age_max else { return };
        let oldest_nanos = now.earlier_by(age_max).to_millis().saturating_mul(1_000_000);
        while self.records.front().is_some_and(|record| record.nanos < oldest_nanos) {
            self.drop_front();
        }
    }

    fn keep_to_limits(&mut self) {
        let count_max = self.settings.count_max.unwrap_or(u64::MAX);
        while self.kept > count_max
            || self.stored_bytes > self.settings.bytes_max
            || self.memory_bytes > self.settings.index_bytes_max
        {
            self.drop_front();
        }
    }

    fn drop_front(&mut self) {
        let Some(record) = self.records.pop_front() else { return };
        self.front = record.number;
        self.forget_record(&record);
        if !record.is_gone {
            self.floors.record(record.number, Audience::clone(&record.audience), &self.floor_limits);
        }
    }

    /// Accounts for a record that was removed.
    fn forget_record(&mut self, record: &Record) {
        self.memory_bytes -= record.memory_bytes();
        if !record.is_gone {
            self.forget_event(record.number, &record.audience, record.id_hash, record.stored_bytes);
        }
        // Only the record and the map hold it.
        if Arc::strong_count(&record.audience) == 2 {
            self.audiences.remove(&record.audience);
        }
    }

    /// An event cannot be found any more.
    fn forget_event(&mut self, number: u64, audience: &Audience, id_hash: Option<u64>, stored_bytes: u32) {
        self.kept -= 1;
        self.stored_bytes -= u64::from(stored_bytes);
        for topic in &audience.topics {
            self.forget_name(topic, number);
        }
        self.forget_id(id_hash, number);
    }

    fn forget_name(&mut self, topic: &Topic, number: u64) {
        let Some(numbers) = self.topics.get_mut(topic) else { return };
        if numbers.front() == Some(&number) {
            numbers.pop_front();
        } else if let Ok(place) = numbers.binary_search(&number) {
            numbers.remove(place);
        }
        if numbers.is_empty() {
            self.topics.remove(topic);
        }
    }

    fn forget_id(&mut self, hash: Option<u64>, number: u64) {
        let Some(hash) = hash else { return };
        let Some(numbers) = self.ids.get_mut(&hash) else { return };
        numbers.retain(|other| *other != number);
        if numbers.is_empty() {
            self.ids.remove(&hash);
        }
    }

    fn record(&self, number: u64) -> Option<&Record> {
        let record = self.records.get(self.place_after(number.checked_sub(1)?))?;
        (record.number == number).then_some(record)
    }

    /// The index in the queue of the first record after a number.
    fn place_after(&self, number: u64) -> usize {
        self.records.partition_point(|record| record.number <= number)
    }
}

/// What the server stores for one event on top of the message, approximately.
pub(crate) const STORED_BYTES: usize = 64;

impl Record {
    fn memory_bytes(&self) -> usize {
        RECORD_BYTES + (self.audience.topics.len() + usize::from(self.id_hash.is_some())) * NAME_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidings_log::{Position, parts::Plan};
    use tidings_topic::{Filter, NewEvent, Validator};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn index(settings: NatsSettings) -> Index {
        Index::new(settings, Epochs::starting(Epoch::from_u64(1)))
    }

    fn push(index: &mut Index, mark: Mark, event: NewEvent) {
        let event = Validator::default().event(event).expect("a valid event");
        index.push(Message { mark, has_key: true, events: vec![(event, 100)] });
    }

    /// One event for each second from the first on, each with a topic and an id of its own.
    fn push_each(index: &mut Index, seconds: &[u64]) {
        for (sequence, second) in (1..).zip(seconds) {
            let event = NewEvent::new(format!("topic/{sequence}"), "text").id(format!("id-{sequence}"));
            push(index, Mark { sequence, nanos: second * SECOND }, event);
        }
    }

    fn topic(sequence: u64) -> Topic {
        Topic::from_stored(&format!("topic/{sequence}")).expect("a topic")
    }

    #[test]
    fn removed_events_leave_no_names_in_memory() {
        let mut index = index(NatsSettings { count_max: Some(3), ..NatsSettings::default() });
        push_each(&mut index, &[1, 2, 3, 4, 5, 6]);
        index.delete(&topic(5), None);
        index.hide_all(&[number_of(4, 0), number_of(4, 0)]);
        assert_eq!((index.topics.len(), index.ids.len(), index.kept), (1, 1, 1));
        index.delete(&topic(6), None);
        assert_eq!((index.topics.len(), index.ids.len(), index.kept), (0, 0, 0));
        assert_eq!((index.audiences.len(), index.stored_bytes, index.memory_bytes), (0, 0, 0));
    }

    #[test]
    fn the_newest_events_are_kept_up_to_their_limit_of_memory() {
        let bytes = |index: &Index| index.recent.iter().map(|entry| entry.memory_bytes()).sum::<usize>();
        let mut all = index(NatsSettings::default());
        push_each(&mut all, &[1; 9]);
        let mut some = index(NatsSettings { recent_bytes_max: bytes(&all) / 2, ..NatsSettings::default() });
        push_each(&mut some, &[1; 9]);
        let filter = Filter::everything_public();
        let candidates = some.look_after(0, &Plan::new(&filter)).candidates;
        let at_hand: Vec<_> = candidates.iter().map(|candidate| candidate.entry.is_some()).collect();
        assert_eq!(at_hand, [false, false, false, false, false, true, true, true, true]);
        assert!(bytes(&some) <= bytes(&all) / 2);
    }

    #[test]
    fn a_time_ago_is_found_although_the_clock_of_the_server_was_set_back() {
        let mut index = index(NatsSettings::default());
        push_each(&mut index, &[10, 30, 30, 30, 30, 5, 40]);
        let ago = |seconds| {
            let now = Timestamp::from_millis(40_000);
            index.position_ago(now, Duration::from_secs(seconds))
        };
        assert_eq!(ago(20), position(number_of(6, 0)), "of 20 seconds");
        assert_eq!(ago(5), position(number_of(6, 0)), "of 35 seconds");
        assert_eq!(ago(38), Position::BEFORE_ALL, "of 2 seconds");
    }

    #[test]
    fn a_deletion_by_a_limited_key_spares_events_that_it_has_not_seen() {
        let mut index = index(NatsSettings::default());
        for sequence in 1..=3 {
            push(&mut index, Mark { sequence, nanos: SECOND }, NewEvent::new("a", "text"));
        }
        let spared = Spared { after: number_of(2, 0), topics: Vec::new() };
        let a = Topic::from_stored("a").expect("a topic");
        let (count, hidden) = index.delete(&a, Some(&spared));
        let hidden: Vec<_> = hidden.iter().map(|hidden| hidden.mark.sequence).collect();
        assert_eq!((count, index.kept, hidden), (2, 1, vec![1, 2]));
    }
}
