//! Opening a log: what is there, what counts of it, and whether its end was lost.
//!
//! Full segments are believed by their index, which costs one page each; the last one, and any whose index is missing, is read from end to end. Then:
//!
//! - a write that broke off is cut away: nobody was told that it succeeded;
//! - what is missing although it had been acknowledged is lost: within the log it is told to those who read past it, at the end of the log it begins
//!   a new epoch;
//! - a log that was not closed in order and was not synced before it answered begins a new epoch when the machine was started anew in the meantime,
//!   because nobody knows what it had acknowledged.

use std::{
    io,
    sync::{Arc, Mutex},
};

use tidings_topic::{Cursor, EventId};
use tokio::sync::watch;

use super::{
    OpenFailure, SegmentSettings,
    disk::{Disk, DiskFile, TEMPORARY, read_full},
    file::{Segment, index_name, number_in, segment_name},
    record::{HEADER_BYTES, Header, NoHeader},
    scan::Survey,
    shared::{Recent, Shared, State},
    state_file::{LogState, Newer, StoredSync, load_front},
    writer::{Writer, create, random, random_epoch},
};
use crate::{
    Clock, EpochStart, Epochs, MemoryLimits,
    ledger::{keys::Keys, number, position},
};

/// What a file is renamed to that cannot be a segment and may hold events.
const DAMAGED: &str = ".damaged";

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
    let state = LogState::load(&*disk)?.map_err(|Newer(version)| OpenFailure::Newer { version })?;
    let boot_id = disk.boot_id();
    let crash = Crash::of(state.as_ref(), boot_id.as_deref());
    let limits = settings.limits();
    let (mut retention, keys_of_freed) = load_front(&*disk, &limits)?;
    let names = disk.list()?;
    clean_up(&*disk, &names)?;
    let found = find(&*disk, &names, &crash, retention.front)?;
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
    retention.deletions = Arc::new(retention.deletions.up_to(newest));
    let deletions = Arc::clone(&retention.deletions);
    let shared = Arc::new(Shared {
        disk,
        settings,
        clock,
        epochs,
        state: Mutex::new(State {
            segments: Arc::new(segments),
            newest,
            recent: Recent::default(),
            deletions,
            trouble: None,
            damage: found.damage,
        }),
        retention: Mutex::new(retention),
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
        keys,
        limits,
        state,
        bell: watch::Sender::new(()),
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

fn clean_up(disk: &dyn Disk, names: &[String]) -> io::Result<()> {
    names.iter().filter(|name| name.ends_with(TEMPORARY)).try_for_each(|name| disk.remove(name))
}

fn find(disk: &dyn Disk, names: &[String], crash: &Crash, front: u64) -> Result<Found, OpenFailure> {
    let mut firsts: Vec<_> = names.iter().filter_map(|name| number_in(name, ".log")).collect();
    firsts.sort_unstable();
    let mut headers = Vec::new();
    let mut found = Found { end_lost: crash.may_have_lost_the_end(), ..Found::default() };
    for (place, first) in firsts.iter().enumerate() {
        let hidden = firsts.get(place + 1).is_some_and(|next| next - 1 <= front);
        if hidden {
            remove(disk, *first)?;
            continue;
        }
        let file = disk.open(&segment_name(*first))?;
        let mut bytes = [0; HEADER_BYTES];
        let read = read_full(&*file, &mut bytes, 0)?;
        match Header::decode(&bytes[..read]) {
            Ok(header) if header.first == *first => headers.push((header, file)),
            Err(NoHeader::Newer(version)) => return Err(OpenFailure::Newer { version }),
            Ok(_) | Err(NoHeader::Damaged) => found.without_header(disk, *first, &*file)?,
        }
    }
    let nexts: Vec<_> = headers.iter().skip(1).map(|(header, _)| header.first).collect();
    let mut base = 0;
    for (place, (header, file)) in headers.into_iter().enumerate() {
        let segment = match nexts.get(place) {
            Some(next) => full(disk, header, &file, base, next - 1)?,
            None => last(header, file, base, crash, &mut found)?,
        };
        let segment = Arc::new(segment);
        base += segment.bytes();
        if segment.has_lost() {
            found.note(format!("events in {} are damaged", segment_name(header.first)));
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

    /// A file without a header was just being made, or is damaged: then it is set aside, for whoever wants to salvage something.
    fn without_header(&mut self, disk: &dyn Disk, first: u64, file: &dyn DiskFile) -> io::Result<()> {
        if file.len()? <= HEADER_BYTES as u64 {
            return remove(disk, first);
        }
        let name = segment_name(first);
        disk.rename(&name, &format!("{name}{DAMAGED}"))?;
        self.end_lost = true;
        self.note(format!("the header of {name} is damaged"));
        Ok(())
    }
}

fn remove(disk: &dyn Disk, first: u64) -> io::Result<()> {
    match disk.remove(&index_name(first)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => disk.remove(&segment_name(first)),
    }
}

/// A segment that others follow.
fn full(
    disk: &dyn Disk,
    header: Header,
    file: &Arc<dyn DiskFile>,
    base: u64,
    known_last: u64,
) -> io::Result<Segment> {
    if let Some(segment) = Segment::with_file(disk, header, base, file.len()?)?
        && segment.last() <= known_last
    {
        return Ok(segment);
    }
    let survey = Survey::new(Arc::clone(file))?.map_err(|_| io::ErrorKind::InvalidData)?;
    let index = survey.index(&survey.settle(0, Some(known_last)))?;
    let segment = Segment::with_memory(header, base, index);
    segment.seal(disk)?;
    Ok(segment)
}

/// The segment at the end of the log.
fn last(
    header: Header,
    file: Arc<dyn DiskFile>,
    base: u64,
    crash: &Crash,
    found: &mut Found,
) -> io::Result<Segment> {
    let survey = Survey::new(Arc::clone(&file))?.map_err(|_| io::ErrorKind::InvalidData)?;
    let settled = survey.settle(crash.closed_at.unwrap_or_default(), None);
    // The system keeps what was written until the machine stops: a record that it damaged was whole, and may have been acknowledged.
    found.end_lost |= settled.end_lost || settled.end_damaged && crash.same_boot;
    if !settled.whole {
        file.set_len(settled.end)?;
    }
    // What is read from now on must not be gone after the next crash.
    file.sync_data()?;
    found.open = Some(file);
    Ok(Segment::with_memory(header, base, survey.index(&settled)?))
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
            before.base + before.bytes()
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
    let mut newest_first = Vec::new();
    for segment in segments.iter().rev() {
        if segment.times().0.is_some() && segment.times().1 < oldest || newest_first.len() >= limits.keys_max
        {
            break;
        }
        let (keys, _) = segment.lists(disk)?;
        newest_first.extend(keys.into_iter().rev().map(|used| (Arc::clone(segment), used)));
    }
    newest_first.truncate(limits.keys_max);
    for (segment, used) in newest_first.into_iter().rev() {
        let place = position(segment.first() + u64::from(used.index));
        let generated =
            || -> EventId { Cursor { epoch: segment.header.epoch, position: place }.to_event_id() };
        let first_id = used.id.unwrap_or_else(generated);
        keys.insert(used.key, first_id, used.time, number(place), limits);
    }
    Ok(keys)
}
