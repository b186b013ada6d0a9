//! The journal of the hooks: a log of its own in the store, apart from the events, so that events
//! which nobody of the hooks asked for do not push records out of it.
//!
//! Its records are changes, how far each hook has been delivered to, and checkpoints. A checkpoint is
//! who is present and how far the hooks are, so that older records need not be kept.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use tidings::{
    Matcher, NewEvent, Validator,
    log::{Batch, Cursor, Entry, Epoch, Filter, Grants, Log, Position},
};
use tidings_presence::Member;

use super::change::Change;

/// How much a journal keeps, in bytes: some 50,000 changes. Older ones are dropped.
pub(crate) const JOURNAL_BYTES_MAX: u64 = 16 << 20;

/// The topic of its records.
const TOPIC: &str = "hooks";

/// Bytes that are read at a time.
const PAGE_BYTES: usize = 256 * 1024;

/// Members in a part of a checkpoint.
const PART_MEMBERS_MAX: usize = 100;

/// A record, as the journal stores it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(super) enum Record {
    /// Somebody came or left.
    Change { topic: String, label: Option<String>, here: bool },
    /// The hook has received every change up to this position.
    Delivered { hook: String, through: String },
    /// A part of a checkpoint, the parts of which follow each other.
    Checkpoint {
        part: usize,
        parts: usize,
        members: Vec<(String, Option<String>)>,
        /// In the first part: how far each hook is.
        hooks: BTreeMap<String, String>,
    },
}

impl Record {
    pub(super) fn of_change(change: &Change) -> Self {
        let Member { topic, label } = &change.member;
        Self::Change {
            topic: topic.to_string(),
            label: label.as_deref().map(str::to_owned),
            here: change.is_here,
        }
    }

    /// The records of a checkpoint.
    pub(super) fn checkpoint<'a>(
        members: impl ExactSizeIterator<Item = &'a Member>,
        hooks: BTreeMap<String, String>,
    ) -> Vec<Self> {
        let parts = members.len().div_ceil(PART_MEMBERS_MAX).max(1);
        let pair = |member: &Member| (member.topic.to_string(), member.label.as_deref().map(str::to_owned));
        let mut members = members.map(pair);
        let mut hooks = Some(hooks);
        let part = |part| Self::Checkpoint {
            part,
            parts,
            members: members.by_ref().take(PART_MEMBERS_MAX).collect(),
            hooks: hooks.take().unwrap_or_default(),
        };
        (0..parts).map(part).collect()
    }
}

/// The store has lost the end of the journal, or all of it.
const NEW_EPOCH: &str = "the store has lost the end of the journal of the hooks, and it is read anew";

/// A reader of the journal, and its writer. Errors are reasons for the log.
#[derive(Debug)]
pub(super) struct Journal {
    log: Arc<dyn Log>,
    validator: Validator,
    filter: Filter,
    epoch: Option<Epoch>,
    /// What has been read.
    through: Position,
}

impl Journal {
    /// A reader at the beginning.
    pub(super) fn new(log: Arc<dyn Log>) -> Self {
        let filter = Filter { matchers: vec![Matcher::Any], grants: Grants::all() };
        Self { log, validator: Validator::default(), filter, epoch: None, through: Position::BEFORE_ALL }
    }

    /// Reads what was appended since the last call, and hands each entry over.
    pub(super) async fn read(&mut self, mut entry: impl FnMut(&Entry)) -> Result<(), String> {
        loop {
            let page = self.log.read(self.through, &self.filter, PAGE_BYTES).await;
            let page = page.map_err(|error| error.to_string())?;
            if *self.epoch.get_or_insert(page.epoch) != page.epoch {
                return Err(NEW_EPOCH.to_owned());
            }
            page.entries.iter().for_each(|read| entry(read));
            self.through = page.through;
            if page.at_end {
                return Ok(());
            }
        }
    }

    /// The end of what has been read.
    pub(super) fn end(&self) -> Option<Cursor> {
        Some(Cursor { epoch: self.epoch?, position: self.through })
    }

    /// Appends records, all or nothing.
    pub(super) async fn append(&self, records: &[Record]) -> Result<(), String> {
        append(&*self.log, &self.validator, records).await
    }
}

/// Appends records, all or nothing.
pub(super) async fn append(log: &dyn Log, validator: &Validator, records: &[Record]) -> Result<(), String> {
    let event = |record| {
        let json = serde_json::to_string(record).expect("texts and numbers serialize");
        validator.event(NewEvent::new(TOPIC, json)).expect("JSON is text, and a record is small")
    };
    let batch = Batch { events: records.iter().map(event).collect(), key: None };
    let appended = log.append(batch).await;
    appended.map(drop).map_err(|error| error.to_string())
}

/// The record in an entry. `None` if another version has written it.
pub(super) fn record(entry: &Entry) -> Option<Record> {
    serde_json::from_str(&entry.event.data).ok()
}
