//! The file `front`: what must outlive the segments that are freed and the events that compaction
//! removes. It is replaced as a whole before either, and when the log is closed.
//!
//! ```text
//! front    "tidfront" | format u32 | front u64 | deletions done through u64 | forgotten through u64 | floors u32, each number u64 and audience
//!          | keys u32, each key, first id, time u64, last event u64 | rules u32, each type, matcher and newest hidden event u64 | crc u32
//! ```
//!
//! If it is lost, a gap is reported to every reader.

use std::{io, sync::Arc};

use tidings_topic::{Cursor, EventId};

use super::{
    disk::{Disk, read_small, replace},
    fields::{Fields, count, push_audience, push_text},
    small_file::{SmallFile, begin, content, with_crc},
};
use crate::{
    IdempotencyKey, MemoryLimits, RetentionRule, Timestamp,
    draft::Audience,
    ledger::{floors::Floors, keys::KnownKey},
};

pub(super) const FRONT_NAME: &str = "front";
const MAGIC: [u8; 8] = *b"tidfront";
/// The largest such file that is read: what all floors in memory may take, and more.
const FILE_BYTES_MAX: usize = 4 * MemoryLimits::FLOORS_BYTES_MAX;

/// What is saved.
#[derive(Clone, Default, Debug)]
pub(super) struct SavedFront {
    /// Everything up to here is hidden, and its segments may be freed.
    pub(super) front: u64,
    /// Nothing is left of what the deletions up to this serial number deleted.
    pub(super) deletions_done_through: u64,
    /// Up to here it is forgotten who could have received what was dropped.
    pub(super) forgotten_through: u64,
    /// The newest dropped event of each audience beyond it.
    pub(super) floors: Vec<(u64, Arc<Audience>)>,
    /// The keys of batches up to the front, oldest first.
    pub(super) keys: Vec<KnownKey>,
    /// For each retention rule the newest event that has expired by it.
    pub(super) rule_fronts: Vec<u64>,
}

impl SavedFront {
    /// The floors, within these limits.
    pub(super) fn floors(&self, limits: &MemoryLimits) -> Floors {
        let mut floors = Floors::default();
        floors.forget_through(self.forgotten_through);
        for (number, audience) in &self.floors {
            floors.record(*number, Audience::clone(audience), limits);
        }
        floors
    }

    /// Saves it. The rules are those of its fronts.
    pub(super) fn save(&self, disk: &dyn Disk, rules: &[RetentionRule]) -> io::Result<()> {
        let mut bytes = begin(MAGIC);
        for number in [self.front, self.deletions_done_through, self.forgotten_through] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(count(&self.floors).to_le_bytes());
        for (number, audience) in &self.floors {
            bytes.extend(number.to_le_bytes());
            push_audience(&mut bytes, audience);
        }
        bytes.extend(count(&self.keys).to_le_bytes());
        for KnownKey { key, first_id, time, last } in &self.keys {
            push_text(&mut bytes, key.as_str()).expect("a key is short");
            push_text(&mut bytes, first_id.as_str()).expect("an id fits a record");
            bytes.extend(time.to_millis().to_le_bytes());
            bytes.extend(last.to_le_bytes());
        }
        bytes.extend(count(rules).to_le_bytes());
        for (rule, front) in rules.iter().zip(&self.rule_fronts) {
            push_text(&mut bytes, rule.matcher.type_name()).expect("it is a word");
            push_text(&mut bytes, rule.matcher.as_str()).expect("a matcher is short");
            bytes.extend(front.to_le_bytes());
        }
        replace(disk, FRONT_NAME, &with_crc(bytes))
    }

    /// What was saved, with `None` if it cannot be read; or the format of another version.
    ///
    /// The fronts of rules count only if the rules are the same: with others an event would fall
    /// under another one, and be hidden without a report.
    pub(super) fn load(disk: &dyn Disk, rules: &[RetentionRule]) -> io::Result<Result<Option<Self>, u32>> {
        let bytes = read_small(disk, FRONT_NAME, FILE_BYTES_MAX)?;
        Ok(match bytes.as_deref().map_or(SmallFile::Damaged, |bytes| content(MAGIC, bytes)) {
            SmallFile::Whole(content) => Ok(Self::decode(content, rules)),
            SmallFile::Foreign(format) => Err(format),
            SmallFile::Damaged => Ok(None),
        })
    }

    fn decode(content: &[u8], rules: &[RetentionRule]) -> Option<Self> {
        let mut fields = Fields(content);
        let mut saved = Self {
            front: fields.u64()?,
            deletions_done_through: fields.u64()?,
            forgotten_through: fields.u64()?,
            ..Self::default()
        };
        for _ in 0..fields.u32()? {
            saved.floors.push((fields.u64()?, Arc::new(fields.audience()?)));
        }
        for _ in 0..fields.u32()? {
            let (key, first_id) = (IdempotencyKey::new(fields.text()?)?, first_id(fields.text()?)?);
            let time = Timestamp::from_millis(fields.u64()?);
            saved.keys.push(KnownKey { key, first_id, time, last: fields.u64()? });
        }
        let (mut fronts, mut are_same) = (Vec::new(), true);
        for place in 0..fields.u32()? as usize {
            let (kind, text) = (fields.text()?, fields.text()?);
            let matcher = rules.get(place).map(|rule| &rule.matcher);
            are_same &=
                matcher.is_some_and(|matcher| matcher.type_name() == kind && matcher.as_str() == text);
            fronts.push(fields.u64()?);
        }
        let are_same = are_same && fronts.len() == rules.len();
        saved.rule_fronts = if are_same { fronts } else { vec![0; rules.len()] };
        Some(saved)
    }
}

fn first_id(text: &str) -> Option<EventId> {
    match Cursor::parse(text) {
        Ok(cursor) if text.starts_with('#') => Some(cursor.to_event_id()),
        _ => EventId::from_stored(text),
    }
}
