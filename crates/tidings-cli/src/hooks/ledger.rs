//! What the journal says: who is recorded as present, and what each hook has yet to receive.
//!
//! Every hub that reads a journal comes to the same ledger, whatever hubs have written it, and in
//! which turns: a record of somebody who comes and is present already, or leaves and is not present,
//! counts for nothing. So each change that a hook receives is followed by its opposite, also if a hub
//! that has lost its lease appends once more.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
};

use tidings::log::{Cursor, Entry, Position, Timestamp};

use super::{
    change::{Change, Kind, Member, Recorded},
    journal::{JOURNAL_BYTES_MAX, Journal, Record, SubscriptionRecord, record},
};

/// Changes that wait for one hook. Beyond, the oldest are dropped and counted.
const PENDING_MAX: usize = 50_000;

/// A checkpoint is due when the journal has grown by so many bytes since the last one, or by four
/// times the bytes of one, but at most by a quarter of the journal: the last one must stay in it.
const CHECKPOINT_EVERY_BYTES: u64 = JOURNAL_BYTES_MAX / 16;
const CHECKPOINT_EVERY_BYTES_MAX: u64 = JOURNAL_BYTES_MAX / 4;

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Ledger {
    present: HashSet<Member>,
    /// Subscriptions that began since the last call of [`take_begun`](Self::take_begun).
    begun: Vec<Member>,
    queues: Vec<Queue>,
    /// The parts of a checkpoint, as far as they have been read.
    checkpoint: Option<Checkpoint>,
    bytes_since_checkpoint: u64,
    checkpoint_bytes: u64,
}

/// What one hook has yet to receive.
#[derive(Debug)]
struct Queue {
    name: String,
    kinds: Vec<Kind>,
    pending: VecDeque<Arc<Recorded>>,
    /// What it has received; `None` until the journal says so.
    through: Option<Cursor>,
    dropped: u64,
}

#[derive(Debug, Default)]
struct Checkpoint {
    parts_read: usize,
    members: HashSet<Member>,
    hooks: BTreeMap<String, String>,
    bytes: u64,
}

impl Ledger {
    /// Of an empty journal, for hooks of these names that want these changes.
    pub(super) fn new(hooks: impl IntoIterator<Item = (String, Vec<Kind>)>) -> Self {
        let queue =
            |(name, kinds)| Queue { name, kinds, pending: VecDeque::new(), through: None, dropped: 0 };
        Self {
            present: HashSet::new(),
            begun: Vec::new(),
            queues: hooks.into_iter().map(queue).collect(),
            checkpoint: None,
            bytes_since_checkpoint: 0,
            checkpoint_bytes: 0,
        }
    }

    /// The next entry of the journal.
    pub(super) fn read(&mut self, entry: &Entry) {
        let bytes = entry.event.data.len() as u64;
        self.bytes_since_checkpoint += bytes;
        match record(entry) {
            None => {}
            Some(Record::Change { topic, label, here }) => {
                self.change(entry, Change { member: presence((topic, label)), is_here: here });
            }
            Some(Record::Subscription { subscription, here }) => {
                if let Some(member) = subscription.member() {
                    self.change(entry, Change { member, is_here: here });
                }
            }
            Some(Record::Delivered { hook, through }) => self.delivered_text(&hook, &through),
            Some(Record::Checkpoint { part, parts, members, subscriptions, hooks }) => {
                let members = members.into_iter().map(presence);
                let subscriptions = subscriptions.into_iter().filter_map(SubscriptionRecord::member);
                self.checkpoint_part(part, parts, members.chain(subscriptions), hooks, bytes);
            }
        }
    }

    fn change(&mut self, entry: &Entry, change: Change) {
        let is_new = if change.is_here {
            self.present.insert(change.member.clone())
        } else {
            self.present.remove(&change.member)
        };
        if !is_new {
            return;
        }
        let kind = change.kind();
        if kind == Kind::Began {
            self.begun.push(change.member.clone());
        }
        let id = entry.cursor.to_event_id();
        let recorded = Arc::new(Recorded {
            cursor: entry.cursor,
            id: id.as_str().trim_start_matches('#').to_owned(),
            time: entry.time,
            change,
        });
        for queue in &mut self.queues {
            let is_received =
                queue.through.is_some_and(|through| recorded.cursor.position <= through.position);
            if queue.kinds.contains(&kind) && !is_received {
                queue.push(Arc::clone(&recorded));
            }
        }
    }

    fn delivered_text(&mut self, hook: &str, through: &str) {
        let Ok(through) = Cursor::parse(through) else { return };
        if let Some(queue) = self.queues.iter_mut().find(|queue| queue.name == hook) {
            queue.delivered(through);
        }
    }

    fn checkpoint_part(
        &mut self,
        part: usize,
        parts: usize,
        members: impl Iterator<Item = Member>,
        hooks: BTreeMap<String, String>,
        bytes: u64,
    ) {
        if part == 0 {
            self.checkpoint = Some(Checkpoint { hooks, ..Checkpoint::default() });
        }
        // The beginning is missing: it has expired, or another hub has written in between.
        let Some(mut read) = self.checkpoint.take().filter(|read| read.parts_read == part) else { return };
        read.members.extend(members);
        read.parts_read += 1;
        read.bytes += bytes;
        if read.parts_read < parts {
            self.checkpoint = Some(read);
            return;
        }
        self.present = read.members;
        self.bytes_since_checkpoint = 0;
        self.checkpoint_bytes = read.bytes;
        for (hook, through) in &read.hooks {
            self.delivered_text(hook, through);
        }
    }

    /// Who is recorded as present.
    pub(super) fn present(&self) -> &HashSet<Member> {
        &self.present
    }

    /// The subscriptions that began, as the journal says, since the last call.
    pub(super) fn take_begun(&mut self) -> Vec<Member> {
        std::mem::take(&mut self.begun)
    }

    /// The next changes for a hook, oldest first.
    pub(super) fn pending(&self, hook: usize, max: usize) -> Vec<Arc<Recorded>> {
        self.queues[hook].pending.iter().take(max).cloned().collect()
    }

    /// The hook has received everything up to here.
    pub(super) fn delivered(&mut self, hook: usize, through: Cursor) {
        self.queues[hook].delivered(through);
    }

    /// How many changes wait for a hook, since when the oldest does, and how many were dropped.
    pub(super) fn waiting(&self, hook: usize) -> (usize, Option<Timestamp>, u64) {
        let queue = &self.queues[hook];
        (queue.pending.len(), queue.pending.front().map(|oldest| oldest.time), queue.dropped)
    }

    /// Begins the hooks that the journal does not know at its end, and returns their names.
    fn begin_new_hooks(&mut self, end: Cursor) -> Vec<String> {
        let new = self.queues.iter_mut().filter(|queue| queue.through.is_none());
        new.map(|queue| {
            queue.delivered(end);
            queue.name.clone()
        })
        .collect()
    }

    /// A checkpoint, if one is due.
    pub(super) fn due_checkpoint(&self) -> Option<Vec<Record>> {
        let due = CHECKPOINT_EVERY_BYTES
            .max(self.checkpoint_bytes.saturating_mul(4))
            .min(CHECKPOINT_EVERY_BYTES_MAX);
        if self.bytes_since_checkpoint < due {
            return None;
        }
        let hooks =
            self.queues.iter().filter_map(|queue| Some((queue.name.clone(), queue.through?.to_string())));
        Some(Record::checkpoint(self.present.iter(), hooks.collect()))
    }
}

/// Hooks that a journal, of which this ledger has read all, does not know begin with what happens from
/// now on.
pub(super) async fn begin_new_hooks(journal: &Journal, ledger: &mut Ledger) -> Result<(), String> {
    let Some(end) = journal.end() else { return Ok(()) };
    let through = end.to_string();
    let new = ledger.begin_new_hooks(end);
    let records: Vec<_> =
        new.into_iter().map(|hook| Record::Delivered { hook, through: through.clone() }).collect();
    if records.is_empty() { Ok(()) } else { journal.append(&records).await }
}

fn presence((topic, label): (String, Option<String>)) -> Member {
    Member::Presence(tidings_presence::Member { topic: topic.into(), label: label.map(Into::into) })
}

impl Queue {
    fn push(&mut self, recorded: Arc<Recorded>) {
        self.pending.push_back(recorded);
        if self.pending.len() > PENDING_MAX {
            self.pending.pop_front();
            self.dropped += 1;
        }
    }

    fn delivered(&mut self, through: Cursor) {
        let is_received = |position: Position| position <= through.position;
        if self.through.is_none_or(|before| before.position < through.position) {
            self.through = Some(through);
        }
        while self.pending.front().is_some_and(|front| is_received(front.cursor.position)) {
            self.pending.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings::{
        ConnectionId, PatternSyntax,
        log::{Log, MemoryLog},
    };
    use tidings_presence::{ActiveSubscription, SubscriptionKey};

    use super::*;
    use crate::hooks::change::Kind::{Joined, Left};

    const HOOK: &str = "app";

    /// A journal and what a hub reads in it.
    struct Hub {
        journal: Journal,
        ledger: Ledger,
    }

    impl Hub {
        async fn new(log: &Arc<dyn Log>) -> Self {
            let journal = Journal::new(Arc::clone(log));
            let mut hub = Self { journal, ledger: Ledger::new([(HOOK.to_owned(), vec![Joined, Left])]) };
            hub.read().await;
            hub
        }

        async fn read(&mut self) {
            self.journal.read(|entry| self.ledger.read(entry)).await.unwrap();
        }

        async fn append(&mut self, records: &[Record]) {
            self.journal.append(records).await.unwrap();
            self.read().await;
        }

        /// What waits: the label, and whether it came.
        fn waiting(&self) -> Vec<(String, bool)> {
            let label = |change: &Change| match &change.member {
                Member::Presence(member) => member.label.as_deref().unwrap_or_default().to_owned(),
                Member::Subscription(subscription) => subscription.key.text.to_string(),
            };
            let pending = self.ledger.pending(0, usize::MAX);
            pending.iter().map(|recorded| (label(&recorded.change), recorded.change.is_here)).collect()
        }

        /// The hook has received so many changes.
        fn deliver(&mut self, count: usize) -> Record {
            let through = self.ledger.pending(0, count).last().unwrap().cursor;
            self.ledger.delivered(0, through);
            Record::Delivered { hook: HOOK.to_owned(), through: through.to_string() }
        }
    }

    fn log() -> Arc<dyn Log> {
        Arc::new(MemoryLog::default())
    }

    fn change(label: &str, here: bool) -> Record {
        Record::Change { topic: "chat".to_owned(), label: Some(label.to_owned()), here }
    }

    fn ann(here: bool) -> (String, bool) {
        ("ann".to_owned(), here)
    }

    #[tokio::test]
    async fn comings_and_leavings_alternate_whichever_hub_writes_them() {
        let log = log();
        let [mut one, mut other] = [Hub::new(&log).await, Hub::new(&log).await];
        one.append(&[change("ann", true)]).await;
        other.append(&[change("ann", true), change("ann", false), change("ann", false)]).await;
        one.append(&[change("ann", true)]).await;
        other.read().await;
        for hub in [&one, &other] {
            assert_eq!(hub.waiting(), [ann(true), ann(false), ann(true)]);
            assert_eq!(hub.ledger.present().len(), 1);
        }
        let ids = |hub: &Hub| -> Vec<_> {
            hub.ledger.pending(0, 9).iter().map(|recorded| recorded.id.clone()).collect()
        };
        assert_eq!(ids(&one), ids(&other), "the same ids at every hub");
    }

    #[tokio::test]
    async fn a_hub_that_takes_over_continues_where_the_other_was() {
        let log = log();
        let mut one = Hub::new(&log).await;
        let end = one.journal.end().unwrap();
        assert_eq!(one.ledger.begin_new_hooks(end), [HOOK]);
        one.append(&[change("ann", true), change("bob", true)]).await;
        let delivered = one.deliver(1);
        one.append(&[delivered]).await;
        assert_eq!(one.waiting(), [("bob".to_owned(), true)]);
        let mut other = Hub::new(&log).await;
        assert_eq!(other.waiting(), [("bob".to_owned(), true)]);
        assert_eq!(other.ledger.begin_new_hooks(end), [""; 0], "the journal knows it");
    }

    #[tokio::test]
    async fn a_new_hook_begins_at_the_end() {
        let log = log();
        let mut hub = Hub::new(&log).await;
        hub.append(&[change("ann", true)]).await;
        let end = hub.journal.end().unwrap();
        assert_eq!(hub.ledger.begin_new_hooks(end), [HOOK]);
        assert_eq!(hub.waiting(), []);
        hub.append(&[change("ann", false)]).await;
        assert_eq!(hub.waiting(), [ann(false)]);
    }

    #[tokio::test]
    async fn a_checkpoint_stands_for_all_records_before_it() {
        let log = log();
        let mut one = Hub::new(&log).await;
        let labels: Vec<_> = (0..250).map(|number| format!("{number:0>5000}")).collect();
        let here: Vec<_> = labels.iter().map(|label| change(label, true)).collect();
        one.append(&here).await;
        let delivered = one.deliver(250);
        let checkpoint = one.ledger.due_checkpoint().expect("a megabyte was written");
        let parts = checkpoint.len();
        assert!(parts > 1);
        // The journal begins anew, as if everything before had expired.
        let later = self::log();
        let mut other = Hub::new(&later).await;
        for (part, record) in checkpoint.into_iter().enumerate() {
            assert_eq!(other.ledger.present().len(), 0, "an incomplete checkpoint counts for nothing");
            other.append(&[record]).await;
            // Somebody's delivery in between does no harm.
            if part == 0 {
                other.append(std::slice::from_ref(&delivered)).await;
            }
        }
        assert_eq!(other.ledger.present(), one.ledger.present());
        assert!(other.ledger.due_checkpoint().is_none());
        let end = other.journal.end().unwrap();
        assert_eq!(other.ledger.begin_new_hooks(end), [""; 0], "the checkpoint says how far it is");
    }

    #[tokio::test]
    async fn a_checkpoint_contains_subscriptions_with_their_payloads() {
        let log = log();
        let mut one = Hub::new(&log).await;
        let subscription = |number: u8| {
            let key = SubscriptionKey {
                syntax: Some(PatternSyntax::UriTemplate),
                text: format!("{number:0>4000}{{id}}").into(),
                connection: ConnectionId::from_random([number; 16]),
            };
            let payload = Some(format!("\"{}\"", "x".repeat(4_000)).into());
            Change { member: Member::Subscription(ActiveSubscription { key, payload }), is_here: true }
        };
        let records: Vec<_> = (0..150).map(|number| Record::of_change(&subscription(number))).collect();
        one.append(&records).await;
        one.append(&records[..2]).await;
        one.append(&[change("ann", true)]).await;
        assert_eq!(one.ledger.present().len(), 151, "what is recorded already counts for nothing");
        let checkpoint = one.ledger.due_checkpoint().expect("a megabyte was written");
        let mut other = Hub::new(&self::log()).await;
        other.append(&checkpoint).await;
        assert_eq!(other.ledger.present(), one.ledger.present());
        assert!(checkpoint.len() > 10, "its parts are of a bounded size");
        let Change { member, .. } = subscription(7);
        other.append(&[Record::of_change(&Change { member: member.clone(), is_here: false })]).await;
        assert!(!other.ledger.present().contains(&member));
    }

    #[tokio::test]
    async fn beyond_the_limit_the_oldest_changes_are_dropped_and_counted() {
        let log = log();
        let mut hub = Hub::new(&log).await;
        for number in 0..=PENDING_MAX / 1_000 {
            let records: Vec<_> = (0..1_000).map(|part| change(&format!("{number}-{part}"), true)).collect();
            hub.append(&records).await;
        }
        let (waiting, oldest, dropped) = hub.ledger.waiting(0);
        assert_eq!((waiting, dropped), (PENDING_MAX, 1_000));
        assert!(oldest.is_some());
        assert_eq!(hub.waiting()[0].0, "1-0");
    }
}
