//! Compaction: frees the bytes of deleted and expired events before their segment is freed.
//!
//! Maintenance looks at each segment in which events were deleted or expired, and rewrites those of
//! which a large part is: kept events keep their numbers, ids and times, and a short record
//! replaces removed ones. The hot path is unaffected: appends, readers and tails use the old file
//! until the new one replaces it, and a reader that has the old file open reads it to its end.
//!
//! What is removed, and when:
//! - deleted events, once their segment is full and none of its idempotency keys is still in the
//!   window ([`SegmentSettings::keys_age_max`](super::SegmentSettings)); for this the next append
//!   closes the active segment;
//! - events that expired by a rule, once [`HIDDEN_PERCENT`] percent of their segment is hidden;
//! - deletions of which nothing is left, together with either;
//! - nothing from a damaged segment, which is left unchanged for repair.
//!
//! A crash after any of these steps loses nothing: the new file and its index are written next to
//! the old ones under a temporary name and synced; the floors of the removed events are saved
//! (`front`); the new file gets its name, one generation later, and the directory is synced;
//! readers switch to it; the old file is removed. If a log finds two generations of a segment when
//! it is opened, it uses the later one, which is complete.
//!
//! Memory is bounded by the index of one segment. A failed compaction, for example on a full disk,
//! is retried later and does not affect the log.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use super::{
    disk::TEMPORARY,
    hiding::{Fate, Hiding},
    index::Row,
    index_file,
    new_segment::random,
    open_log::OpenLog,
    record::{Header, Record},
    record_reader::{RecordReader, WINDOW_BYTES},
    segment_file::{Segment, SegmentName},
    segment_output::SegmentOutput,
};

/// How many hundredths of a segment have to be hidden by rules.
pub(super) const HIDDEN_PERCENT: u64 = 50;

/// What came of looking at a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It was written anew.
    Compacted,
    /// There is nothing to do until something else of it is hidden.
    Nothing,
    /// There will be later.
    NotYet,
}

/// Looks at a segment in which something was hidden, and writes it anew if that is due. The caller
/// holds the lock on maintenance. While it takes long, `meanwhile` is called; `save_front` saves
/// the front.
pub(super) fn look_at(
    log: &OpenLog,
    first: u64,
    meanwhile: &dyn Fn(),
    save_front: &dyn Fn() -> io::Result<()>,
) -> io::Result<Outcome> {
    let store = &log.store;
    if log.closing.load(Ordering::Relaxed) {
        return Ok(Outcome::NotYet);
    }
    let (segments, _) = store.segments();
    let Some(place) = segments.iter().position(|segment| segment.first() == first) else {
        log.retention().touched.remove(&first);
        return Ok(Outcome::Nothing);
    };
    let segment = &segments[place];
    let oldest_key = store.clock.now().earlier_by(store.settings.keys_age_max);
    if segment.times().1 >= oldest_key {
        return Ok(Outcome::NotYet);
    }
    let (front, hiding) = {
        let mut retention = log.retention();
        retention.touched.remove(&first);
        store.hidden()
    };
    let looked = Compaction::new(log, segment, hiding, front).and_then(|plan| {
        if segment.has_lost() || !plan.is_due() {
            plan.note_clean();
            return Ok(Outcome::Nothing);
        }
        if place + 1 == segments.len() {
            log.ends_segment.store(plan.deleted_bytes > 0, Ordering::Relaxed);
            return Ok(Outcome::NotYet);
        }
        plan.carry_out(meanwhile, save_front)
    });
    if !matches!(looked, Ok(Outcome::Compacted | Outcome::Nothing)) {
        log.retention().touched.insert(first);
    }
    match looked {
        // Retention freed it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Outcome::NotYet),
        looked => looked,
    }
}

/// A segment, and what is removed from it.
struct Compaction<'a> {
    log: &'a OpenLog,
    old: &'a Arc<Segment>,
    /// The segment without what is removed.
    new: SegmentName,
    hiding: Hiding,
    front: u64,
    rows: Vec<(u64, Row)>,
    fates: Vec<Fate>,
    hidden_bytes: u64,
    deleted_bytes: u64,
}

impl<'a> Compaction<'a> {
    fn new(log: &'a OpenLog, old: &'a Arc<Segment>, hiding: Hiding, front: u64) -> io::Result<Self> {
        let disk = &*log.store.disk;
        let (audiences, rows) =
            old.of_one_index(|| Ok((old.audiences_from(disk, 0)?, old.rows(disk, (0, u64::MAX))?)))?;
        let fates = audiences.iter().map(|audience| hiding.fate(audience)).collect();
        let new = SegmentName { generation: old.name.generation + 1, ..old.name };
        let mut plan = Self { log, old, new, hiding, front, rows, fates, hidden_bytes: 0, deleted_bytes: 0 };
        for (number, row) in &plan.rows {
            if row.offset > 0 && plan.hides(*number, row) {
                plan.hidden_bytes += u64::from(row.length);
                if *number <= plan.fates[row.audience as usize].deleted_through {
                    plan.deleted_bytes += u64::from(row.length);
                }
            }
        }
        Ok(plan)
    }

    fn is_due(&self) -> bool {
        self.deleted_bytes > 0 || self.hidden_bytes * 100 >= self.old.file_bytes() * HIDDEN_PERCENT
    }

    fn hides(&self, number: u64, row: &Row) -> bool {
        number <= self.front
            || self.fates.get(row.audience as usize).is_some_and(|fate| self.hiding.hide_fated(*fate, number))
    }

    /// Nothing is left in the segment of what was deleted by then.
    fn note_clean(&self) {
        if self.deleted_bytes == 0 {
            self.old.note_clean(self.hiding.deletions.serial);
        }
    }

    fn carry_out(
        &self,
        meanwhile: &dyn Fn(),
        save_front: &dyn Fn() -> io::Result<()>,
    ) -> io::Result<Outcome> {
        let temporary = format!("{}{TEMPORARY}", self.new.log());
        let done = self.write(&temporary, meanwhile).and_then(|written| match written {
            Some((header, end)) => {
                // What is removed must be reported after any crash from now on.
                save_front()?;
                self.put_in_place(&temporary, header, end)
            }
            None => Ok(Outcome::Nothing),
        });
        if !matches!(done, Ok(Outcome::Compacted)) {
            // What stays behind is removed when the log is opened the next time.
            let _ = self.log.store.disk.remove(&temporary);
        }
        done
    }

    /// Writes what stays into a file, and its index. `None` if something turns out to be damaged,
    /// or the log is being closed.
    fn write(&self, temporary: &str, meanwhile: &dyn Fn()) -> io::Result<Option<(Header, u64)>> {
        let Self { log, old, .. } = *self;
        let disk = &*log.store.disk;
        let header = Header { salt: random()?, ..old.header };
        let file = disk.create(temporary)?;
        let mut output = SegmentOutput::new(&*file, header);
        let mut reader = RecordReader::new(disk.open(&old.name.log())?, old.header)?;
        for (number, row) in &self.rows {
            if row.offset == 0 || self.hides(*number, row) {
                output.remove(*number);
                continue;
            }
            match reader.at(u64::from(row.offset), WINDOW_BYTES)? {
                Some(Record::Event(record)) if record.number == *number => output.keep(record)?,
                _ => {
                    log.store.note_damage(old, *number);
                    return Ok(None);
                }
            }
            meanwhile();
            if log.closing.load(Ordering::Relaxed) {
                return Ok(None);
            }
        }
        // The front that says so was saved, or is saved before this file is used.
        let done_through = self.hiding.deletions.done_through(self.front);
        let (deletions, are_whole) = old.deletions_after(disk, done_through)?;
        if !are_whole {
            log.store.acknowledged().damage.get_or_insert_with(|| damaged_deletion(old.name));
            return Ok(None);
        }
        deletions.into_iter().try_for_each(|deletion| output.keep_deletion(deletion))?;
        let index = output.commit(old.last())?;
        file.sync_data()?;
        index_file::write(disk, &self.new.index(), header.salt, &index)?;
        Ok(Some((header, index.summary.bytes)))
    }

    fn put_in_place(&self, temporary: &str, header: Header, end: u64) -> io::Result<Outcome> {
        let Self { log, old, .. } = *self;
        let disk = &*log.store.disk;
        disk.rename(temporary, &self.new.log())?;
        disk.sync_directory()?;
        let new = Segment::with_file(disk, self.new, header, old.base(), end)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the new index cannot be read"))?;
        new.note_clean(self.hiding.deletions.serial);
        let is_replaced = {
            let mut retention = log.retention();
            let is_replaced = log.store.acknowledged().replace(old, Arc::new(new));
            if is_replaced {
                retention.look_again(&log.store);
            }
            is_replaced
        };
        // A reader that opens the old one now asks again, and finds the new one. If retention freed
        // the old one meanwhile, the new one is superfluous.
        let superfluous = if is_replaced { old.name } else { self.new };
        let _ = disk.remove(&superfluous.log());
        let _ = disk.remove(&superfluous.index());
        Ok(if is_replaced { Outcome::Compacted } else { Outcome::Nothing })
    }
}

/// What is reported of a segment with a damaged deletion.
pub(super) fn damaged_deletion(name: SegmentName) -> String {
    format!("a deletion in {} is damaged: deleted events may be delivered again", name.log())
}
