//! The remote side: a plain list of entries, without indexes. It gives the same answers as [`MemoryLog`](tidings_log::MemoryLog), and can lose its end.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tidings_log::{
    AppendError, Appended, Batch, Bounds, Cursor, Deleted, Entry, Epoch, EpochStart, Epochs, EventId, Filter,
    Grants, IdempotencyKey, MemoryLimits, Page, Position, TailItem, Timestamp, Topic,
    parts::{Audience, FloorDraft, Floors, Plan, Reach, just_before, number, position},
};

pub(crate) struct History {
    limits: MemoryLimits,
    epochs: Epochs,
    /// The newest number that was assigned in this epoch or kept of earlier ones.
    newest: u64,
    deletions: u64,
    /// In the order of their numbers, which have holes where something was deleted.
    entries: VecDeque<Arc<Entry>>,
    bytes: u64,
    floors: Floors,
    /// The newest event that was dropped or deleted.
    newest_gone: u64,
    first_ids: HashMap<IdempotencyKey, EventId>,
    /// Each key with the time and the last entry of its batch, in the order of appending.
    keys: VecDeque<(IdempotencyKey, Timestamp, u64)>,
}

/// How far a tail has come.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) cursor: Cursor,
    deletions: u64,
}

impl History {
    pub(crate) fn new(limits: MemoryLimits, epoch: Epoch) -> Self {
        Self {
            limits,
            epochs: Epochs::starting(epoch),
            newest: 0,
            deletions: 0,
            entries: VecDeque::new(),
            bytes: 0,
            floors: Floors::default(),
            newest_gone: 0,
            first_ids: HashMap::new(),
            keys: VecDeque::new(),
        }
    }

    pub(crate) fn append(&mut self, now: Timestamp, batch: Batch) -> Result<Appended, AppendError> {
        self.expire(now);
        if let Some(first_id) = batch.key.as_ref().and_then(|key| self.first_ids.get(key)) {
            return Ok(Appended::Duplicate { first_id: first_id.clone() });
        }
        let epoch = self.epochs.current().epoch;
        let numbered = batch.events.into_iter().zip(self.newest + 1..);
        let entries: Vec<_> = numbered
            .map(|(event, number)| Entry::new(Cursor { epoch, position: position(number) }, now, event))
            .collect();
        let bytes: u64 = entries.iter().map(weight).sum();
        let count_max = self.limits.count_max.unwrap_or(u64::MAX);
        if bytes > self.limits.bytes_max || entries.len() as u64 > count_max {
            return Err(AppendError::Full("the batch is larger than the log".into()));
        }
        let ids: Vec<_> = entries.iter().map(|entry| entry.id.clone()).collect();
        self.newest += entries.len() as u64;
        self.bytes += bytes;
        self.entries.extend(entries.into_iter().map(Arc::new));
        while self.bytes > self.limits.bytes_max || self.entries.len() as u64 > count_max {
            self.drop_first();
        }
        if let (Some(key), Some(first_id)) = (batch.key, ids.first().cloned()) {
            self.first_ids.insert(key.clone(), first_id);
            self.keys.push_back((key, now, self.newest));
            let excess = self.keys.len().saturating_sub(self.limits.keys_max);
            self.forget_keys(excess);
        }
        Ok(Appended::New { ids, last: self.end() })
    }

    pub(crate) fn delete(&mut self, now: Timestamp, topic: &Topic, grants: &Grants) -> Deleted {
        self.expire(now);
        let (of_topic, mut kept) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition::<Vec<_>, _>(|entry| entry.event.topics.contains(topic));
        let (deleted, spared) =
            of_topic.into_iter().partition::<Vec<_>, _>(|entry| grants.cover_all(&entry.event.topics));
        let (count, spared_count) = (deleted.len() as u64, spared.len() as u64);
        kept.extend(spared);
        kept.sort_by_key(|entry| entry.cursor.position);
        self.entries = kept.into();
        for entry in deleted {
            self.note_gone(&entry);
        }
        self.deletions += u64::from(count > 0);
        Deleted { count, kept: spared_count, serial: self.deletions }
    }

    /// A page without its floor, and the candidates for that.
    pub(crate) fn read(
        &mut self,
        now: Timestamp,
        after: Position,
        filter: &Filter,
        bytes_max: usize,
    ) -> (Page, FloorDraft) {
        self.expire(now);
        let plan = Plan::new(filter);
        let following = self.entries.range(self.place_after(after)..);
        let mut candidates = following.filter(|entry| is_candidate(&plan, entry)).peekable();
        let mut looked_at: Vec<Arc<Entry>> = Vec::new();
        let mut bytes = 0;
        while let Some(entry) = candidates.next_if(|_| looked_at.is_empty() || bytes < bytes_max) {
            bytes += entry.memory_bytes();
            looked_at.push(Arc::clone(entry));
        }
        let at_end = candidates.peek().is_none();
        let considered = looked_at.last().filter(|_| !at_end);
        let through = considered.map_or(position(self.newest), |entry| entry.cursor.position).max(after);
        looked_at.retain(|entry| filter.accepts(&entry.event));
        let floor = self.floors.draft(&plan, number(after));
        (Page { epoch: self.epoch(), after, entries: looked_at, through, at_end, floor: None }, floor)
    }

    /// The same with the newest entries.
    pub(crate) fn last(
        &mut self,
        now: Timestamp,
        count: usize,
        filter: &Filter,
        bytes_max: usize,
    ) -> (Page, FloorDraft) {
        self.expire(now);
        let plan = Plan::new(filter);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for entry in self.entries.iter().rev().filter(|entry| is_candidate(&plan, entry)) {
            if entries.len() == count || bytes >= bytes_max {
                break;
            }
            bytes += entry.memory_bytes();
            if filter.accepts(&entry.event) {
                entries.push(Arc::clone(entry));
            }
        }
        entries.reverse();
        let through = position(self.newest);
        let after = entries.first().map_or(through, |first| just_before(first.cursor.position));
        let page = Page { epoch: self.epoch(), after, entries, through, at_end: true, floor: None };
        (page, self.floors.draft(&plan, 0))
    }

    pub(crate) fn resolve(&mut self, now: Timestamp, id: &EventId, grants: &Grants) -> Option<Position> {
        self.expire(now);
        let mut of_id = self.entries.iter().filter(|entry| entry.event.id.as_ref() == Some(id));
        let visible = of_id.find(|entry| !entry.event.private || grants.cover_any(&entry.event.topics));
        visible.map(|entry| entry.cursor.position)
    }

    pub(crate) fn position_ago(&mut self, now: Timestamp, ago: Duration) -> Position {
        self.expire(now);
        let time = now.earlier_by(ago);
        let last = self.entries.iter().rev().find(|entry| entry.time < time);
        last.map_or(Position::BEFORE_ALL, |entry| entry.cursor.position)
    }

    pub(crate) fn bounds(&mut self, now: Timestamp) -> Bounds {
        self.expire(now);
        Bounds {
            epochs: self.epochs.clone(),
            oldest: self.entries.front().map(|entry| entry.cursor.position),
            newest: position(self.newest),
            retention_bytes: Some(self.limits.bytes_max),
        }
    }

    /// Where a new tail begins.
    pub(crate) fn seen(&self) -> Seen {
        Seen { cursor: self.end(), deletions: self.deletions }
    }

    /// What comes after this place of a tail, and the place behind it. `None` at the end.
    ///
    /// A tail first yields deletions. It yields the epochs in order: first the remaining entries of
    /// its own, then the start of the next. An epoch of which a later one kept nothing is skipped.
    pub(crate) fn follow(
        &mut self,
        now: Timestamp,
        seen: Seen,
        bytes_max: usize,
    ) -> Option<(TailItem, Seen)> {
        self.expire(now);
        if seen.deletions < self.deletions {
            let serial = self.deletions;
            return Some((TailItem::Deleted { serial }, Seen { deletions: serial, ..seen }));
        }
        let (item, cursor) = self.follow_entries(seen.cursor, bytes_max)?;
        Some((item, Seen { cursor, deletions: self.deletions }))
    }

    fn follow_entries(&self, seen: Cursor, bytes_max: usize) -> Option<(TailItem, Cursor)> {
        let next_epoch = self.epoch_after(seen.epoch);
        let is_known = self.epochs.iter().any(|start| start.epoch == seen.epoch);
        let left_through = match next_epoch {
            Some(next) if is_known => next.after,
            Some(_) => Position::BEFORE_ALL,
            None => position(self.newest),
        };
        if seen.position < left_through {
            let from = self.place_after(seen.position);
            let next = self.entries.get(from).map_or(u64::MAX, |entry| number(entry.cursor.position));
            if number(seen.position) + 1 < next {
                let through = left_through.min(position(next - 1));
                return Some((TailItem::Skipped { through }, Cursor { position: through, ..seen }));
            }
            let mut bytes = 0;
            let contiguous = self.entries.range(from..).zip(next..).take_while(|(entry, expected)| {
                let place = entry.cursor.position;
                let fits = bytes == 0 || bytes < bytes_max;
                bytes += entry.memory_bytes();
                place <= left_through && number(place) == *expected && fits
            });
            let entries: Vec<_> = contiguous.map(|(entry, _)| Arc::clone(entry)).collect();
            let position = entries.last().map_or(seen.position, |entry| entry.cursor.position);
            return Some((TailItem::Entries(entries), Cursor { position, ..seen }));
        }
        let next = next_epoch?;
        Some((TailItem::NewEpoch(next), Cursor { epoch: next.epoch, position: next.after }))
    }

    /// The epoch that a reader of this one comes to next: the one that cut most off, the latest of
    /// several. For a reader of another log that is the beginning of this one.
    fn epoch_after(&self, epoch: Epoch) -> Option<EpochStart> {
        let known = self.epochs.iter().position(|start| start.epoch == epoch);
        let later = self.epochs.iter().skip(known.map_or(0, |index| index + 1));
        later.copied().reduce(|chosen, start| if start.after <= chosen.after { start } else { chosen })
    }

    /// Loses the newest entries, as a crash or a failover does, and starts a new epoch with what is
    /// left. Only entries that are kept can be lost, and none from before one that is gone: a log
    /// that knows that something is gone has what came before it.
    pub(crate) fn lose_end(&mut self, count: u64, epoch: Epoch) -> EpochStart {
        for _ in 0..count {
            let newest_gone = position(self.newest_gone);
            if self.entries.back().is_none_or(|entry| entry.cursor.position <= newest_gone) {
                break;
            }
            let Some(lost) = self.entries.pop_back() else { break };
            self.newest = number(lost.cursor.position) - 1;
            self.bytes -= weight(&lost);
        }
        self.keys.retain(|(key, _, last)| {
            let is_kept = *last <= self.newest;
            if !is_kept {
                self.first_ids.remove(key);
            }
            is_kept
        });
        let start = EpochStart { epoch, after: position(self.newest) };
        self.epochs = self.epochs.with(start);
        start
    }

    fn epoch(&self) -> Epoch {
        self.epochs.current().epoch
    }

    fn end(&self) -> Cursor {
        Cursor { epoch: self.epoch(), position: position(self.newest) }
    }

    /// Drops what is too old. Nothing expires before what is in front of it, whatever the clock did.
    fn expire(&mut self, now: Timestamp) {
        let oldest_key = now.earlier_by(self.limits.keys_age_max);
        let old_keys = self.keys.iter().take_while(|(_, time, _)| *time < oldest_key).count();
        self.forget_keys(old_keys);
        let Some(age_max) = self.limits.age_max else { return };
        let oldest = now.earlier_by(age_max);
        while self.entries.front().is_some_and(|entry| entry.time < oldest) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.note_gone(&entry);
        }
    }

    fn forget_keys(&mut self, count: usize) {
        for (key, ..) in self.keys.drain(..count) {
            self.first_ids.remove(&key);
        }
    }

    /// Where in the list the first entry after this position stands.
    fn place_after(&self, position: Position) -> usize {
        self.entries.partition_point(|entry| entry.cursor.position <= position)
    }

    fn note_gone(&mut self, entry: &Entry) {
        let gone = number(entry.cursor.position);
        self.newest_gone = self.newest_gone.max(gone);
        self.bytes -= weight(entry);
        self.floors.record(gone, Audience::of(&entry.event), &self.limits);
    }
}

/// Whether a log with an index of topics would look at this entry.
fn is_candidate(plan: &Plan<'_>, entry: &Entry) -> bool {
    match &plan.reach {
        Reach::Topics(topics) => topics.iter().any(|(topic, _)| entry.event.topics.contains(topic)),
        Reach::Everything | Reach::Unknown => true,
    }
}

fn weight(entry: &Entry) -> u64 {
    entry.memory_bytes() as u64
}
