//! The state of a log, without input, output, waiting or a clock of its own.
//!
//! Entries stand in a queue; each has a number, from 1 on, and the numbers have no holes: entry `i` of the queue has the number
//! `dropped + 1 + i`. Retention takes entries from the front and leaves floors behind; a lost end takes them from the back, and its numbers
//! are used again in a new epoch. Every call that is given the time first drops what is too old by it, so what expired is never seen.

mod floors;
mod index;
mod keys;
#[cfg(test)]
mod model;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tidings_topic::Topic;

use crate::{
    AppendError, Appended, Batch, Bounds, Cursor, Entry, Epoch, EpochStart, Epochs, EventId, MemoryLimits,
    Position, TailItem, Timestamp,
    draft::{Draft, Named, Plan, Reach},
};

use self::{
    floors::Floors,
    index::{Index, Times, ascending, descending},
    keys::Keys,
};

/// The whole state of a log.
#[derive(Debug)]
pub(crate) struct Ledger {
    limits: MemoryLimits,
    epochs: Epochs,
    /// The number of the newest entry that retention took.
    dropped: u64,
    entries: VecDeque<Arc<Entry>>,
    bytes: u64,
    topics: Index<Topic>,
    /// Publishers' own ids.
    ids: Index<EventId>,
    times: Times,
    floors: Floors,
    keys: Keys,
}

impl Ledger {
    /// An empty log that begins with this epoch.
    pub(crate) fn new(limits: MemoryLimits, epoch: Epoch) -> Self {
        Self {
            limits,
            epochs: Epochs::starting(epoch),
            dropped: 0,
            entries: VecDeque::new(),
            bytes: 0,
            topics: Index::new(),
            ids: Index::new(),
            times: Times::default(),
            floors: Floors::default(),
            keys: Keys::default(),
        }
    }

    /// Appends a batch whole, or nothing of it. Only the oldest entries make room for it, never its own.
    pub(crate) fn append(&mut self, now: Timestamp, batch: Batch) -> Result<Appended, AppendError> {
        self.expire(now);
        if let Some(first_id) = batch.key.as_ref().and_then(|key| self.keys.get(key)) {
            return Ok(Appended::Duplicate { first_id: first_id.clone() });
        }
        let entries = self.entries_of(now, batch.events);
        let bytes = entries.iter().map(|entry| weight(entry)).sum();
        self.make_room(bytes, entries.len() as u64)?;
        let ids: Vec<_> = entries.iter().map(|entry| entry.id.clone()).collect();
        for entry in entries {
            self.push(entry);
        }
        if let (Some(key), Some(first_id)) = (batch.key, ids.first()) {
            self.keys.insert(key, first_id.clone(), now, self.newest(), &self.limits);
        }
        Ok(Appended::New { ids, last: self.end() })
    }

    /// What may belong to the page after a position, looking at about `bytes_max` bytes and at least one entry.
    pub(crate) fn read(
        &mut self,
        now: Timestamp,
        after: Position,
        plan: &Plan<'_>,
        bytes_max: usize,
    ) -> Draft {
        self.expire(now);
        let after_number = number(after);
        let mut candidates = self.candidates_after(after_number, plan).peekable();
        let mut entries = Vec::new();
        let mut bytes = 0;
        while let Some(entry) = candidates.next_if(|_| entries.is_empty() || bytes < bytes_max) {
            bytes += entry.memory_bytes();
            entries.push(Arc::clone(entry));
        }
        let at_end = candidates.peek().is_none();
        let considered = entries.last().filter(|_| !at_end);
        let through = considered.map_or(position(self.newest()), |entry| entry.cursor.position).max(after);
        drop(candidates);
        let floor = self.floors.draft(plan, after_number);
        Draft { epoch: self.epoch(), after, entries, last_count: None, through, at_end, floor }
    }

    /// What may belong to the newest `count` entries, looking at about `bytes_max` bytes.
    pub(crate) fn last(&mut self, now: Timestamp, count: usize, plan: &Plan<'_>, bytes_max: usize) -> Draft {
        self.expire(now);
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut surely_accepted = 0;
        for entry in self.candidates_backwards(plan) {
            if surely_accepted == count || bytes >= bytes_max {
                break;
            }
            bytes += entry.memory_bytes();
            surely_accepted += usize::from(plan.surely_accepts(entry.event.private));
            entries.push(Arc::clone(entry));
        }
        entries.reverse();
        Draft {
            epoch: self.epoch(),
            after: Position::BEFORE_ALL,
            entries,
            last_count: Some(count),
            through: position(self.newest()),
            at_end: true,
            floor: self.floors.draft(plan, 0),
        }
    }

    /// The entries that bear a publisher's id, up to the first public one.
    pub(crate) fn named(&mut self, now: Timestamp, id: &EventId) -> Named {
        self.expire(now);
        let mut named = Vec::new();
        for entry in self.ids.get(id).into_iter().flatten().filter_map(|number| self.get(*number)) {
            named.push(Arc::clone(entry));
            if !entry.event.private {
                break;
            }
        }
        Named(named)
    }

    /// The last kept position that was appended more than `ago` before now.
    pub(crate) fn position_ago(&mut self, now: Timestamp, ago: Duration) -> Position {
        self.expire(now);
        position(self.times.last_before(now.earlier_by(ago)).unwrap_or_default())
    }

    /// How far the log reaches.
    pub(crate) fn bounds(&mut self, now: Timestamp) -> Bounds {
        self.expire(now);
        Bounds {
            epochs: self.epochs.clone(),
            oldest: self.entries.front().map(|entry| entry.cursor.position),
            newest: position(self.newest()),
            retention_bytes: Some(self.limits.bytes_max),
        }
    }

    /// The end of the log.
    pub(crate) fn end(&self) -> Cursor {
        Cursor { epoch: self.epoch(), position: position(self.newest()) }
    }

    /// What comes after this cursor of a tail, and the cursor behind it. `None` at the end.
    ///
    /// A tail sees the epochs one after the other: first what is left of its own, then the start of the next. An epoch of which a
    /// later one left nothing is passed over.
    pub(crate) fn follow(
        &mut self,
        now: Timestamp,
        seen: Cursor,
        bytes_max: usize,
    ) -> Option<(TailItem, Cursor)> {
        self.expire(now);
        let mut left_through = self.newest();
        let next_epoch = self.epoch_after(seen.epoch);
        if let Some(next) = next_epoch {
            let known = self.epochs.iter().any(|start| start.epoch == seen.epoch);
            left_through = if known { number(next.after) } else { 0 };
        }
        let seen_number = number(seen.position);
        let skipped = self.dropped.min(left_through);
        if seen_number < skipped {
            let through = position(skipped);
            return Some((TailItem::Skipped { through }, Cursor { position: through, ..seen }));
        }
        if seen_number < left_through {
            let entries = self.stretch(seen_number, left_through, bytes_max);
            let position = entries.last().map_or(seen.position, |entry| entry.cursor.position);
            return Some((TailItem::Entries(entries), Cursor { position, ..seen }));
        }
        let next = next_epoch?;
        Some((TailItem::NewEpoch(next), Cursor { epoch: next.epoch, position: next.after }))
    }

    /// Loses the newest entries, as a crash or a failover does, and starts a new epoch with what is left. Only entries that are kept
    /// can be lost.
    pub(crate) fn lose_end(&mut self, count: u64, epoch: Epoch) -> EpochStart {
        for _ in 0..count {
            let number = self.newest();
            let Some(entry) = self.entries.pop_back() else { break };
            self.bytes -= weight(&entry);
            for topic in &entry.event.topics {
                self.topics.drop_back(topic, number);
            }
            if let Some(id) = &entry.event.id {
                self.ids.drop_back(id, number);
            }
        }
        self.times = Times::default();
        for entry in &self.entries {
            self.times.push(number(entry.cursor.position), entry.time);
        }
        self.keys.forget_after(self.newest());
        let start = EpochStart { epoch, after: position(self.newest()) };
        self.epochs = self.epochs.with(start);
        start
    }

    fn epoch(&self) -> Epoch {
        self.epochs.current().epoch
    }

    fn newest(&self) -> u64 {
        self.dropped + self.entries.len() as u64
    }

    fn get(&self, number: u64) -> Option<&Arc<Entry>> {
        self.entries.get(self.place(number.checked_sub(1)?))
    }

    /// Where in the queue the entry after this number stands.
    fn place(&self, after: u64) -> usize {
        usize::try_from(after.saturating_sub(self.dropped)).unwrap_or(usize::MAX).min(self.entries.len())
    }

    fn entries_of(&self, now: Timestamp, events: Vec<crate::Event>) -> Vec<Arc<Entry>> {
        let numbers = self.newest() + 1..;
        let epoch = self.epoch();
        let entry =
            |(event, number)| Arc::new(Entry::new(Cursor { epoch, position: position(number) }, now, event));
        events.into_iter().zip(numbers).map(entry).collect()
    }

    fn make_room(&mut self, bytes: u64, count: u64) -> Result<(), AppendError> {
        let bytes_max = self.limits.bytes_max;
        let count_max = self.limits.count_max.unwrap_or(u64::MAX);
        if bytes > bytes_max {
            return Err(AppendError::Full(format!(
                "the batch takes {bytes} bytes and the log keeps at most {bytes_max}"
            )));
        }
        if count > count_max {
            return Err(AppendError::Full(format!(
                "the batch has {count} events and the log keeps at most {count_max}"
            )));
        }
        while self.bytes + bytes > bytes_max || self.entries.len() as u64 + count > count_max {
            self.drop_front();
        }
        Ok(())
    }

    fn push(&mut self, entry: Arc<Entry>) {
        let number = self.newest() + 1;
        self.bytes += weight(&entry);
        for topic in &entry.event.topics {
            self.topics.push(topic, number);
        }
        if let Some(id) = &entry.event.id {
            self.ids.push(id, number);
        }
        self.times.push(number, entry.time);
        self.entries.push_back(entry);
    }

    /// Drops what is too old. It looks at the front only: an entry never expires before those in front of it, whatever the clock did.
    fn expire(&mut self, now: Timestamp) {
        self.keys.expire(now, &self.limits);
        let Some(age_max) = self.limits.age_max else { return };
        let oldest = now.earlier_by(age_max);
        while self.entries.front().is_some_and(|entry| entry.time < oldest) {
            self.drop_front();
        }
        if self.entries.capacity() > 4 * self.entries.len() + 1_000 {
            self.entries.shrink_to(2 * self.entries.len());
            self.topics.shrink();
            self.ids.shrink();
        }
    }

    fn drop_front(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.dropped += 1;
        self.bytes -= weight(&entry);
        for topic in &entry.event.topics {
            self.topics.drop_front(topic, self.dropped);
        }
        if let Some(id) = &entry.event.id {
            self.ids.drop_front(id, self.dropped);
        }
        self.times.drop_front(self.dropped);
        self.floors.record(self.dropped, &entry.event, &self.limits);
    }

    fn candidates_after<'a>(
        &'a self,
        after: u64,
        plan: &Plan<'_>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Entry>> + 'a> {
        match &plan.reach {
            Reach::Topics(topics) => {
                let numbers = ascending(self.numbers_of(topics), after);
                Box::new(numbers.filter_map(|number| self.get(number)))
            }
            Reach::Everything | Reach::Unknown => Box::new(self.entries.range(self.place(after)..)),
        }
    }

    fn candidates_backwards<'a>(&'a self, plan: &Plan<'_>) -> Box<dyn Iterator<Item = &'a Arc<Entry>> + 'a> {
        match &plan.reach {
            Reach::Topics(topics) => {
                let numbers = descending(self.numbers_of(topics));
                Box::new(numbers.filter_map(|number| self.get(number)))
            }
            Reach::Everything | Reach::Unknown => Box::new(self.entries.iter().rev()),
        }
    }

    fn numbers_of(&self, topics: &[(&Topic, bool)]) -> Vec<&VecDeque<u64>> {
        topics.iter().filter_map(|(topic, _)| self.topics.get(topic)).collect()
    }

    /// Entries after one number and up to another, of about `bytes_max` bytes, at least one.
    fn stretch(&self, after: u64, through: u64, bytes_max: usize) -> Vec<Arc<Entry>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for entry in self.entries.range(self.place(after)..self.place(through)) {
            if bytes >= bytes_max && !entries.is_empty() {
                break;
            }
            bytes += entry.memory_bytes();
            entries.push(Arc::clone(entry));
        }
        entries
    }

    /// The epoch that a reader of this one comes to next: the one that cut most off, the latest of several. For a reader of
    /// another log that is the beginning of this one.
    fn epoch_after(&self, epoch: Epoch) -> Option<EpochStart> {
        let known = self.epochs.iter().position(|start| start.epoch == epoch);
        let later = self.epochs.iter().skip(known.map_or(0, |index| index + 1));
        later.copied().reduce(|chosen, start| if start.after <= chosen.after { start } else { chosen })
    }
}

/// The memory of an entry and of finding it.
fn weight(entry: &Entry) -> u64 {
    let names = entry.event.topics.len() + usize::from(entry.event.id.is_some());
    (entry.memory_bytes() + names * NAME_BYTES + PLACE_BYTES) as u64
}

/// Memory that an index needs for one name of one entry, if no other entry bears it.
const NAME_BYTES: usize = 96;

/// Memory that the queue and the index of times need for one entry.
const PLACE_BYTES: usize = 48;

/// The position of the entry with this number.
fn position(number: u64) -> Position {
    Position::from_bytes(u128::from(number).to_be_bytes())
}

/// The position right before this one.
pub(crate) fn just_before(place: Position) -> Position {
    position(number(place).saturating_sub(1))
}

/// The number of the entry at this position. One that no ledger gave out lies beyond every end.
fn number(position: Position) -> u64 {
    u64::try_from(u128::from_be_bytes(position.to_bytes())).unwrap_or(u64::MAX)
}
