//! The journal of the hooks: a log of its own in the store, apart from the events, so that events
//! which nobody of the hooks asked for do not push records out of it.
//!
//! Its records are changes, how far each hook has been delivered to, and checkpoints. A checkpoint is
//! who is present and how far the hooks are, so that older records need not be kept.

use std::{collections::BTreeMap, iter, sync::Arc};

use serde::{Deserialize, Serialize};
use tidings::{
    ConnectionId, Matcher, NewEvent, Validator,
    log::{Batch, Cursor, Entry, Epoch, Filter, Grants, IdempotencyKey, Log, Position},
    matcher_syntax, matcher_type,
};
use tidings_presence::{ActiveSubscription, SubscriptionKey};

use super::change::{Change, Member};

/// How much a journal keeps, in bytes: some 50,000 changes. Older ones are dropped. Checkpoints of some
/// 20,000 active subscriptions fit; of more, a hub that takes over may not know all.
pub(crate) const JOURNAL_BYTES_MAX: u64 = 16 << 20;

/// The topic of its records.
const TOPIC: &str = "hooks";

/// Bytes that are read at a time.
const PAGE_BYTES: usize = 256 * 1024;

/// Most records that are appended together.
const APPENDED_MAX: usize = 500;

/// Bytes of texts after which no further record is appended together with those before it. With what
/// JSON adds, this is far below the largest message of a NATS server.
const APPENDED_BYTES: usize = 128 * 1024;

/// Members in a part of a checkpoint.
const PART_MEMBERS_MAX: usize = 100;

/// Bytes of the subscriptions in a part of a checkpoint, after which the next part begins.
const PART_SUBSCRIPTIONS_BYTES: usize = 64 * 1024;

/// A record, as the journal stores it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(super) enum Record {
    /// Somebody came or left.
    Change { topic: String, label: Option<String>, here: bool },
    /// A subscription began or ended.
    Subscription { subscription: SubscriptionRecord, here: bool },
    /// The hook has received every change up to this position.
    Delivered { hook: String, through: String },
    /// A part of a checkpoint, the parts of which follow each other.
    Checkpoint {
        part: usize,
        parts: usize,
        members: Vec<(String, Option<String>)>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        subscriptions: Vec<SubscriptionRecord>,
        /// In the first part: how far each hook is.
        hooks: BTreeMap<String, String>,
    },
}

/// A subscription, as the journal stores it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct SubscriptionRecord {
    connection: String,
    match_type: String,
    r#match: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
}

impl SubscriptionRecord {
    fn of(subscription: &ActiveSubscription) -> Self {
        let SubscriptionKey { syntax, text, connection } = &subscription.key;
        Self {
            connection: connection.to_string(),
            match_type: matcher_type(*syntax).to_owned(),
            r#match: text.to_string(),
            payload: subscription.payload.as_deref().map(str::to_owned),
        }
    }

    fn bytes(&self) -> usize {
        self.connection.len() + self.r#match.len() + self.payload.as_ref().map_or(0, String::len)
    }

    /// `None` if another version has written it.
    pub(super) fn member(self) -> Option<Member> {
        let key = SubscriptionKey {
            syntax: matcher_syntax(&self.match_type)?,
            text: self.r#match.into(),
            connection: ConnectionId::parse(&self.connection)?,
        };
        Some(Member::Subscription(ActiveSubscription { key, payload: self.payload.map(Into::into) }))
    }
}

impl Record {
    pub(super) fn of_change(change: &Change) -> Self {
        let here = change.is_here;
        match &change.member {
            Member::Presence(member) => {
                let (topic, label) = pair(member);
                Self::Change { topic, label, here }
            }
            Member::Subscription(subscription) => {
                Self::Subscription { subscription: SubscriptionRecord::of(subscription), here }
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Change { topic, label, .. } => topic.len() + label.as_ref().map_or(0, String::len),
            Self::Subscription { subscription, .. } => subscription.bytes(),
            Self::Delivered { .. } | Self::Checkpoint { .. } => 0,
        }
    }

    /// The records of a checkpoint.
    pub(super) fn checkpoint<'a>(
        members: impl Iterator<Item = &'a Member>,
        hooks: BTreeMap<String, String>,
    ) -> Vec<Self> {
        let (mut present, mut subscriptions) = (Vec::new(), vec![Vec::new()]);
        let mut bytes = 0;
        for member in members {
            match member {
                Member::Presence(member) => present.push(pair(member)),
                Member::Subscription(subscription) => {
                    let record = SubscriptionRecord::of(subscription);
                    if bytes >= PART_SUBSCRIPTIONS_BYTES {
                        subscriptions.push(Vec::new());
                        bytes = 0;
                    }
                    bytes += record.bytes();
                    subscriptions.last_mut().expect("there is one").push(record);
                }
            }
        }
        let present =
            present.chunks(PART_MEMBERS_MAX).map(<[_]>::to_vec).map(|members| (members, Vec::new()));
        let contents: Vec<_> =
            subscriptions.into_iter().map(|part| (Vec::new(), part)).chain(present).collect();
        let parts = contents.len();
        let mut hooks = Some(hooks);
        let part = |(part, (members, subscriptions))| {
            let hooks = hooks.take().unwrap_or_default();
            Self::Checkpoint { part, parts, members, subscriptions, hooks }
        };
        contents.into_iter().enumerate().map(part).collect()
    }
}

fn pair(member: &tidings_presence::Member) -> (String, Option<String>) {
    (member.topic.to_string(), member.label.as_deref().map(str::to_owned))
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
        append(&*self.log, &self.validator, records, None).await
    }
}

/// Appends records, all or nothing. With a key that the log has seen lately it appends nothing.
pub(super) async fn append(
    log: &dyn Log,
    validator: &Validator,
    records: &[Record],
    key: Option<IdempotencyKey>,
) -> Result<(), String> {
    let event = |record| {
        let json = serde_json::to_string(record).expect("texts and numbers serialize");
        validator.event(NewEvent::new(TOPIC, json)).expect("JSON is text, and a record is small")
    };
    let batch = Batch { events: records.iter().map(event).collect(), key };
    let appended = log.append(batch).await;
    appended.map(drop).map_err(|error| error.to_string())
}

/// Changes in parts that can be appended together.
pub(super) fn parts(mut changes: &[Record]) -> impl Iterator<Item = &[Record]> {
    iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |record: &&Record| {
            let fits = bytes < APPENDED_BYTES;
            bytes += record.bytes();
            fits
        };
        let count = changes.iter().take(APPENDED_MAX).take_while(fits).count();
        let (part, rest) = changes.split_at(count);
        changes = rest;
        (!part.is_empty()).then_some(part)
    })
}

/// The record in an entry. `None` if another version has written it.
pub(super) fn record(entry: &Entry) -> Option<Record> {
    serde_json::from_str(&entry.event.data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_together_is_bounded_in_number_and_bytes() {
        let change = |bytes| Record::Change { topic: "x".repeat(bytes), label: None, here: true };
        let sizes =
            |count, bytes| -> Vec<_> { parts(&vec![change(bytes); count]).map(<[Record]>::len).collect() };
        assert_eq!(sizes(0, 10), [0; 0]);
        assert_eq!(sizes(3, 10), [3]);
        assert_eq!(sizes(APPENDED_MAX + 1, 10), [APPENDED_MAX, 1]);
        assert_eq!(sizes(40, 8 * 1024), [16, 16, 8]);
        assert_eq!(sizes(2, APPENDED_BYTES), [1, 1]);
    }
}
