//! The log: appends go to the stream, replies come from the index, and old events are fetched.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_nats::{
    HeaderMap,
    header::{NATS_EXPECTED_STREAM, NATS_MESSAGE_ID},
};
use async_trait::async_trait;
use futures_util::future::join_all;
use tidings_log::{
    AppendError, Appended, Batch, Bounds, Cursor, Deleted, EventId, Filter, Grants, IdempotencyKey, Log,
    LogStats, Page, Position, Tail, Topic, Unavailable,
    parts::{Audience, Pace, Plan, just_before, number, position},
    vital::catch_panic,
};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    eraser,
    fetch::{FetchOutcome, fetch},
    follower,
    format::{
        BATCH_EVENTS_MAX, DELETION_AUDIENCES_MAX, Deletion, EncodedBatch, Spared, encode, encode_message,
    },
    history::{self, deletions_subject, events_subject},
    index::{Candidate, Hidden, STORED_BYTES, number_of},
    link::{Link, NotStored, OPENING_FAILURES_MAX, Stored, persistently},
    messages::messages,
    settings::NatsSettings,
    shared_index::SharedIndex,
    tail::NatsTail,
};

/// How often a read restarts because what it found was removed in the meantime.
const READS_MAX: usize = 16;
/// Most records that one call looks at backwards.
const LOOKED_BACK_MAX: usize = 1 << 16;
/// Most topics of events that a deletion spares, and most bytes of them: it has to fit into a
/// message.
const SPARED_TOPICS_MAX: usize = 10_000;
const SPARED_BYTES_MAX: usize = 256 << 10;
/// If a message was stored and read back this recently, the log works: no probe is needed.
const PROOF_TIME: Duration = Duration::from_secs(2);
/// The key of the probe in the bucket.
const PROBE_KEY: &str = "probe";

/// A log on one stream of NATS JetStream. Clones are handles to the same log; when the last one is
/// dropped, tails return what was left and end.
///
/// An acknowledgement means that the server has stored the message: written, and synced to disk
/// when its own settings say so (`sync_interval`, two minutes by default). The log cannot promise
/// more than that.
#[derive(Clone)]
pub struct NatsLog(Arc<Inner>);

type Outcome = Result<Appended, AppendError>;

struct Inner {
    shared: Arc<SharedIndex>,
    follower: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.follower.abort();
        self.shared.close();
    }
}

impl fmt::Debug for NatsLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsLog").field("name", &self.shared().link.name()).finish_non_exhaustive()
    }
}

impl NatsLog {
    pub(crate) async fn open(link: Arc<Link>, settings: NatsSettings) -> Result<Self, String> {
        persistently(async || history::set_limits(&link, &settings).await).await?;
        let shared = Arc::new(SharedIndex::new(link, settings));
        let following = Arc::clone(&shared);
        let follower = tokio::spawn(async move {
            if let Err(panicked) = catch_panic(Box::pin(follower::follow(Arc::clone(&following)))).await {
                tracing::error!(%panicked, "the task that follows the stream of the log has ended");
                following.distrust("the task that follows the stream has ended");
                following.close();
            }
        });
        let log = Self(Arc::new(Inner { shared, follower }));
        log.shared().opened(OPENING_FAILURES_MAX).await?;
        Ok(log)
    }

    fn shared(&self) -> &Arc<SharedIndex> {
        &self.0.shared
    }

    /// Stores a message on the connection on which the index is trusted, and waits until it was
    /// read back.
    async fn store(
        &self,
        subject: String,
        key: Option<&str>,
        payload: bytes::Bytes,
    ) -> Result<Stored, AppendError> {
        let shared = self.shared();
        let trusted = shared.trusted().map_err(|Unavailable(why)| AppendError::Unavailable(why))?;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_STREAM, shared.link.name());
        if let Some(key) = key {
            headers.insert(NATS_MESSAGE_ID, key);
        }
        let read = shared.read().sequence;
        let stored = shared.link.store(subject, headers, payload).await.map_err(|not| match not {
            NotStored::Full(why) => AppendError::Full(why),
            NotStored::Refused(why) => AppendError::Unavailable(why),
            NotStored::Conflict => AppendError::Unavailable("NATS reports a conflict".to_owned()),
            NotStored::Unknown(why) => AppendError::OutcomeUnknown(why),
        })?;
        if !stored.is_repeat && stored.sequence <= read {
            // The stream gave it a sequence that another message had.
            shared.doubts.notify_one();
            return Err(AppendError::OutcomeUnknown("the stream has lost its newest messages".to_owned()));
        }
        // It is stored. The next request to this hub finds it, unless reading lags behind the
        // stream.
        if shared.has_read(stored.sequence).await && !stored.is_repeat {
            shared.state().returned = Some(Instant::now());
        }
        let settled = shared.still(trusted.generation);
        settled.map_err(|Unavailable(why)| AppendError::OutcomeUnknown(why))?;
        Ok(stored)
    }

    /// Stores batches as one message, and answers each.
    async fn append_message(&self, batches: Vec<(usize, EncodedBatch<'_>)>) -> Vec<(usize, Outcome)> {
        let subject = events_subject(self.shared().link.name());
        // A batch with a key is alone.
        let key = batches.first().and_then(|(_, encoded)| encoded.batch.key.as_ref());
        let payload = encode_message(batches.iter().map(|(_, encoded)| encoded));
        match self.store(subject, key.map(IdempotencyKey::as_str), payload).await {
            Ok(Stored { sequence, is_repeat: true }) => {
                let repeat = match self.first_id(sequence).await {
                    Ok(first_id) => Ok(Appended::Duplicate { first_id }),
                    Err(Unavailable(why)) => Err(AppendError::Unavailable(why)),
                };
                batches.into_iter().map(|(index, _)| (index, repeat.clone())).collect()
            }
            Ok(stored) => self.appended(&batches, stored.sequence),
            // The stream may accept less than the server does.
            Err(AppendError::Full(_)) if batches.len() > 1 => {
                let alone = batches.into_iter().map(|batch| self.append_message(vec![batch]));
                Box::pin(join_all(alone)).await.into_iter().flatten().collect()
            }
            Err(error) => batches.into_iter().map(|(index, _)| (index, Err(error.clone()))).collect(),
        }
    }

    /// These batches are in this message, one after the other.
    fn appended(&self, batches: &[(usize, EncodedBatch<'_>)], sequence: u64) -> Vec<(usize, Outcome)> {
        let epoch = self.shared().state().index.epochs().current().epoch;
        let cursor = |index| Cursor { epoch, position: position(number_of(sequence, index)) };
        let mut first = 0;
        let appended = batches.iter().map(|(index, EncodedBatch { batch, .. })| {
            let events = batch.events.iter().zip(first..);
            let ids = events.map(|(event, at)| event.id.clone().unwrap_or_else(|| cursor(at).to_event_id()));
            let ids = ids.collect();
            first += batch.events.len();
            (*index, Ok(Appended::New { ids, last: cursor(first - 1) }))
        });
        appended.collect()
    }

    /// The id of the first event of a batch that was stored before.
    async fn first_id(&self, sequence: u64) -> Result<EventId, Unavailable> {
        let shared = self.shared();
        let known = shared.state().index.first_id(sequence);
        let candidate = match known {
            Ok(id) => return Ok(id),
            Err(candidate) => candidate,
        };
        match fetch(shared, &*shared.trusted()?, &[candidate]).await? {
            FetchOutcome::All(entries) if !entries.is_empty() => Ok(entries[0].id.clone()),
            _ => Ok(shared.state().index.generated_id(number_of(sequence, 0))),
        }
    }

    fn check_room(&self, EncodedBatch { batch, sizes, .. }: &EncodedBatch<'_>) -> Result<(), AppendError> {
        let settings = &self.shared().settings;
        let bytes: u64 = sizes.iter().map(|size| (size + STORED_BYTES) as u64).sum();
        if bytes > settings.bytes_max {
            let bytes_max = settings.bytes_max;
            return Err(AppendError::Full(format!(
                "the batch takes {bytes} bytes and the log keeps at most {bytes_max}"
            )));
        }
        let count = batch.events.len();
        let count_max = settings.count_max.unwrap_or(u64::MAX).min(BATCH_EVENTS_MAX as u64);
        if count as u64 > count_max {
            return Err(AppendError::Full(format!(
                "the batch has {count} events and may have at most {count_max}"
            )));
        }
        Ok(())
    }

    /// Fetches the chosen events. `None` if one is gone, or the epoch has changed: then the query
    /// is repeated.
    async fn entries(
        &self,
        chosen: &[Candidate],
        epoch: tidings_log::Epoch,
    ) -> Result<Option<Vec<Arc<tidings_log::Entry>>>, Unavailable> {
        let shared = self.shared();
        let trusted = shared.trusted()?;
        match fetch(shared, &trusted, chosen).await? {
            FetchOutcome::All(entries) => {
                shared.still(trusted.generation)?;
                let is_same_epoch = shared.state().index.epochs().current().epoch == epoch;
                Ok(is_same_epoch.then_some(entries))
            }
            FetchOutcome::Missing(numbers) => {
                shared.state().index.hide_all(&numbers);
                Ok(None)
            }
        }
    }
}

impl From<NatsLog> for Arc<dyn Log> {
    fn from(log: NatsLog) -> Self {
        Arc::new(log)
    }
}

#[async_trait]
impl Log for NatsLog {
    async fn append_all(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        let mut outcomes = Vec::with_capacity(batches.len());
        let mut fitting = Vec::with_capacity(batches.len());
        for (index, batch) in batches.iter().enumerate() {
            let encoded = EncodedBatch::of(batch)
                .ok_or_else(|| AppendError::Full("an event has too many topics".to_owned()))
                .and_then(|encoded| self.check_room(&encoded).map(|()| encoded));
            match encoded {
                Ok(encoded) => {
                    fitting.push((index, encoded));
                    outcomes.push(Err(AppendError::OutcomeUnknown("it is being stored".to_owned())));
                }
                Err(error) => outcomes.push(Err(error)),
            }
        }
        let messages = messages(fitting, self.shared().link.client().max_payload());
        let stored = join_all(messages.into_iter().map(|message| self.append_message(message))).await;
        for (index, outcome) in stored.into_iter().flatten() {
            outcomes[index] = outcome;
        }
        outcomes
    }

    async fn delete(&self, topic: &Topic, grants: &Grants) -> Result<Deleted, AppendError> {
        let shared = self.shared();
        shared.catch_up().await.map_err(|Unavailable(why)| AppendError::Unavailable(why))?;
        let (bearing, newest) = shared.state_now().index.bearing(topic);
        let (deletion, kept) = deletion_of(topic, bearing, newest, grants).await?;
        if deletion.missed.is_empty() {
            return Ok(Deleted { count: 0, kept, serial: shared.state().index.deletions() });
        }
        let stored = self.store(deletions_subject(shared.link.name()), None, encode(&deletion)).await?;
        if !shared.has_read(stored.sequence).await {
            return Err(AppendError::OutcomeUnknown(
                "the deletion is stored, but was not read back in time".to_owned(),
            ));
        }
        let (count, hidden) = shared.deletion(stored.sequence);
        eraser::erase(shared, hidden);
        Ok(Deleted { count, kept, serial: shared.state().index.deletions() })
    }

    async fn read(&self, after: Position, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        let shared = self.shared();
        let (plan, pace) = (Plan::new(filter), Pace::of(filter));
        shared.trusted()?;
        let is_beyond = |after| after > shared.state().index.bounds().newest;
        if is_beyond(after) {
            shared.catch_up().await?;
        }
        for _ in 0..READS_MAX {
            let (look, floor) = {
                let index = &shared.state_now().index;
                (index.look_after(number(after), &plan), index.floor(&plan, number(after)))
            };
            let mut chosen = Vec::new();
            let mut bytes = 0;
            let mut through = None;
            let mut candidates = look.candidates.into_iter().peekable();
            while let Some(candidate) = candidates.next_if(|_| chosen.is_empty() || bytes < bytes_max) {
                pace.step().await;
                through = Some(candidate.number);
                if filter.accepts_topics(&candidate.audience.topics, candidate.audience.private) {
                    bytes += candidate.bytes;
                    chosen.push(candidate);
                }
            }
            let is_exhausted = candidates.peek().is_none();
            let at_end = is_exhausted && look.is_complete;
            let through = match through {
                _ if at_end => look.newest,
                Some(through) if !is_exhausted => through,
                _ => look.last,
            };
            let floor = floor.finish(filter).await;
            if let Some(entries) = self.entries(&chosen, look.epoch).await? {
                let through = position(through).max(after);
                return Ok(Page { epoch: look.epoch, after, entries, through, at_end, floor });
            }
        }
        Err(Unavailable("the log changes faster than it can be read".to_owned()))
    }

    async fn last(&self, count: usize, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        let shared = self.shared();
        let (plan, pace) = (Plan::new(filter), Pace::of(filter));
        shared.catch_up().await?;
        for _ in 0..READS_MAX {
            let (newest, epoch, floor) = {
                let index = &shared.state_now().index;
                let cursor = index.seen().cursor;
                (number(cursor.position), cursor.epoch, index.floor(&plan, 0))
            };
            let mut chosen: Vec<Candidate> = Vec::new();
            let (mut bytes, mut looked_at) = (0, 0);
            let mut before = newest.saturating_add(1);
            'looks: loop {
                let look = shared.state().index.look_before(before, &plan);
                looked_at += look.candidates.len();
                for candidate in look.candidates {
                    pace.step().await;
                    if chosen.len() == count || bytes >= bytes_max {
                        break 'looks;
                    }
                    if filter.accepts_topics(&candidate.audience.topics, candidate.audience.private) {
                        bytes += candidate.bytes;
                        chosen.push(candidate);
                    }
                }
                if look.is_complete || looked_at >= LOOKED_BACK_MAX {
                    break;
                }
                before = look.last;
            }
            chosen.reverse();
            let floor = floor.finish(filter).await;
            if let Some(entries) = self.entries(&chosen, epoch).await? {
                let through = position(newest);
                let after = entries.first().map_or(through, |first| just_before(first.cursor.position));
                return Ok(Page { epoch, after, entries, through, at_end: true, floor });
            }
        }
        Err(Unavailable("the log changes faster than it can be read".to_owned()))
    }

    async fn resolve(&self, id: &EventId, grants: &Grants) -> Result<Option<Position>, Unavailable> {
        let pace = Pace::of_grants(grants);
        let shared = self.shared();
        shared.catch_up().await?;
        for _ in 0..READS_MAX {
            let (named, epoch) = {
                let index = &shared.state_now().index;
                (index.named(id), index.epochs().current().epoch)
            };
            let mut is_settled = true;
            for candidate in named {
                pace.step().await;
                let audience = &candidate.audience;
                if audience.private && !grants.cover_any(&audience.topics) {
                    continue;
                }
                match self.entries(std::slice::from_ref(&candidate), epoch).await? {
                    Some(entries) if entries.iter().any(|entry| entry.id == *id) => {
                        return Ok(Some(position(candidate.number)));
                    }
                    Some(_) => {}
                    None => {
                        is_settled = false;
                        break;
                    }
                }
            }
            if is_settled {
                return Ok(None);
            }
        }
        Err(Unavailable("the log changes faster than it can be read".to_owned()))
    }

    async fn position_ago(&self, ago: Duration) -> Result<Position, Unavailable> {
        let shared = self.shared();
        shared.trusted()?;
        Ok(shared.state_now().index.position_ago(shared.clock.now(), ago))
    }

    async fn bounds(&self) -> Result<Bounds, Unavailable> {
        let shared = self.shared();
        shared.catch_up().await?;
        Ok(shared.state_now().index.bounds())
    }

    async fn tail(&self) -> Result<(Cursor, Box<dyn Tail>), Unavailable> {
        self.shared().catch_up().await?;
        let (cursor, tail) = NatsTail::new(Arc::clone(self.shared()));
        Ok((cursor, Box::new(tail)))
    }

    /// End to end: a message was stored and read back a moment ago, or a probe is stored in the
    /// bucket next to the stream and read again. It is not stored in the stream itself, where it
    /// would push out an event whenever that is full.
    async fn health(&self) -> Result<(), Unavailable> {
        let shared = self.shared();
        shared.catch_up().await?;
        if shared.returned_within(PROOF_TIME) {
            return Ok(());
        }
        let probe = async {
            let trusted = shared.trusted().map_err(|Unavailable(why)| why)?;
            let bucket = &trusted.bucket;
            let revision = bucket.put(PROBE_KEY, "".into()).await.map_err(|error| error.to_string())?;
            let found = bucket.entry(PROBE_KEY).await.map_err(|error| error.to_string())?;
            if found.is_some_and(|entry| entry.revision >= revision) {
                Ok(())
            } else {
                Err("it was not stored".to_owned())
            }
        };
        shared.link.ask("storing a probe", probe).await.map_err(Unavailable)?;
        shared.state().returned = Some(Instant::now());
        Ok(())
    }

    fn rejected_count(&self) -> u64 {
        self.shared().rejected.load(Ordering::Relaxed)
    }

    fn stats(&self) -> Option<LogStats> {
        let shared = self.shared();
        let mut stats = shared.state_now().index.stats();
        stats.is_up = shared.trusted().is_ok();
        Some(stats)
    }
}

/// A deletion of the events with these audiences, as far as the grants cover them, and how many it
/// spares.
async fn deletion_of(
    topic: &Topic,
    mut bearing: Vec<(Arc<Audience>, u64, u64)>,
    newest: u64,
    grants: &Grants,
) -> Result<(Deletion, u64), AppendError> {
    let (mut missed, mut kept, mut topics) = (Vec::new(), 0, BTreeSet::new());
    bearing.sort_unstable_by_key(|(_, _, newest)| Reverse(*newest));
    let pace = Pace::of_grants(grants);
    for (audience, count, newest) in bearing {
        pace.step().await;
        match audience.topics.iter().find(|topic| !grants.covers(topic)) {
            None if missed.len() < DELETION_AUDIENCES_MAX => {
                missed.push((Audience::clone(&audience), newest));
            }
            None => {}
            Some(uncovered) => {
                kept += count;
                if !audience.topics.iter().any(|topic| topics.contains(topic)) {
                    topics.insert(uncovered.clone());
                }
            }
        }
    }
    let bytes: usize = topics.iter().map(|topic: &Topic| topic.as_str().len()).sum();
    if topics.len() > SPARED_TOPICS_MAX || bytes > SPARED_BYTES_MAX {
        return Err(AppendError::Full(format!(
            "{} topics that the key does not cover share events with this one, and a deletion can spare {SPARED_TOPICS_MAX} or {SPARED_BYTES_MAX} bytes of \
             them; delete with a key that covers them",
            topics.len()
        )));
    }
    let spared = (!grants.is_all()).then(|| Spared { after: newest, topics: topics.into_iter().collect() });
    Ok((Deletion { topic: topic.clone(), missed, spared }, kept))
}

impl SharedIndex {
    /// The effect of a deletion: how many events it hid, and which messages have no visible event
    /// left.
    fn deletion(&self, sequence: u64) -> (u64, Vec<Hidden>) {
        self.state().deletions.remove(&sequence).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use tidings_topic::Validator;

    use super::*;

    /// Another hub may append before the deletion is stored.
    #[tokio::test]
    async fn a_deletion_by_a_limited_key_spares_what_is_appended_meanwhile() {
        let a = Topic::from_stored("a").expect("a topic");
        let audience = Audience { topics: vec![a.clone()], private: false };
        let bearing = vec![(Arc::new(audience), 2, 6)];
        let limited: Grants = [Validator::default().exact("a").expect("a topic")].into_iter().collect();
        let (deletion, kept) = deletion_of(&a, bearing.clone(), 7, &limited).await.expect("a deletion");
        let (spared, topics) = (deletion.spared.expect("it may spare something"), std::slice::from_ref(&a));
        assert_eq!((kept, spared.spares(7, topics), spared.spares(8, topics)), (0, false, true));
        let (deletion, _) = deletion_of(&a, bearing, 7, &Grants::all()).await.expect("a deletion");
        assert_eq!(deletion.spared, None, "everything before it is deleted");
    }
}
