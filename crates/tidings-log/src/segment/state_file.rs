//! The two small files next to the segments, each replaced atomically.
//!
//! ```text
//! state    "tidstate" | version u32 | closed u8 | sync level u8 | newest event u64 | boot id text | epochs u32, each u64 and after u64 | crc u32
//! front    "tidfront" | version u32 | front u64 | forgotten through u64 | floors u32, each number u64 and audience
//!          | keys u32, each key, first id, time u64, last event u64 | deletions u32, each topic, newest event u64, protecting u32, each topic
//!          | rules u32, each type, matcher and newest hidden event u64 | crc u32
//! ```
//!
//! `state` is written when the log is opened and when it is closed. `front` is written before
//! segments are freed, with each deletion and when the log is closed: it keeps what must outlive
//! the segments. If `state` is damaged or lost, a new epoch begins; if `front` is lost, a gap is
//! reported to every reader. The log can be opened in both cases.

use std::io;

use tidings_topic::{Cursor, Epoch, EventId, Topic};

use super::{
    SyncLevel,
    deletion::{Deletion, Deletions},
    disk::{Disk, read_small, replace},
    hiding::Hiding,
    index::count,
    index_file::{decode_audience, encode_audience},
    record::{Fields, push_text},
    retention::Retention,
};
use crate::{
    EpochStart, Epochs, IdempotencyKey, MemoryLimits, RetentionRule, Timestamp,
    ledger::{floors::Floors, keys::Keys, number, position},
};

pub(super) const STATE_NAME: &str = "state";
pub(super) const FRONT_NAME: &str = "front";
const STATE_MAGIC: [u8; 8] = *b"tidstate";
const FRONT_MAGIC: [u8; 8] = *b"tidfront";
/// In version 1 no topics protected from a deletion.
const VERSION: u32 = 2;
/// The largest such file that is read: what all floors in memory may take, and more.
const FILE_BYTES_MAX: usize = 4 * MemoryLimits::FLOORS_BYTES_MAX;

/// What is known about a log beside its segments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LogState {
    /// The newest event when it was closed in order; `None` while it is open, and after a crash.
    pub(super) closed_at: Option<u64>,
    /// How it was synced while it was open.
    pub(super) sync: StoredSync,
    pub(super) boot_id: Option<String>,
    pub(super) epochs: Epochs,
}

/// What matters of a sync level afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StoredSync {
    /// What was acknowledged was on disk.
    BeforeAnswer,
    /// It may not have been.
    Later,
}

impl From<SyncLevel> for StoredSync {
    fn from(level: SyncLevel) -> Self {
        match level {
            SyncLevel::Always => Self::BeforeAnswer,
            SyncLevel::Interval(_) | SyncLevel::Never => Self::Later,
        }
    }
}

/// A later version of Tidings wrote it.
#[derive(Debug)]
pub(super) struct Newer(pub(super) u32);

impl LogState {
    pub(super) fn save(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut bytes = head(STATE_MAGIC);
        bytes.push(u8::from(self.closed_at.is_some()));
        bytes.push(u8::from(self.sync == StoredSync::Later));
        bytes.extend(self.closed_at.unwrap_or_default().to_le_bytes());
        push_text(&mut bytes, self.boot_id.as_deref().unwrap_or_default()).expect("a boot id is short");
        let count = u32::try_from(self.epochs.iter().count()).expect("there are at most Epochs::COUNT_MAX");
        bytes.extend(count.to_le_bytes());
        for start in self.epochs.iter() {
            bytes.extend(start.epoch.to_u64().to_le_bytes());
            bytes.extend(number(start.after).to_le_bytes());
        }
        replace(disk, STATE_NAME, &with_crc(bytes))
    }

    /// `None` if there is none that can be used.
    pub(super) fn load(disk: &dyn Disk) -> io::Result<Result<Option<Self>, Newer>> {
        let bytes = read_small(disk, STATE_NAME, FILE_BYTES_MAX)?;
        match bytes.as_deref().and_then(|bytes| content(STATE_MAGIC, bytes)) {
            Some((version, _)) if version > VERSION => Ok(Err(Newer(version))),
            Some((_, content)) => Ok(Ok(Self::decode(content))),
            None => Ok(Ok(None)),
        }
    }

    fn decode(content: &[u8]) -> Option<Self> {
        let mut fields = Fields(content);
        let flags = fields.take(2)?;
        let newest = fields.u64()?;
        let boot_id = fields.text()?;
        let mut starts = Vec::new();
        for _ in 0..fields.u32()? {
            let epoch = Epoch::from_u64(fields.u64()?);
            starts.push(EpochStart { epoch, after: position(fields.u64()?) });
        }
        Some(Self {
            closed_at: (flags[0] != 0).then_some(newest),
            sync: if flags[1] == 0 { StoredSync::BeforeAnswer } else { StoredSync::Later },
            boot_id: (!boot_id.is_empty()).then(|| boot_id.to_owned()),
            epochs: Epochs::from_stored(starts)?,
        })
    }
}

/// Saves the front of the log, its floors, and the keys of batches that are hidden by it: their
/// segments may be freed from now on.
pub(super) fn save_front(disk: &dyn Disk, retention: &Retention, keys: &Keys) -> io::Result<()> {
    let (forgotten_through, known) = retention.floors.known();
    let mut floors = Vec::new();
    let mut floors_count = 0_u32;
    for (number, audience) in known {
        floors_count += 1;
        floors.extend(number.to_le_bytes());
        encode_audience(&mut floors, audience);
    }
    let mut bytes = head(FRONT_MAGIC);
    bytes.extend(retention.front.to_le_bytes());
    bytes.extend(forgotten_through.to_le_bytes());
    bytes.extend(floors_count.to_le_bytes());
    bytes.extend(floors);
    let hidden: Vec<_> = keys.iter().take_while(|(_, _, _, last)| *last <= retention.front).collect();
    bytes.extend(count(&hidden).to_le_bytes());
    for (key, first_id, time, last) in hidden {
        push_text(&mut bytes, key.as_str()).expect("a key is short");
        push_text(&mut bytes, first_id.as_str()).expect("an id fits a record");
        bytes.extend(time.to_millis().to_le_bytes());
        bytes.extend(last.to_le_bytes());
    }
    let deletions: Vec<_> = retention.hiding.deletions.iter().collect();
    bytes.extend(count(&deletions).to_le_bytes());
    for (topic, deletion) in deletions {
        push_text(&mut bytes, topic.as_str()).expect("a topic fits a record");
        bytes.extend(deletion.through.to_le_bytes());
        bytes.extend(count(&deletion.protecting).to_le_bytes());
        for topic in &*deletion.protecting {
            push_text(&mut bytes, topic.as_str()).expect("a topic fits a record");
        }
    }
    let Hiding { rules, fronts, .. } = &retention.hiding;
    bytes.extend(count(rules).to_le_bytes());
    for (rule, front) in rules.iter().zip(fronts.iter()) {
        push_text(&mut bytes, rule.matcher.type_name()).expect("it is a word");
        push_text(&mut bytes, rule.matcher.as_str()).expect("a matcher is short");
        bytes.extend(front.to_le_bytes());
    }
    replace(disk, FRONT_NAME, &with_crc(bytes))
}

/// What was saved by [`save_front`]. `None` if it cannot be read.
///
/// The fronts of rules count only if the rules are the same: with others an event would fall under
/// another one, and be hidden without a report.
pub(super) fn load_front(
    disk: &dyn Disk,
    limits: &MemoryLimits,
    rules: &[RetentionRule],
) -> io::Result<Option<(Retention, Keys)>> {
    let bytes = read_small(disk, FRONT_NAME, FILE_BYTES_MAX)?;
    let read = || {
        let (version, content) = content(FRONT_MAGIC, bytes.as_deref()?)?;
        let mut fields = Fields(content);
        let (front, forgotten_through) = (fields.u64()?, fields.u64()?);
        let mut floors = Floors::default();
        floors.forget_through(forgotten_through);
        for _ in 0..fields.u32()? {
            floors.record(fields.u64()?, decode_audience(&mut fields)?, limits);
        }
        let mut keys = Keys::default();
        for _ in 0..fields.u32()? {
            let (key, first_id) = (IdempotencyKey::new(fields.text()?)?, first_id(fields.text()?)?);
            let time = Timestamp::from_millis(fields.u64()?);
            keys.insert(key, first_id, time, fields.u64()?, limits);
        }
        let mut deletions = Vec::new();
        for _ in 0..fields.u32()? {
            let (topic, through) = (Topic::from_stored(fields.text()?)?, fields.u64()?);
            let protecting_count = if version > 1 { fields.u32()? } else { 0 };
            let protecting = (0..protecting_count).map(|_| Topic::from_stored(fields.text()?));
            deletions.push((topic, Deletion::stored(through, protecting.collect::<Option<_>>()?)));
        }
        let deletions = Deletions::stored(deletions.into_iter());
        let (mut fronts, mut same) = (Vec::new(), true);
        for place in 0..fields.u32()? as usize {
            let (kind, text) = (fields.text()?, fields.text()?);
            let matcher = rules.get(place).map(|rule| &rule.matcher);
            same &= matcher.is_some_and(|matcher| matcher.type_name() == kind && matcher.as_str() == text);
            fronts.push(fields.u64()?);
        }
        if !same || fronts.len() != rules.len() {
            fronts = vec![0; rules.len()];
        }
        let hiding = Hiding::new(deletions, rules, fronts);
        (1..=VERSION).contains(&version).then(|| (Retention::new(front, floors, hiding), keys))
    };
    Ok(read())
}

fn first_id(text: &str) -> Option<EventId> {
    match Cursor::parse(text) {
        Ok(cursor) if text.starts_with('#') => Some(cursor.to_event_id()),
        _ => EventId::from_stored(text),
    }
}

fn head(magic: [u8; 8]) -> Vec<u8> {
    [&magic[..], &VERSION.to_le_bytes()].concat()
}

fn with_crc(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// The version and what follows it, if the checksum is right.
fn content(magic: [u8; 8], bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (said, crc) = bytes.split_last_chunk::<4>()?;
    let mut fields = Fields(said);
    let whole = crc32fast::hash(said) == u32::from_le_bytes(*crc) && fields.take(8)? == magic;
    let version = fields.u32()?;
    whole.then_some((version, fields.0))
}
