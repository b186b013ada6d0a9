//! Compaction: frees the bytes of deleted and expired events before their segment is freed.
//!
//! A separate thread checks each segment in which events were deleted or expired, and rewrites
//! those of which a large part is: kept events keep their numbers, ids and times, and a short
//! record replaces removed ones. The hot path is unaffected: appends, readers and tails use the old
//! file until the new one replaces it, and a reader that has the old file open reads it to its end.
//!
//! What is removed, and when:
//! - deleted events, once their segment is full and none of its idempotency keys is still in the
//!   window ([`SegmentSettings::keys_age_max`](super::SegmentSettings)); for this the next append
//!   closes the active segment;
//! - events that expired by a rule, once [`HIDDEN_PERCENT`] percent of their segment is hidden;
//! - nothing from a damaged segment, which is left unchanged for repair.
//!
//! A crash after any of these steps loses nothing: the new file and its index are written next to
//! the old ones under a temporary name and synced; the floors of the removed events are saved
//! (`front`); the new file gets its name, one generation later, and the directory is synced;
//! readers switch to it; the old file is removed. If a log finds two generations of a segment when
//! it is opened, it uses the later one, which is complete.
//!
//! Memory is bounded by the index of one segment, work by [`REST`]. A failed compaction, for
//! example on a full disk, is retried later and does not affect the log.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use super::{
    disk::TEMPORARY,
    file::{Segment, SegmentName},
    hiding::{Fate, Hiding},
    index::Row,
    index_file,
    record::{Header, Record},
    rewriting::Output,
    scan::{Found, RecordReader},
    shared::Shared,
    writer::random,
};
use crate::{draft::Audience, memory::lock};

/// How many hundredths of a segment have to be hidden by rules.
pub(super) const HIDDEN_PERCENT: u64 = 50;
/// How often it is looked for something to do.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How much longer than a compaction the rest after it is.
const REST: u32 = 4;
/// Bytes that are read at once.
const WINDOW_BYTES: usize = 1024 * 1024;

/// Looks for something to do until the log is closed.
pub(super) fn run(shared: &Shared, closed: &Receiver<Infallible>) {
    let mut patience = LOOK_EVERY;
    while closed.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
        patience = LOOK_EVERY;
        for first in shared.touched() {
            let began = Instant::now();
            // What could not be written now is tried again at the next look.
            if let Ok(Outcome::Compacted) = look_at(shared, first) {
                patience = began.elapsed() * REST;
                break;
            }
        }
    }
}

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

/// Looks at a segment in which something was hidden, and writes it anew if that is due.
pub(super) fn look_at(shared: &Shared, first: u64) -> io::Result<Outcome> {
    let _turn = lock(&shared.compacting);
    if shared.closing.load(Ordering::Relaxed) {
        return Ok(Outcome::NotYet);
    }
    let (segments, _) = shared.acknowledged();
    let Some(place) = segments.iter().position(|segment| segment.first() == first) else {
        shared.retention().touched.remove(&first);
        return Ok(Outcome::Nothing);
    };
    let segment = &segments[place];
    let oldest_key = shared.clock.now().earlier_by(shared.settings.keys_age_max);
    if segment.times().1 >= oldest_key {
        return Ok(Outcome::NotYet);
    }
    let (hiding, front) = {
        let mut retention = shared.retention();
        retention.touched.remove(&first);
        (retention.hiding.clone(), retention.front)
    };
    let looked = Plan::of(shared, segment, hiding, front).and_then(|plan| {
        if segment.has_lost() || !plan.is_due(segment) {
            plan.note_clean(segment);
            return Ok(Outcome::Nothing);
        }
        if place + 1 == segments.len() {
            shared.ends_segment.store(plan.deleted_bytes > 0, Ordering::Relaxed);
            return Ok(Outcome::NotYet);
        }
        plan.carry_out(shared, segment)
    });
    if !matches!(looked, Ok(Outcome::Compacted | Outcome::Nothing)) {
        shared.retention().touched.insert(first);
    }
    match looked {
        // Retention freed it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Outcome::NotYet),
        looked => looked,
    }
}

/// What of a segment goes.
struct Plan {
    hiding: Hiding,
    front: u64,
    rows: Vec<Row>,
    fates: Vec<Fate>,
    hidden_bytes: u64,
    deleted_bytes: u64,
}

impl Plan {
    fn of(shared: &Shared, segment: &Segment, hiding: Hiding, front: u64) -> io::Result<Self> {
        let disk = &*shared.disk;
        let audiences = segment.audiences_from(disk, 0)?;
        let fates = audiences.iter().map(|audience: &Audience| hiding.fate(audience)).collect();
        let rows = segment.rows(disk, 0..u32::MAX)?;
        let mut plan = Self { hiding, front, rows, fates, hidden_bytes: 0, deleted_bytes: 0 };
        for (number, row) in (segment.first()..).zip(&plan.rows) {
            if row.offset > 0 && plan.hides(number, row) {
                plan.hidden_bytes += u64::from(row.length);
                if number <= plan.fates[row.audience as usize].deleted_through {
                    plan.deleted_bytes += u64::from(row.length);
                }
            }
        }
        Ok(plan)
    }

    fn is_due(&self, segment: &Segment) -> bool {
        self.deleted_bytes > 0 || self.hidden_bytes * 100 >= segment.file_bytes() * HIDDEN_PERCENT
    }

    fn hides(&self, number: u64, row: &Row) -> bool {
        number <= self.front
            || self
                .fates
                .get(row.audience as usize)
                .is_some_and(|fate| self.hiding.hides_fated(*fate, number))
    }

    /// Nothing is left in a segment of what was deleted by then.
    fn note_clean(&self, segment: &Segment) {
        if self.deleted_bytes == 0 {
            segment.note_clean(self.hiding.deletions.serial);
        }
    }

    fn carry_out(&self, shared: &Shared, old: &Arc<Segment>) -> io::Result<Outcome> {
        let name = SegmentName { generation: old.name.generation + 1, ..old.name };
        let temporary = format!("{}{TEMPORARY}", name.log());
        let done = self.write(shared, old, name, &temporary).and_then(|written| match written {
            Some((header, end)) => self.put_in_place(shared, old, name, &temporary, header, end),
            None => Ok(Outcome::Nothing),
        });
        if !matches!(done, Ok(Outcome::Compacted)) {
            // What stays behind is removed when the log is opened the next time.
            let _ = shared.disk.remove(&temporary);
        }
        done
    }

    /// Writes what stays into a file, and its index. `None` if something turns out to be damaged,
    /// or the log is being closed.
    fn write(
        &self,
        shared: &Shared,
        old: &Segment,
        name: SegmentName,
        temporary: &str,
    ) -> io::Result<Option<(Header, u64)>> {
        let header = Header { salt: random()?, ..old.header };
        let file = shared.disk.create(temporary)?;
        let mut output = Output::new(&*file, header)?;
        let mut reader = RecordReader::new(shared.disk.open(&old.name.log())?, old.header)?;
        for (number, row) in (old.first()..).zip(&self.rows) {
            if row.offset == 0 || self.hides(number, row) {
                output.remove(number);
                continue;
            }
            let offset = u64::from(row.offset);
            let Found::Record(head) = reader.head(offset, WINDOW_BYTES)? else {
                shared.note_damage(old, number);
                return Ok(None);
            };
            match reader.record(offset, head, WINDOW_BYTES)? {
                Some(Record::Event(record)) if record.number == number => output.keep(record)?,
                _ => {
                    shared.note_damage(old, number);
                    return Ok(None);
                }
            }
            if shared.closing.load(Ordering::Relaxed) {
                return Ok(None);
            }
        }
        let (index, end) = output.finish(old.last())?;
        file.sync_data()?;
        index_file::write(&*shared.disk, &name.index(), header.salt, &index)?;
        Ok(Some((header, end)))
    }

    fn put_in_place(
        &self,
        shared: &Shared,
        old: &Arc<Segment>,
        name: SegmentName,
        temporary: &str,
        header: Header,
        end: u64,
    ) -> io::Result<Outcome> {
        let disk = &*shared.disk;
        let mut retention = shared.retention();
        let place = {
            let state = shared.state();
            state.segments.iter().position(|segment| Arc::ptr_eq(segment, old))
        };
        let Some(place) = place else { return Ok(Outcome::Nothing) };
        // What goes must be notified after any crash from now on.
        shared.save_front(&retention)?;
        disk.rename(temporary, &name.log())?;
        disk.sync_directory()?;
        let new = Segment::with_file(disk, name, header, old.base(), end)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the new index cannot be read"))?;
        new.note_clean(self.hiding.deletions.serial);
        retention.some_removed = true;
        let mut state = shared.state();
        let mut segments = state.segments.to_vec();
        segments[place] = Arc::new(new);
        for behind in place + 1..segments.len() {
            segments[behind].set_base(segments[behind - 1].base() + segments[behind - 1].bytes());
        }
        // A deletion is done with when nothing is left of what it took, nor in memory.
        let in_memory_from = state.recent.first().unwrap_or(u64::MAX);
        let is_done = |through: u64, serial: u64| {
            through < in_memory_from
                && segments
                    .iter()
                    .take_while(|segment| segment.first() <= through)
                    .all(|segment| segment.is_clean(serial))
        };
        retention.hiding.deletions = Arc::new(retention.hiding.deletions.without_done(is_done));
        state.segments = Arc::new(segments);
        state.hiding = retention.hiding.clone();
        drop(state);
        retention.look_again();
        drop(retention);
        // The one that reads them now asks again, and finds the new ones.
        let _ = disk.remove(&old.name.log());
        let _ = disk.remove(&old.name.index());
        Ok(Outcome::Compacted)
    }
}
