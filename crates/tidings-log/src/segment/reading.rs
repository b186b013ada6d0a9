//! Reading the log: the newest entries from memory, everything else from files.
//!
//! A read is bounded by the bytes that a call may read; events are looked up some at a time. For
//! exact topics only their events are read; for patterns every event. A damaged record is skipped
//! and raises a floor: a gap is reported to readers that pass it.

use std::{io, sync::Arc, time::Duration};

use super::{
    acknowledged::{Segments, segments_after},
    event_reader::{EventReader, FoundEvents, LOOKUP_MAX},
    hiding::Hiding,
    index::{
        Direction::{NewestFirst, OldestFirst},
        Wanted, last_before,
    },
    open_log::OpenLog,
    segment_file::Segment,
    store::Store,
};
use crate::{
    Bounds, Cursor, Entry, EventId, Grants, Position, TailItem,
    draft::{Draft, FloorDraft, Gathered, Plan as ReadPlan, Reach},
    numbers::{number, position},
};

/// Events that are looked at to resolve one id; one that so many private events bear in vain counts
/// as unknown.
const RESOLVE_MAX: usize = 10_000;

/// What was there when a call began.
struct View {
    segments: Segments,
    front: u64,
    hiding: Hiding,
    newest: u64,
    floor: FloorDraft,
}

impl OpenLog {
    /// As [`Log::read`](crate::Log::read), before the filter.
    pub(super) fn read(&self, after: Position, plan: &ReadPlan<'_>, bytes_max: usize) -> io::Result<Draft> {
        let view = self.view(plan, number(after))?;
        let wanted = wanted(plan);
        let mut page = Gathered::new(bytes_max);
        let from = view.front.max(number(after));
        let mut considered = from;
        let mut at_end = true;
        'segments: for segment in segments_after(&view.segments, from) {
            let mut reader = EventReader::new(&self.store, segment);
            let range = (considered, view.newest);
            for found in FoundEvents::new((&self.store, segment), &wanted, range, OldestFirst) {
                let (number, row) = found?;
                if page.is_full() {
                    at_end = false;
                    break 'segments;
                }
                if let Some(entry) = reader.get(number, row.offset)?.filter(|entry| !view.hiding.hide(entry))
                {
                    page.add(entry);
                }
                considered = number;
            }
        }
        let through = if at_end { view.newest.max(from) } else { considered };
        let mut floor = view.floor;
        floor.raise(newest_lost(&view.segments, from, through));
        let Cursor { epoch, position } = self.store.cursor(through);
        let (entries, through) = (page.entries, position.max(after));
        Ok(Draft { epoch, after, entries, last_count: None, through, at_end, floor })
    }

    /// As [`Log::last`](crate::Log::last), before the filter.
    pub(super) fn last(&self, count: usize, plan: &ReadPlan<'_>, bytes_max: usize) -> io::Result<Draft> {
        let view = self.view(plan, 0)?;
        let wanted = wanted(plan);
        let mut page = Gathered::new(bytes_max);
        let mut surely_accepted = 0;
        'segments: for segment in segments_after(&view.segments, view.front).iter().rev() {
            let mut reader = EventReader::new(&self.store, segment);
            let range = (view.front, view.newest);
            for found in FoundEvents::new((&self.store, segment), &wanted, range, NewestFirst) {
                let (number, row) = found?;
                if surely_accepted == count || page.has_bytes_max() {
                    break 'segments;
                }
                if let Some(entry) = reader.get(number, row.offset)?.filter(|entry| !view.hiding.hide(entry))
                {
                    surely_accepted += usize::from(plan.surely_accepts(entry.event.private));
                    page.add(entry);
                }
            }
        }
        let mut floor = view.floor;
        floor.raise(newest_lost(&view.segments, view.front, view.newest));
        Ok(Draft::last(count, page, self.store.cursor(view.newest), floor))
    }

    /// As [`Log::resolve`](crate::Log::resolve).
    pub(super) fn resolve(&self, id: &EventId, grants: &Grants) -> io::Result<Option<Position>> {
        let ((segments, extent), (front, hiding)) =
            self.settled(|horizon| (horizon.front, horizon.hiding.clone()))?;
        let (wanted, range) = (Wanted::Id(id.clone()), (front, extent.newest));
        let is_visible = |entry: &Arc<Entry>| {
            entry.event.id.as_ref() == Some(id)
                && !hiding.hide(entry)
                && (!entry.event.private || grants.cover_any(&entry.event.topics))
        };
        let mut looked_at = 0;
        for segment in segments_after(&segments, front) {
            let mut reader = EventReader::new(&self.store, segment);
            for found in FoundEvents::new((&self.store, segment), &wanted, range, OldestFirst) {
                let (number, row) = found?;
                if reader.get(number, row.offset)?.is_some_and(|entry| is_visible(&entry)) {
                    return Ok(Some(position(number)));
                }
                looked_at += 1;
                if looked_at == RESOLVE_MAX {
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    /// As [`Log::position_ago`](crate::Log::position_ago).
    pub(super) fn position_ago(&self, ago: Duration) -> io::Result<Position> {
        let ((segments, extent), front) = self.settled(|horizon| horizon.front)?;
        let time = self.store.clock.now().earlier_by(ago);
        for segment in segments_after(&segments, front).iter().rev() {
            if segment.times().0.is_some_and(|earliest| earliest < time)
                && let Some(index) = segment.look(&*self.store.disk, |places| last_before(places, time))?
            {
                let found = segment.first() + u64::from(index);
                return Ok(if found > front {
                    position(found.min(extent.newest))
                } else {
                    Position::BEFORE_ALL
                });
            }
        }
        Ok(Position::BEFORE_ALL)
    }

    /// As [`Log::bounds`](crate::Log::bounds).
    pub(super) fn bounds(&self) -> io::Result<Bounds> {
        let (_, front) = self.settled(|horizon| horizon.front)?;
        let newest = self.store.acknowledged().newest;
        Ok(Bounds {
            epochs: self.store.epochs.clone(),
            oldest: (front < newest).then(|| position(front + 1)),
            newest: position(newest),
            retention_bytes: Some(self.store.settings.bytes_max),
        })
    }

    fn view(&self, plan: &ReadPlan<'_>, after: u64) -> io::Result<View> {
        let ((segments, extent), (front, hiding, floor)) = self
            .settled(|horizon| (horizon.front, horizon.hiding.clone(), horizon.floors.draft(plan, after)))?;
        Ok(View { segments, front, hiding, newest: extent.newest, floor })
    }
}

/// What comes after one entry and up to another: entries in a row, or how far they are gone. For
/// tails that lag behind what is in memory.
pub(super) fn stretch(store: &Store, (after, through): (u64, u64), bytes_max: usize) -> io::Result<TailItem> {
    let skipped = |through| Ok(TailItem::Skipped { through: position(through) });
    let hiding = store.horizon().hiding.clone();
    let (segments, _) = store.segments();
    let mut page = Gathered::new(bytes_max);
    let Some(segment) = segments_after(&segments, after).iter().find(|segment| segment.last() > after) else {
        return skipped(through);
    };
    let events = FoundEvents::new((store, segment), &Wanted::Everything, (after, through), OldestFirst);
    let mut reader = EventReader::new(store, segment);
    // What is lost or deleted at the beginning is passed over in one step.
    let mut gone_through = None;
    for found in events.take(LOOKUP_MAX as usize) {
        let (found, row) = found?;
        let expected = gone_through.unwrap_or(after) + page.entries.len() as u64 + 1;
        let entry = if found == expected { reader.get(found, row.offset)? } else { None };
        match entry.filter(|entry| !hiding.hide(entry)) {
            Some(_) if gone_through.is_some() || page.is_full() => break,
            Some(entry) => page.add(entry),
            None if !page.entries.is_empty() => break,
            None if found == expected => gone_through = Some(found),
            None => {
                gone_through = Some(found - 1);
                break;
            }
        }
    }
    match gone_through {
        Some(gone_through) => skipped(gone_through),
        None if page.entries.is_empty() => skipped(through),
        None => Ok(TailItem::Entries(page.entries)),
    }
}

fn wanted(plan: &ReadPlan<'_>) -> Wanted {
    match &plan.reach {
        Reach::Topics(topics) => Wanted::Topics(topics.iter().map(|(topic, _)| (*topic).clone()).collect()),
        Reach::Everything | Reach::Unknown => Wanted::Everything,
    }
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
