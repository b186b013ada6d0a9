//! Opening a log: finds its segments, decides which events are valid, and whether the end was lost.
//!
//! For full segments the index is trusted, which costs reading one page each; the last segment, and
//! any without an index, is read completely, as are the deletions of which something may be left.
//! Then:
//!
//! - an incomplete write at the end is truncated: it was never acknowledged;
//! - acknowledged events that are missing are lost: within the log a gap is reported to readers
//!   that pass it, at the end of the log a new epoch begins;
//! - a log that was not closed cleanly and does not sync before acknowledging begins a new epoch if
//!   the machine was restarted since, because the last acknowledged event is unknown.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashSet},
    io,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use tidings_topic::{Cursor, Epoch};
use tokio::sync::watch;

use super::{
    acknowledged::{Acknowledged, RecentEntries},
    compaction::damaged_deletion,
    disk::{Disk, DiskFile, LOCK_NAME, TEMPORARY},
    front_file::SavedFront,
    hiding::Hiding,
    home::Home,
    horizon::{Horizon, NextExpiries},
    new_segment::{NewSegment, random},
    open_log::OpenLog,
    record::{HEADER_BYTES, Header, ReadFailure},
    retention::Retention,
    segment_file::{Segment, SegmentName},
    segment_output::SegmentOutput,
    settings::{SegmentSettings, SyncLevel},
    small_file::SmallFile,
    state_file::LogState,
    store::Store,
    survey::Survey,
    writer::{PROBE_NAME, Writer},
};
use crate::{
    Clock, EpochStart, Epochs, MemoryLimits, RetentionRule,
    histogram::Histogram,
    ledger::keys::{Keys, KnownKey},
    numbers::position,
};

/// What a file is renamed to that cannot be a segment and may hold events.
pub(super) const DAMAGED: &str = ".damaged";

/// What is reported of a log that had more deletions when it was closed.
pub(super) const LOST_DELETION: &str =
    "a deletion at the end of the log is lost: deleted events may be delivered again";

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenFailure {
    #[error("another process uses it")]
    InUse,
    #[error("there are {count} retention rules; the limit is {}", RetentionRule::COUNT_MAX)]
    TooManyRules { count: usize },
    #[error(
        "segment_bytes is {segment_bytes}; it must be from {} to {}",
        SegmentSettings::SEGMENT_BYTES_MIN,
        SegmentSettings::SEGMENT_BYTES_MAX
    )]
    SegmentBytes { segment_bytes: u64 },
    #[error(transparent)]
    Read(#[from] ReadFailure),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What opening a directory found.
#[derive(Debug, Default)]
struct FoundLog {
    segments: Vec<Arc<Segment>>,
    /// The file of the last segment, if it can be written on.
    open: Option<Arc<dyn DiskFile>>,
    /// Acknowledged events at the end are gone, or nobody knows whether.
    end_lost: bool,
    damage: Option<String>,
}

/// Opens the log on a disk that nobody else uses.
pub(super) fn open(
    disk: Arc<dyn Disk>,
    settings: SegmentSettings,
    clock: Clock,
) -> Result<(Arc<OpenLog>, Writer), OpenFailure> {
    let home = Home::of(&*disk)?;
    let state = LogState::load(&*disk)?;
    let boot_id = disk.boot_id();
    let crash = Crash::of(state.as_ref(), boot_id.as_deref());
    let limits = settings.limits();
    let rules = &settings.retention;
    let saved = SavedFront::load(&*disk)?;
    let front_lost = saved.is_none();
    let mut saved = saved.unwrap_or_default();
    let names = disk.list()?;
    clean_up(&*disk, &names)?;
    let mut found = find(&*disk, &names, &crash, saved.front)?;
    if front_lost && names.iter().any(|name| name == SavedFront::NAME) {
        found.note(format!(
            "the file {} is damaged: expired events may be delivered again, and gaps reported again",
            SavedFront::NAME
        ));
    }
    let newest = found.segments.last().map_or(saved.front, |segment| segment.last());
    saved.end_with(newest);
    let closed_deletions =
        state.as_ref().filter(|state| state.closed_at.is_some()).map(|state| state.deletions);
    let headers: Vec<_> = found.segments.iter().map(|segment| segment.header).collect();
    let epochs = epochs(state, &headers, found.end_lost, newest)?;
    let is_synced = settings.sync == SyncLevel::Always;
    let state = LogState { closed_at: None, is_synced, deletions: 0, boot_id, epochs: epochs.clone() };
    // From here on a crash is one of this run.
    state.save(&*disk)?;
    let epoch = epochs.current().epoch;
    let (segments, file) = continued(&*disk, found.segments, found.open, epoch, newest)?;
    let segment = Arc::clone(segments.last().expect("there is a segment to write to"));
    let mut horizon = horizon(&saved, rules, &limits);
    let done_through = saved.deletions_done_through;
    replay_deletions(&*disk, &segments, done_through, &mut horizon, (&limits, &mut found.damage))?;
    if closed_deletions.is_some_and(|deletions| deletions > horizon.hiding.deletions.serial) {
        found.damage.get_or_insert_with(|| LOST_DELETION.to_owned());
    }
    let keys = keys(&*disk, &segments, saved.keys, &limits, &clock)?;
    horizon.begin_after(segments[0].first() - 1);
    let newest_removed = segments.iter().filter_map(|segment| segment.newest_removed()).max();
    if let Some(newest_removed) = newest_removed.filter(|_| front_lost) {
        // Nobody knows any more who could have received it.
        horizon.floors.forget_through(newest_removed);
    }
    let touched = if horizon.hiding.is_empty() {
        BTreeSet::new()
    } else {
        segments.iter().map(|segment| segment.first()).collect()
    };
    let retention = Retention::new(&horizon.hiding, newest_removed.is_some(), touched);
    let acknowledged = Acknowledged {
        end: segment.base() + segment.bytes(),
        segments: Arc::new(segments),
        newest,
        recent: RecentEntries::default(),
        trouble: None,
        damage: found.damage,
    };
    let checked_at = clock.now();
    let store = Store {
        disk,
        home,
        settings,
        limits,
        clock,
        epochs,
        acknowledged: Mutex::new(acknowledged),
        horizon: Mutex::new(horizon),
        keys: Mutex::new(keys),
        rules_unsaved: AtomicBool::new(false),
        syncs: Histogram::default(),
    };
    let log = Arc::new(OpenLog::new(store, retention));
    let writer = Writer {
        log: Arc::clone(&log),
        bytes: segment.file_bytes(),
        segment,
        file,
        newest,
        synced_through: newest,
        unsynced_since: None,
        broken: false,
        checked_at,
        is_displaced: false,
        state,
        notifier: watch::Sender::new(()),
    };
    Ok((log, writer))
}

/// What is hidden, as it was saved.
fn horizon(saved: &SavedFront, rules: &[RetentionRule], limits: &MemoryLimits) -> Horizon {
    let mut hiding = Hiding::new(rules, saved.rule_fronts(rules));
    hiding.deletions.serial = saved.deletions_done_through;
    Horizon { front: saved.front, floors: saved.floors(limits), hiding, next: NextExpiries::default() }
}

impl Horizon {
    /// The log begins after this event, whatever became of those before.
    fn begin_after(&mut self, number: u64) {
        if number > self.front {
            self.floors.forget_through(number);
            self.front = number;
        }
    }
}

/// Applies the deletions of which something may be left.
fn replay_deletions(
    disk: &dyn Disk,
    segments: &[Arc<Segment>],
    done_through: u64,
    horizon: &mut Horizon,
    (limits, damage): (&MemoryLimits, &mut Option<String>),
) -> io::Result<()> {
    for segment in segments {
        segment.note_clean(done_through);
        let (deletions, are_whole) = segment.deletions_after(disk, done_through)?;
        if !are_whole {
            damage.get_or_insert_with(|| damaged_deletion(segment.name));
        }
        for record in deletions {
            horizon.hiding.deletions.add(&record.topic, record.deletion.clone());
            horizon.floors.record_all(record.forgotten_through, &record.floors, limits);
        }
    }
    Ok(())
}

/// What is known of how the log was left.
struct Crash {
    /// The newest event of a log that was closed in order.
    closed_at: Option<u64>,
    /// What was written cannot have been lost by the system, only by the disk.
    same_boot: bool,
    /// The log may end before what was acknowledged, although nothing of it looks wrong.
    may_have_lost_the_end: bool,
}

impl Crash {
    fn of(state: Option<&LogState>, boot_id: Option<&str>) -> Self {
        let closed_at = state.and_then(|state| state.closed_at);
        let same_boot = state.is_some_and(|state| boot_id.is_some() && state.boot_id.as_deref() == boot_id);
        let may_have_lost_the_end =
            state.is_none_or(|state| closed_at.is_none() && !same_boot && !state.is_synced);
        Self { closed_at, same_boot, may_have_lost_the_end }
    }
}

/// Whether a file with this name belongs to a log.
pub(super) fn is_of_a_log(name: &str) -> bool {
    let name = name.strip_suffix(TEMPORARY).or_else(|| name.strip_suffix(DAMAGED)).unwrap_or(name);
    let segment = name.strip_suffix(".index").map_or_else(|| name.to_owned(), |stem| format!("{stem}.log"));
    [LOCK_NAME, LogState::NAME, SavedFront::NAME, PROBE_NAME].contains(&name)
        || SegmentName::parse(&segment).is_some()
}

/// Removes what was not finished, and indexes whose segments never came to be or have gone.
fn clean_up(disk: &dyn Disk, names: &[String]) -> io::Result<()> {
    let is_of_nothing = |name: &str| {
        let segment = name.strip_suffix(".index").map(|stem| format!("{stem}.log"));
        segment.is_some_and(|segment| !names.contains(&segment))
    };
    let is_left_over = |name: &&String| name.ends_with(TEMPORARY) || is_of_nothing(name);
    names.iter().filter(is_left_over).try_for_each(|name| disk.remove(name))
}

fn find(disk: &dyn Disk, names: &[String], crash: &Crash, front: u64) -> Result<FoundLog, OpenFailure> {
    let (names, replaced) = SegmentName::all_of(names);
    replaced.into_iter().try_for_each(|name| remove(disk, name))?;
    let mut headers = Vec::new();
    let mut found = FoundLog { end_lost: crash.may_have_lost_the_end, ..FoundLog::default() };
    for (place, name) in names.iter().enumerate() {
        let hidden = names.get(place + 1).is_some_and(|next| next.first - 1 <= front);
        if hidden {
            remove(disk, *name)?;
            continue;
        }
        let file = disk.open(&name.log())?;
        match Header::of_file(&*file)? {
            Some(header) if header.first == name.first => headers.push((*name, header, file)),
            _ => found.without_header(disk, *name, &*file)?,
        }
    }
    let nexts: Vec<_> = headers.iter().skip(1).map(|(name, ..)| name.first).collect();
    let mut base = 0;
    for (place, (name, header, file)) in headers.into_iter().enumerate() {
        let segment = match nexts.get(place) {
            Some(next) => full(disk, (name, header, &file), base, next - 1, &mut found)?,
            None => last((name, header, file), base, crash, &mut found)?,
        };
        let segment = Arc::new(segment);
        base += segment.bytes();
        if segment.has_lost() {
            found.note(format!("events in {} are damaged", name.log()));
        }
        if let Some(before) = found.segments.last().filter(|before| before.last() + 1 < header.first) {
            found.note(format!("events {} to {} are missing", before.last() + 1, header.first - 1));
        }
        found.segments.push(segment);
    }
    let ends_at = found.segments.last().map_or(0, |segment| segment.last());
    found.end_lost |= crash.closed_at.is_some_and(|closed_at| ends_at < closed_at);
    Ok(found)
}

impl FoundLog {
    fn note(&mut self, damage: String) {
        self.damage.get_or_insert(damage);
    }

    fn note_damaged_deletion(&mut self, name: SegmentName, is_damaged: bool) {
        if is_damaged {
            self.note(damaged_deletion(name));
        }
    }

    /// A file without a header was just being made, or is damaged: then it is set aside, for the
    /// one that wants to repair something.
    fn without_header(&mut self, disk: &dyn Disk, name: SegmentName, file: &dyn DiskFile) -> io::Result<()> {
        if file.len()? <= HEADER_BYTES as u64 {
            return remove(disk, name);
        }
        let name = name.log();
        disk.rename(&name, &format!("{name}{DAMAGED}"))?;
        self.end_lost = true;
        self.note(format!("the header of {name} is damaged"));
        Ok(())
    }
}

fn remove(disk: &dyn Disk, name: SegmentName) -> io::Result<()> {
    match disk.remove(&name.index()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => disk.remove(&name.log()),
    }
}

/// A segment that others follow.
fn full(
    disk: &dyn Disk,
    (name, header, file): (SegmentName, Header, &Arc<dyn DiskFile>),
    base: u64,
    known_last: u64,
    found: &mut FoundLog,
) -> io::Result<Segment> {
    if let Some(segment) = Segment::with_file(disk, name, header, base, file.len()?)?
        && segment.last() <= known_last
    {
        return Ok(segment);
    }
    let survey = Survey::new(Arc::clone(file), header)?;
    let settled = survey.settle(0, Some(known_last));
    found.note_damaged_deletion(name, settled.is_deletion_damaged());
    let segment = Segment::with_memory(name, header, base, survey.index(&settled)?);
    segment.seal(disk)?;
    Ok(segment)
}

/// The segment at the end of the log.
fn last(
    (name, header, file): (SegmentName, Header, Arc<dyn DiskFile>),
    base: u64,
    crash: &Crash,
    found: &mut FoundLog,
) -> io::Result<Segment> {
    let survey = Survey::new(Arc::clone(&file), header)?;
    let settled = survey.settle(crash.closed_at.unwrap_or_default(), None);
    // The system keeps what was written until the machine stops: a record that it damaged was
    // whole, and may have been acknowledged.
    found.end_lost |= settled.end_lost || settled.end_damaged && crash.same_boot;
    let is_damaged = settled.is_deletion_damaged() || settled.is_deletion_damaged_beyond() && crash.same_boot;
    found.note_damaged_deletion(name, is_damaged);
    let mut index = survey.index(&settled)?;
    if !settled.whole {
        // A deletion is valid although events before it are lost.
        let last = header.first + u64::from(index.summary.count) - 1;
        let mut output = SegmentOutput::continued(&*file, header, index);
        for deletion in survey.deletions_beyond(&settled, last)? {
            output.keep_deletion(deletion)?;
        }
        index = output.finish()?;
        file.set_len(index.summary.bytes)?;
    }
    // What is read from now on must not be gone after the next crash.
    file.sync_data()?;
    found.open = Some(file);
    Ok(Segment::with_memory(name, header, base, index))
}

/// The epochs of a log from now on: as its state says, or else its segments, and a new one if its end
/// was lost.
pub(super) fn epochs(
    state: Option<LogState>,
    segments: &[Header],
    end_lost: bool,
    newest: u64,
) -> io::Result<Epochs> {
    let known = state.map(|state| state.epochs).or_else(|| {
        let start = |header: &Header| EpochStart { epoch: header.epoch, after: position(header.first - 1) };
        let mut starts: Vec<_> = segments.iter().map(start).collect();
        starts.dedup_by_key(|start| start.epoch);
        let excess = starts.len().saturating_sub(Epochs::COUNT_MAX);
        Epochs::from_stored(starts.split_off(excess))
    });
    let new = || random().map(Epoch::from_u64);
    match known {
        None => new().map(Epochs::starting),
        Some(known) if end_lost => Ok(known.with(EpochStart { epoch: new()?, after: position(newest) })),
        Some(known) => Ok(known),
    }
}

/// All segments, and the file of the last one.
type Continued = (Vec<Arc<Segment>>, Arc<dyn DiskFile>);

/// The segments with one that can be written to: the last one, if it is of this epoch.
fn continued(
    disk: &dyn Disk,
    mut segments: Vec<Arc<Segment>>,
    open: Option<Arc<dyn DiskFile>>,
    epoch: Epoch,
    newest: u64,
) -> io::Result<Continued> {
    let new = match (segments.last().cloned(), open) {
        (Some(last), Some(file)) if last.header.epoch == epoch => return Ok((segments, file)),
        (Some(last), _) => {
            let new = NewSegment::after(disk, &last, epoch)?;
            if new.replaces_last {
                segments.pop();
                remove(disk, last.name)?;
            } else {
                last.seal(disk)?;
            }
            new
        }
        (None, _) => NewSegment::first(disk, newest + 1, epoch)?,
    };
    segments.push(Arc::new(new.segment));
    Ok((segments, new.file))
}

/// The keys of the newest batches, as far back as the window reaches, with those that were saved
/// since their segments may be gone.
fn keys(
    disk: &dyn Disk,
    segments: &[Arc<Segment>],
    mut known: Vec<KnownKey>,
    limits: &MemoryLimits,
    clock: &Clock,
) -> io::Result<Keys> {
    let oldest = clock.now().earlier_by(limits.keys_age_max);
    // One whose window is over may have been used again.
    known.retain(|known| known.time >= oldest);
    let mut of_segments = 0;
    for segment in segments.iter().rev() {
        if segment.times().0.is_some() && segment.times().1 < oldest || of_segments >= limits.keys_max {
            break;
        }
        let (used, _) = segment.lists(disk)?;
        for used in used.into_iter().filter(|used| used.time >= oldest) {
            of_segments += 1;
            let last = segment.first() + u64::from(used.index);
            let cursor = Cursor { epoch: segment.header.epoch, position: position(last) };
            let first_id = used.id.unwrap_or_else(|| cursor.to_event_id());
            known.push(KnownKey { key: used.key, first_id, time: used.time, last });
        }
    }
    // If the clock went back, several uses of a key may be in the window.
    known.sort_by_key(|known| Reverse(known.last));
    let mut newest_uses = HashSet::new();
    known.retain(|known| newest_uses.insert(known.key.clone()));
    let mut keys = Keys::default();
    for known in known.into_iter().rev() {
        keys.insert(known, limits);
    }
    Ok(keys)
}
