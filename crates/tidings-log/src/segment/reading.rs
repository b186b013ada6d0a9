//! Reading the log: the newest entries from memory, everything else from files.
//!
//! A read is bounded by the bytes that a call may read, and by [`LOOKUP_MAX`] index lookups at a
//! time. For exact topics only their events are read; for patterns every event. A damaged record is
//! skipped and raises a floor: a gap is reported to readers that pass it.

use std::{io, sync::Arc, time::Duration};

use super::{
    file::{Segment, restore},
    hiding::Hiding,
    index::{Name, Places, Wanted, backwards, forwards, last_before},
    record::Record,
    scan::{Found, RecordReader},
    shared::{Segments, Shared, segments_after},
};
use crate::{
    Bounds, Entry, EventId, Grants, Position,
    draft::{Draft, FloorDraft, Plan, Reach},
    ledger::{number, position},
};

/// Places that are looked up at a time.
pub(super) const LOOKUP_MAX: usize = 256;
/// The same where the search goes backwards, and what is found lies behind.
const LOOKUP_BACKWARDS_MAX: usize = 32;
/// Bytes that are read at once where events are far from each other.
const SPARSE_BYTES: usize = 4 * 1024;
/// Bytes that are read at once where events follow each other.
const DENSE_BYTES: usize = 128 * 1024;
/// Events that are looked at to resolve one id; one that so many private events bear in vain counts
/// as unknown.
const RESOLVE_MAX: usize = 10_000;

/// What was there when a call began.
struct View {
    segments: Segments,
    front: u64,
    newest: u64,
    floor: FloorDraft,
}

impl Shared {
    /// As [`Log::read`](crate::Log::read), before the filter.
    pub(super) fn read(&self, after: Position, plan: &Plan<'_>, bytes_max: usize) -> io::Result<Draft> {
        let view = self.view(plan, number(after))?;
        let wanted = wanted(plan);
        let mut page = Gathered::new(bytes_max);
        let from = view.front.max(number(after));
        let mut considered = from;
        let mut at_end = true;
        'segments: for segment in segments_after(&view.segments, from) {
            let mut fetcher = Fetcher::new(self, segment);
            let mut next = index_after(segment, considered.max(from));
            loop {
                let places = self.places(segment, (next, until(segment, view.newest)), |places, range| {
                    forwards(places, &wanted, segment.header.salt, range, LOOKUP_MAX)
                })?;
                for (index, offset) in &places {
                    if page.is_full() {
                        at_end = false;
                        break 'segments;
                    }
                    page.add(fetcher.get(*index, *offset)?);
                    considered = segment.first() + u64::from(*index);
                }
                match places.last() {
                    Some((index, _)) if places.len() == LOOKUP_MAX => next = index + 1,
                    _ => break,
                }
            }
        }
        let through = if at_end { view.newest.max(from) } else { considered };
        let mut floor = view.floor;
        floor.raise(newest_lost(&view.segments, from, through));
        Ok(Draft {
            epoch: self.epochs.current().epoch,
            after,
            entries: page.entries,
            last_count: None,
            through: position(through).max(after),
            at_end,
            floor,
        })
    }

    /// As [`Log::last`](crate::Log::last), before the filter.
    pub(super) fn last(&self, count: usize, plan: &Plan<'_>, bytes_max: usize) -> io::Result<Draft> {
        let view = self.view(plan, 0)?;
        let wanted = wanted(plan);
        let mut page = Gathered::new(bytes_max);
        let mut surely_accepted = 0;
        'segments: for segment in segments_after(&view.segments, view.front).iter().rev() {
            let mut fetcher = Fetcher::new(self, segment);
            let from = index_after(segment, view.front);
            let mut before = until(segment, view.newest);
            loop {
                let places = self.places(segment, (from, before), |places, range| {
                    backwards(places, &wanted, segment.header.salt, range, LOOKUP_BACKWARDS_MAX)
                })?;
                for (index, offset) in &places {
                    if surely_accepted == count || page.bytes >= bytes_max {
                        break 'segments;
                    }
                    let entry = fetcher.get(*index, *offset)?;
                    let sure = entry.as_ref().is_some_and(|entry| plan.surely_accepts(entry.event.private));
                    surely_accepted += usize::from(sure);
                    page.add(entry);
                }
                match places.last() {
                    Some((index, _)) if places.len() == LOOKUP_BACKWARDS_MAX => before = *index,
                    _ => break,
                }
            }
        }
        page.entries.reverse();
        let mut floor = view.floor;
        floor.raise(newest_lost(&view.segments, view.front, view.newest));
        Ok(Draft {
            epoch: self.epochs.current().epoch,
            after: Position::BEFORE_ALL,
            entries: page.entries,
            last_count: Some(count),
            through: position(view.newest),
            at_end: true,
            floor,
        })
    }

    /// As [`Log::resolve`](crate::Log::resolve).
    pub(super) fn resolve(&self, id: &EventId, grants: &Grants) -> io::Result<Option<Position>> {
        let front = self.expire()?.front;
        let (segments, newest) = self.acknowledged();
        let wanted = Wanted::Named(vec![Name::Id(id.clone())]);
        let mut looked_at = 0;
        for segment in segments_after(&segments, front) {
            let mut fetcher = Fetcher::new(self, segment);
            let mut next = index_after(segment, front);
            loop {
                let places = self.places(segment, (next, until(segment, newest)), |places, range| {
                    forwards(places, &wanted, segment.header.salt, range, LOOKUP_MAX)
                })?;
                for (index, offset) in &places {
                    let entry = fetcher.get(*index, *offset)?;
                    let named = entry.filter(|entry| entry.event.id.as_ref() == Some(id));
                    let visible =
                        |entry: &Entry| !entry.event.private || grants.cover_any(&entry.event.topics);
                    if let Some(entry) = named.filter(|entry| visible(entry)) {
                        return Ok(Some(entry.cursor.position));
                    }
                }
                looked_at += places.len();
                if looked_at >= RESOLVE_MAX {
                    return Ok(None);
                }
                match places.last() {
                    Some((index, _)) if places.len() == LOOKUP_MAX => next = index + 1,
                    _ => break,
                }
            }
        }
        Ok(None)
    }

    /// As [`Log::position_ago`](crate::Log::position_ago).
    pub(super) fn position_ago(&self, ago: Duration) -> io::Result<Position> {
        let front = self.expire()?.front;
        let (segments, newest) = self.acknowledged();
        let time = self.clock.now().earlier_by(ago);
        for segment in segments_after(&segments, front).iter().rev() {
            if segment.times().0.is_some_and(|earliest| earliest < time)
                && let Some(index) = segment.look(&*self.disk, |places| last_before(places, time))?
            {
                let found = segment.first() + u64::from(index);
                return Ok(if found > front { position(found.min(newest)) } else { Position::BEFORE_ALL });
            }
        }
        Ok(Position::BEFORE_ALL)
    }

    /// As [`Log::bounds`](crate::Log::bounds).
    pub(super) fn bounds(&self) -> io::Result<Bounds> {
        let front = self.expire()?.front;
        let newest = self.state().newest;
        Ok(Bounds {
            epochs: self.epochs.clone(),
            oldest: (front < newest).then(|| position(front + 1)),
            newest: position(newest),
            retention_bytes: Some(self.settings.bytes_max),
        })
    }

    /// Entries after this one, in a row, or how far they are lost. For tails that lag behind what
    /// is in memory.
    pub(super) fn stretch(&self, after: u64, bytes_max: usize) -> io::Result<Result<Vec<Arc<Entry>>, u64>> {
        let (segments, newest) = self.acknowledged();
        let mut page = Gathered::new(bytes_max);
        let Some(segment) = segments_after(&segments, after).iter().find(|segment| segment.last() > after)
        else {
            return Ok(Err(newest));
        };
        let places =
            self.places(segment, (index_after(segment, after), until(segment, newest)), |places, range| {
                forwards(places, &Wanted::Everything, segment.header.salt, range, LOOKUP_MAX)
            })?;
        let mut fetcher = Fetcher::new(self, segment);
        // What is lost or deleted at the beginning is passed over in one step.
        let mut gone_through = None;
        for (index, offset) in places {
            let found = segment.first() + u64::from(index);
            let expected = gone_through.unwrap_or(after) + page.entries.len() as u64 + 1;
            let entry = if found == expected { fetcher.get(index, offset)? } else { None };
            match entry {
                Some(_) if gone_through.is_some() || page.is_full() => break,
                Some(entry) => page.add(Some(entry)),
                None if !page.entries.is_empty() => break,
                None if found == expected => gone_through = Some(found),
                None => {
                    gone_through = Some(found - 1);
                    break;
                }
            }
        }
        Ok(match gone_through {
            Some(through) => Err(through),
            None if page.entries.is_empty() => Err(newest),
            None => Ok(page.entries),
        })
    }

    /// Whether everything after this position is in memory, and nothing has to expire first.
    pub(super) fn is_in_memory(&self, after: Position) -> bool {
        {
            let state = self.state();
            let from = number(after).saturating_add(1);
            let recent = state.recent.first().is_some_and(|first| first <= from);
            if !(from > state.newest || recent && state.active().first() <= from) {
                return false;
            }
        }
        // The one that moves the front may be reading a file.
        self.retention.try_lock().is_ok_and(|retention| retention.is_settled(self, self.clock.now()))
    }

    fn view(&self, plan: &Plan<'_>, after: u64) -> io::Result<View> {
        let (front, floor) = {
            let retention = self.expire()?;
            (retention.front, retention.floors.draft(plan, after))
        };
        let (segments, newest) = self.acknowledged();
        Ok(View { segments, front, newest, floor })
    }

    pub(super) fn acknowledged(&self) -> (Segments, u64) {
        let state = self.state();
        (Arc::clone(&state.segments), state.newest)
    }

    /// Looks up indexes and where their records stand.
    pub(super) fn places(
        &self,
        segment: &Segment,
        range: (u32, u32),
        find: impl Fn(&mut dyn Places, (u32, u32)) -> io::Result<Vec<u32>>,
    ) -> io::Result<Vec<(u32, u32)>> {
        segment.look(&*self.disk, |places| {
            let found = find(places, range)?;
            found.into_iter().map(|index| Ok((index, places.row(index)?.offset))).collect()
        })
    }
}

fn wanted(plan: &Plan<'_>) -> Wanted {
    match &plan.reach {
        Reach::Topics(topics) => {
            Wanted::Named(topics.iter().map(|(topic, _)| Name::Topic((*topic).clone())).collect())
        }
        Reach::Everything | Reach::Unknown => Wanted::Everything,
    }
}

/// The index of the first event after a number.
pub(super) fn index_after(segment: &Segment, after: u64) -> u32 {
    u32::try_from(after.saturating_add(1).saturating_sub(segment.first())).unwrap_or(u32::MAX)
}

/// The index behind the last event up to a number.
pub(super) fn until(segment: &Segment, through: u64) -> u32 {
    u32::try_from((through + 1).saturating_sub(segment.first())).unwrap_or(u32::MAX)
}

/// The newest event that is lost after one event and up to another, in a segment or with one.
fn newest_lost(segments: &[Arc<Segment>], after: u64, through: u64) -> Option<Position> {
    let following = segments_after(segments, after);
    let within = following.iter().filter_map(|segment| segment.newest_lost(after, through)).max();
    let between = following.windows(2).filter_map(|pair| {
        let (before, behind) = (pair[0].last(), pair[1].first());
        let lost = (behind - 1).min(through);
        (behind > before + 1 && before < through && lost > after).then_some(lost)
    });
    within.max(between.max()).map(position)
}

/// Entries of a page.
struct Gathered {
    entries: Vec<Arc<Entry>>,
    bytes: usize,
    bytes_max: usize,
}

impl Gathered {
    fn new(bytes_max: usize) -> Self {
        Self { entries: Vec::new(), bytes: 0, bytes_max }
    }

    fn is_full(&self) -> bool {
        !self.entries.is_empty() && self.bytes >= self.bytes_max
    }

    fn add(&mut self, entry: Option<Arc<Entry>>) {
        if let Some(entry) = entry {
            self.bytes += entry.memory_bytes();
            self.entries.push(entry);
        }
    }
}

/// Brings the entries of one segment.
pub(super) struct Fetcher<'a> {
    shared: &'a Shared,
    segment: &'a Segment,
    reader: Option<RecordReader>,
    last_offset: u64,
    hiding: Hiding,
}

impl<'a> Fetcher<'a> {
    pub(super) fn new(shared: &'a Shared, segment: &'a Segment) -> Self {
        let hiding = shared.state().hiding.clone();
        Self { shared, segment, reader: None, last_offset: 0, hiding }
    }

    /// The entry of this index, whose record stands at this offset. `None` if it is lost, removed
    /// or hidden.
    pub(super) fn get(&mut self, index: u32, offset: u32) -> io::Result<Option<Arc<Entry>>> {
        let entry = self.get_hidden_too(index, offset)?;
        Ok(entry.filter(|entry| !self.hiding.hides(entry)))
    }

    /// The same, whether or not it is hidden.
    pub(super) fn get_hidden_too(&mut self, index: u32, offset: u32) -> io::Result<Option<Arc<Entry>>> {
        let wanted = self.segment.first() + u64::from(index);
        // What was removed may still be in memory.
        if offset == 0 {
            return Ok(None);
        }
        if let Some(entry) = self.shared.state().recent.get(wanted) {
            return Ok(Some(Arc::clone(entry)));
        }
        let entry = self.read_file(u64::from(offset))?;
        let entry = entry.filter(|entry| number(entry.cursor.position) == wanted);
        if entry.is_none() {
            self.shared.note_damage(self.segment, wanted);
        }
        Ok(entry.map(Arc::new))
    }

    fn read_file(&mut self, offset: u64) -> io::Result<Option<Entry>> {
        let near = offset.abs_diff(self.last_offset) < SPARSE_BYTES as u64;
        let ahead = if near { DENSE_BYTES } else { SPARSE_BYTES };
        self.last_offset = offset;
        let header = self.segment.header;
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                let file = self.shared.disk.open(&self.segment.name.log())?;
                none.insert(RecordReader::new(file, header)?)
            }
        };
        let Found::Record(head) = reader.head(offset, ahead)? else { return Ok(None) };
        match reader.record(offset, head, ahead)? {
            Some(Record::Event(record)) => Ok(restore(&header, record).map(|(entry, _)| entry)),
            _ => Ok(None),
        }
    }
}
