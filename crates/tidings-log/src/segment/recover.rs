//! Opening a log: finds its segments, decides which events are valid, and whether the end was lost.
//!
//! For full segments the index is trusted, which costs reading one page each; the last segment, and
//! any without an index, is read completely. Then:
//!
//! - an incomplete write at the end is truncated: it was never acknowledged;
//! - acknowledged events that are missing are lost: within the log a gap is reported to readers
//!   that pass it, at the end of the log a new epoch begins;
//! - a log that was not closed cleanly and does not sync before acknowledging begins a new epoch if
//!   the machine was restarted since, because the last acknowledged event is unknown.

use std::{
    io,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use tidings_topic::{Cursor, EventId};
use tokio::sync::watch;

use super::{
    OpenFailure, SegmentSettings,
    deletion::Deletions,
    disk::{Disk, DiskFile, LOCK_NAME, TEMPORARY, read_full},
    file::{Segment, SegmentName},
    hiding::Hiding,
    home::Home,
    record::{HEADER_BYTES, Header, NoHeader},
    retention::Retention,
    scan::Survey,
    shared::{Recent, Shared, State},
    state_file::{FRONT_NAME, LogState, Newer, STATE_NAME, StoredSync, load_front},
    writer::{PROBE_NAME, Writer, create, random, random_epoch},
};
use crate::{
    Clock, EpochStart, Epochs, MemoryLimits,
    ledger::{floors::Floors, keys::Keys, number, position},
};

/// What a file is renamed to that cannot be a segment and may hold events.
pub(super) const DAMAGED: &str = ".damaged";

/// What opening a directory found.
#[derive(Debug, Default)]
struct Found {
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
) -> Result<(Arc<Shared>, Writer), OpenFailure> {
    let home = Home::of(&*disk)?;
    let state = LogState::load(&*disk)?.map_err(|Newer(version)| OpenFailure::Newer { version })?;
    let boot_id = disk.boot_id();
    let crash = Crash::of(state.as_ref(), boot_id.as_deref());
    let limits = settings.limits();
    let rules = &settings.retention;
    let loaded = load_front(&*disk, &limits, rules)?;
    let front_lost = loaded.is_none();
    let (mut retention, keys_of_freed) = loaded.unwrap_or_else(|| {
        let hiding = Hiding::new(Deletions::default(), rules, vec![0; rules.len()]);
        (Retention::new(0, Floors::default(), hiding), Keys::default())
    });
    let names = disk.list()?;
    clean_up(&*disk, &names)?;
    let mut found = find(&*disk, &names, &crash, retention.front)?;
    if front_lost && names.iter().any(|name| name == FRONT_NAME) {
        found.note(format!(
            "the file {FRONT_NAME} is damaged: deleted or expired events may be delivered again, and gaps reported again"
        ));
    }
    let newest = found.segments.last().map_or(retention.front, |segment| segment.last());
    let epochs = epochs(state, &found, newest)?;
    let sync = StoredSync::from(settings.sync);
    let state = LogState { closed_at: None, sync, boot_id, epochs: epochs.clone() };
    // From here on a crash is one of this run.
    state.save(&*disk)?;
    let (segments, file) = continued(&*disk, found.segments, found.open, &epochs, newest)?;
    let segment = Arc::clone(segments.last().expect("there is a segment to write to"));
    let keys = keys(&*disk, &segments, keys_of_freed, &limits, &clock)?;
    retention.begin_after(segments[0].first() - 1);
    retention.hide_up_to(newest);
    let newest_removed = segments.iter().filter_map(|segment| segment.newest_removed()).max();
    retention.some_removed = newest_removed.is_some();
    if let Some(newest_removed) = newest_removed.filter(|_| front_lost) {
        // Nobody knows any more who could have received it.
        retention.floors.forget_through(newest_removed);
    }
    if !retention.hiding.is_empty() {
        retention.touched.extend(segments.iter().map(|segment| segment.first()));
    }
    let hiding = retention.hiding.clone();
    let checked_at = clock.now();
    let shared = Arc::new(Shared {
        disk,
        home,
        settings,
        clock,
        epochs,
        state: Mutex::new(State {
            segments: Arc::new(segments),
            newest,
            recent: Recent::default(),
            hiding,
            trouble: None,
            damage: found.damage,
        }),
        retention: Mutex::new(retention),
        keys: Mutex::new(keys),
        closing: AtomicBool::new(false),
        ends_segment: AtomicBool::new(false),
        compacting: Mutex::default(),
    });
    let writer = Writer {
        shared: Arc::clone(&shared),
        bytes: segment.bytes(),
        segment,
        file,
        newest,
        synced_through: newest,
        unsynced_since: None,
        broken: false,
        checked_at,
        is_displaced: false,
        limits,
        state,
        notifier: watch::Sender::new(()),
    };
    Ok((shared, writer))
}

/// What is known of how the log was left.
struct Crash {
    /// The newest event of a log that was closed in order.
    closed_at: Option<u64>,
    /// What was written cannot have been lost by the system, only by the disk.
    same_boot: bool,
    /// Whatever was acknowledged had been synced.
    synced: bool,
    known: bool,
}

impl Crash {
    fn of(state: Option<&LogState>, boot_id: Option<&str>) -> Self {
        Self {
            closed_at: state.and_then(|state| state.closed_at),
            same_boot: state.is_some_and(|state| boot_id.is_some() && state.boot_id.as_deref() == boot_id),
            synced: state.is_some_and(|state| state.sync == StoredSync::BeforeAnswer),
            known: state.is_some(),
        }
    }

    /// Whether the log may end before what was acknowledged, although nothing of it looks wrong.
    fn may_have_lost_the_end(&self) -> bool {
        !self.known || self.closed_at.is_none() && !self.same_boot && !self.synced
    }
}

/// Whether a file with this name belongs to a log.
pub(super) fn is_of_a_log(name: &str) -> bool {
    let name = name.strip_suffix(TEMPORARY).or_else(|| name.strip_suffix(DAMAGED)).unwrap_or(name);
    let segment = name.strip_suffix(".index").map_or_else(|| name.to_owned(), |stem| format!("{stem}.log"));
    [LOCK_NAME, STATE_NAME, FRONT_NAME, PROBE_NAME].contains(&name) || SegmentName::parse(&segment).is_some()
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

fn find(disk: &dyn Disk, names: &[String], crash: &Crash, front: u64) -> Result<Found, OpenFailure> {
    let names = segments(disk, names)?;
    let mut headers = Vec::new();
    let mut found = Found { end_lost: crash.may_have_lost_the_end(), ..Found::default() };
    for (place, name) in names.iter().enumerate() {
        let hidden = names.get(place + 1).is_some_and(|next| next.first - 1 <= front);
        if hidden {
            remove(disk, *name)?;
            continue;
        }
        let file = disk.open(&name.log())?;
        let mut bytes = [0; HEADER_BYTES];
        let read = read_full(&*file, &mut bytes, 0)?;
        match Header::decode(&bytes[..read]) {
            Ok(header) if header.first == name.first => headers.push((*name, header, file)),
            Err(NoHeader::Newer(version)) => return Err(OpenFailure::Newer { version }),
            Ok(_) | Err(NoHeader::Damaged) => found.without_header(disk, *name, &*file)?,
        }
    }
    let nexts: Vec<_> = headers.iter().skip(1).map(|(name, ..)| name.first).collect();
    let mut base = 0;
    for (place, (name, header, file)) in headers.into_iter().enumerate() {
        let segment = match nexts.get(place) {
            Some(next) => full(disk, name, header, &file, base, next - 1)?,
            None => last(name, header, file, base, crash, &mut found)?,
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

impl Found {
    fn note(&mut self, damage: String) {
        self.damage.get_or_insert(damage);
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

/// The segments in order, without those that were compacted into another: what holds is in the
/// later one.
fn segments(disk: &dyn Disk, names: &[String]) -> io::Result<Vec<SegmentName>> {
    let mut all: Vec<_> = names.iter().filter_map(|name| SegmentName::parse(name)).collect();
    all.sort_unstable();
    let mut kept: Vec<SegmentName> = Vec::with_capacity(all.len());
    for name in all {
        if let Some(before) = kept.pop_if(|before| before.first == name.first) {
            remove(disk, before)?;
        }
        kept.push(name);
    }
    Ok(kept)
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
    name: SegmentName,
    header: Header,
    file: &Arc<dyn DiskFile>,
    base: u64,
    known_last: u64,
) -> io::Result<Segment> {
    if let Some(segment) = Segment::with_file(disk, name, header, base, file.len()?)?
        && segment.last() <= known_last
    {
        return Ok(segment);
    }
    let survey = Survey::new(Arc::clone(file))?.map_err(|_| io::ErrorKind::InvalidData)?;
    let index = survey.index(&survey.settle(0, Some(known_last)))?;
    let segment = Segment::with_memory(name, header, base, index);
    segment.seal(disk)?;
    Ok(segment)
}

/// The segment at the end of the log.
fn last(
    name: SegmentName,
    header: Header,
    file: Arc<dyn DiskFile>,
    base: u64,
    crash: &Crash,
    found: &mut Found,
) -> io::Result<Segment> {
    let survey = Survey::new(Arc::clone(&file))?.map_err(|_| io::ErrorKind::InvalidData)?;
    let settled = survey.settle(crash.closed_at.unwrap_or_default(), None);
    // The system keeps what was written until the machine stops: a record that it damaged was
    // whole, and may have been acknowledged.
    found.end_lost |= settled.end_lost || settled.end_damaged && crash.same_boot;
    if !settled.whole {
        file.set_len(settled.end)?;
    }
    // What is read from now on must not be gone after the next crash.
    file.sync_data()?;
    found.open = Some(file);
    Ok(Segment::with_memory(name, header, base, survey.index(&settled)?))
}

/// The epochs of the log from now on.
fn epochs(state: Option<LogState>, found: &Found, newest: u64) -> io::Result<Epochs> {
    let known = match state {
        Some(state) => Some(state.epochs),
        None => Epochs::from_stored(epochs_of(&found.segments)),
    };
    match known {
        None => random_epoch().map(Epochs::starting),
        Some(known) if found.end_lost => {
            Ok(known.with(EpochStart { epoch: random_epoch()?, after: position(newest) }))
        }
        Some(known) => Ok(known),
    }
}

/// The epochs that segments tell of.
fn epochs_of(segments: &[Arc<Segment>]) -> Vec<EpochStart> {
    let start = |segment: &Arc<Segment>| EpochStart {
        epoch: segment.header.epoch,
        after: position(segment.first() - 1),
    };
    let mut starts: Vec<_> = segments.iter().map(start).collect();
    starts.dedup_by_key(|start| start.epoch);
    let excess = starts.len().saturating_sub(Epochs::COUNT_MAX);
    starts.split_off(excess)
}

/// All segments, and the file of the last one.
type Continued = (Vec<Arc<Segment>>, Arc<dyn DiskFile>);

/// The segments with one that can be written to: the last one, if it is of this epoch.
fn continued(
    disk: &dyn Disk,
    mut segments: Vec<Arc<Segment>>,
    open: Option<Arc<dyn DiskFile>>,
    epochs: &Epochs,
    newest: u64,
) -> io::Result<Continued> {
    let epoch = epochs.current().epoch;
    let last = segments.last().map(|segment| (segment.header.epoch, segment.first()));
    if let (Some((last_epoch, first)), Some(file)) = (last, open) {
        if last_epoch == epoch {
            return Ok((segments, file));
        }
        if first == newest + 1 {
            segments.pop();
        }
    }
    let base = match segments.last() {
        None => 0,
        Some(before) => {
            before.seal(disk)?;
            before.base() + before.bytes()
        }
    };
    let (segment, file) = create(disk, Header { first: newest + 1, epoch, salt: random()? }, base)?;
    segments.push(Arc::new(segment));
    Ok((segments, file))
}

/// The keys of the newest batches, as far back as the window reaches.
fn keys(
    disk: &dyn Disk,
    segments: &[Arc<Segment>],
    mut keys: Keys,
    limits: &MemoryLimits,
    clock: &Clock,
) -> io::Result<Keys> {
    let oldest = clock.now().earlier_by(limits.keys_age_max);
    keys.expire(clock.now(), limits);
    let mut newest_first = Vec::new();
    for segment in segments.iter().rev() {
        if segment.times().0.is_some() && segment.times().1 < oldest || newest_first.len() >= limits.keys_max
        {
            break;
        }
        let (keys, _) = segment.lists(disk)?;
        // One whose window is over may have been used again.
        let known = keys.into_iter().rev().filter(|used| used.time >= oldest);
        newest_first.extend(known.map(|used| (Arc::clone(segment), used)));
    }
    newest_first.truncate(limits.keys_max);
    for (segment, used) in newest_first.into_iter().rev() {
        let place = position(segment.first() + u64::from(used.index));
        let generated =
            || -> EventId { Cursor { epoch: segment.header.epoch, position: place }.to_event_id() };
        let first_id = used.id.unwrap_or_else(generated);
        // That of a batch that is hidden stands in `front`, too.
        if keys.get(&used.key).is_none() {
            keys.insert(used.key, first_id, used.time, number(place), limits);
        }
    }
    Ok(keys)
}
