//! The log on Redis Streams: any number of hubs share one order, one set of ids and one history.
//!
//! **Keys.** One stream holds the events, an entry each; next to it are the state of the log
//! (epochs, counts, the end), floors, idempotency keys, and an index of publishers' ids.
//! `lua/common.lua` lists the keys. All carry the hash tag `{name}`, so that a Redis Cluster keeps
//! them in one slot.
//!
//! **Every step is a script** (`log/lua/`), which Redis runs atomically: batches with their
//! idempotency keys, retention with its floors, a page with the floors that belong to it. So hubs
//! agree without talking to each other. One call appends the batches of several publishers.
//!
//! **Order** is that of the stream. A position is an id of the stream, `ms-seq` by the clock of
//! Redis, packed into a number (44 and 20 bits). Redis accepts only growing ids, and the scripts
//! issue growing ones: when the clock is set back, positions count on from the newest. The time of
//! an event is that of its position, so it never goes back either.
//!
//! **Retention** drops events from the front, on any call: by count, by bytes (a running count of
//! the texts and their overhead) and by age. All hubs of one log should have the same limits; each
//! applies its own when it calls.
//!
//! **Floors** are kept in Redis for each audience that lost something, at most
//! [`MemoryLimits::floors_max`]; each process keeps a copy (`log/floors.rs`), and each page brings
//! the changes.
//!
//! **Epochs.** Redis may come back with less than it acknowledged: restarted without persistence,
//! flushed, failed over to a replica that missed the end. On every connection, before anything
//! else, and once a second, a process presents the newest event that it has read or that was
//! acknowledged to it; if that event is neither there nor accounted for, the script begins a new
//! epoch (`log/lua/probe.lua`). The first process begins it, the others find it.
//!
//! **Connections.** One task (`log/client.rs`) connects and reconnects, with two connections for
//! the whole process: one for commands, one that waits for new entries for all tails; and a third
//! one where events wait for replicas. While there is none, calls fail at once and tails wait.

mod answer;
mod client;
mod entry;
mod epochs;
mod floors;
mod places;
mod reading;
mod replicas;
mod scripts;
mod settings;
mod tail;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tidings_log::{
    AppendError, Appended, Batch, Bounds, Clock, Cursor, Deleted, Epoch, EventId, Filter, Grants, Log,
    LogStats, MemoryLimits, Page, Position, Tail, Topic, Unavailable,
    parts::{Pace, number, position},
};
use tokio::task::AbortHandle;

pub use self::settings::RedisSettings;
use self::{
    answer::Answer,
    client::{LogClient, Newest},
    entry::{audience, written},
    epochs::fresh,
    places::{place, place_of},
    tail::RedisTail,
};
use crate::{Connector, trouble::Trouble};

/// A log on Redis Streams. Clones are handles to the same connections; when the last one is
/// dropped, tails end.
#[derive(Clone)]
pub struct RedisLog(Arc<Handle>);

struct Handle {
    client: Arc<LogClient>,
    keeper: AbortHandle,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.keeper.abort();
        self.client.close();
    }
}

/// Most events of several batches that one call appends: Redis serves nobody else meanwhile.
const CALL_EVENTS_MAX: usize = 500;

/// How long a batch with an unknown outcome, and with a key that settles it, waits for Redis to
/// come back.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(3);

impl RedisLog {
    /// Opens the log. Needs a Tokio runtime. A log that does not exist is created. Fails if Redis
    /// cannot be reached, or if a write is not read back.
    pub async fn open(settings: RedisSettings) -> Result<Self, Unavailable> {
        Self::open_with_clock(settings, None).await
    }

    /// Opens the log with a clock other than that of Redis, if there is one. For tests: hubs of one
    /// log have to agree on the time.
    pub async fn open_with_clock(settings: RedisSettings, clock: Option<Clock>) -> Result<Self, Unavailable> {
        let connector = Connector::new(settings.url.clone(), format!("{{{}}}", settings.name), "log");
        let client = Arc::new(LogClient::new(connector, settings, clock));
        let keeper = client.open().await?;
        Ok(Self(Arc::new(Handle { client, keeper })))
    }
}

impl fmt::Debug for RedisLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLog").field("settings", &self.0.client.settings).finish_non_exhaustive()
    }
}

impl From<RedisLog> for Arc<dyn Log> {
    fn from(log: RedisLog) -> Self {
        Arc::new(log)
    }
}

#[async_trait]
impl Log for RedisLog {
    async fn append_all(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        let client = &self.0.client;
        let attempts: Vec<_> = batches.into_iter().map(Attempt::new).collect();
        let mut outcomes = client.append(&attempts.iter().collect::<Vec<_>>()).await;
        // The keys show which of these were appended, so they are worth another try once there is a
        // connection.
        let is_open = |outcome: &Result<_, Trouble>| matches!(outcome, Err(Trouble::Unknown(_)));
        let pairs = outcomes.iter_mut().zip(&attempts);
        let (open, again): (Vec<_>, Vec<_>) =
            pairs.filter(|(outcome, attempt)| is_open(outcome) && attempt.batch.key.is_some()).unzip();
        if !again.is_empty() && client.connection.is_up_within(SETTLE_TIME_MAX).await {
            for (outcome, settled) in open.into_iter().zip(client.append(&again).await) {
                *outcome = settled.map_err(Trouble::of_repetition);
            }
        }
        outcomes.into_iter().map(|outcome| outcome.map_err(Trouble::of_append)).collect()
    }

    async fn delete(&self, topic: &Topic, grants: &Grants) -> Result<Deleted, AppendError> {
        self.0.client.delete(topic, grants).await
    }

    async fn read(&self, after: Position, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        Ok(self.0.client.read(after, filter, bytes_max).await?)
    }

    async fn last(&self, count: usize, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        Ok(self.0.client.last(count, filter, bytes_max).await?)
    }

    async fn resolve(&self, id: &EventId, grants: &Grants) -> Result<Option<Position>, Unavailable> {
        Ok(self.0.client.resolve(id, grants).await?)
    }

    async fn position_ago(&self, ago: Duration) -> Result<Position, Unavailable> {
        let millis = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX).min(1 << 44);
        let answer = self.0.client.call(&scripts::PLACE_AGO, &[&millis.to_string()]).await?;
        Ok(position(place_of(answer.bytes(0)?).unwrap_or_default()))
    }

    async fn bounds(&self) -> Result<Bounds, Unavailable> {
        let end = self.0.client.end().await?;
        Ok(Bounds {
            epochs: end.epochs.epochs(),
            oldest: end.oldest.map(position),
            newest: position(end.newest),
            retention_bytes: Some(self.0.client.settings.limits.bytes_max),
        })
    }

    async fn tail(&self) -> Result<(Cursor, Box<dyn Tail>), Unavailable> {
        let (cursor, tail) = RedisTail::open(&self.0.client).await?;
        Ok((cursor, Box::new(tail)))
    }

    async fn health(&self) -> Result<(), Unavailable> {
        self.0.client.health()
    }

    fn rejected_count(&self) -> u64 {
        self.0.client.rejected.load(Ordering::Relaxed)
    }

    fn stats(&self) -> Option<LogStats> {
        Some(self.0.client.stats())
    }
}

/// A batch that is appended, perhaps more than once.
struct Attempt {
    batch: Batch,
    /// By which a batch with a key is recognised when it is sent again.
    name: String,
}

impl Attempt {
    fn new(batch: Batch) -> Self {
        let name = if batch.key.is_some() { fresh() } else { String::new() };
        Self { batch, name }
    }

    /// What the script has to know of it, apart from its events.
    fn header(&self) -> String {
        let count = self.batch.events.len();
        match &self.batch.key {
            Some(key) => format!("{count} {} {}", self.name, key.as_str()),
            None => count.to_string(),
        }
    }

    /// What the script has answered to this batch.
    fn outcome(&self, answer: &Answer) -> Result<Appended, Trouble> {
        match answer.bytes(0)? {
            b"new" => {
                let last = answer.place(2)?;
                Ok(self.appended(answer.epoch(1)?, last + 1 - self.batch.events.len() as u64))
            }
            b"duplicate" if answer.bytes(3)? == self.name.as_bytes() => {
                Ok(self.appended(answer.epoch(1)?, answer.place(2)?))
            }
            b"duplicate" => {
                let cursor = Cursor { epoch: answer.epoch(1)?, position: position(answer.place(2)?) };
                let own = EventId::from_stored(&answer.text(4)?);
                Ok(Appended::Duplicate { first_id: own.unwrap_or_else(|| cursor.to_event_id()) })
            }
            b"full" => Err(Trouble::Full(answer.text(1)?)),
            _ => Err(Trouble::strange("append")),
        }
    }

    /// The first event is at this position.
    fn appended(&self, epoch: Epoch, first: u64) -> Appended {
        let cursor = |place| Cursor { epoch, position: position(place) };
        let events = self.batch.events.iter().zip(first..);
        let ids =
            events.map(|(event, place)| event.id.clone().unwrap_or_else(|| cursor(place).to_event_id()));
        let ids = ids.collect();
        Appended::New { ids, last: cursor(first + (self.batch.events.len() as u64).saturating_sub(1)) }
    }
}

impl LogClient {
    /// Appends batches, in as few calls as their sizes allow.
    async fn append(&self, attempts: &[&Attempt]) -> Vec<Result<Appended, Trouble>> {
        let mut outcomes = Vec::with_capacity(attempts.len());
        while let Some(rest) = attempts.get(outcomes.len()..).filter(|rest| !rest.is_empty()) {
            let mut events = 0;
            let fitting = rest.iter().take_while(|attempt| {
                let is_first = events == 0;
                events += attempt.batch.events.len();
                is_first || events <= CALL_EVENTS_MAX
            });
            let called = &rest[..fitting.count()];
            match self.append_at_once(called).await {
                // Redis may leave some for the next call.
                Ok(some) => outcomes.extend(some),
                Err(trouble) => outcomes.extend(called.iter().map(|_| Err(trouble.clone()))),
            }
        }
        outcomes
    }

    /// Appends batches with one call, at least the first.
    async fn append_at_once(&self, attempts: &[&Attempt]) -> Result<Vec<Result<Appended, Trouble>>, Trouble> {
        let limits = &self.settings.limits;
        let keys_max = limits.keys_max.to_string();
        let keys_age_millis = limits.keys_age_max.as_millis().to_string();
        let key_bytes_max = MemoryLimits::KEYS_BYTES_MAX.to_string();
        let events: Vec<Vec<_>> =
            attempts.iter().map(|attempt| attempt.batch.events.iter().map(written).collect()).collect();
        let headers: Vec<_> = attempts.iter().map(|attempt| attempt.header()).collect();
        let mut arguments = vec![&*keys_max, &*keys_age_millis, &*key_bytes_max];
        for (header, events) in headers.iter().zip(&events) {
            arguments.push(header);
            arguments.extend(events.iter().flat_map(|event| [&*event.topics, &*event.meta, event.data]));
        }
        let answer = self.call_and_wait(&scripts::APPEND, &arguments).await?;
        let outcomes: Vec<_> =
            answer.lists().zip(attempts).map(|(answer, attempt)| attempt.outcome(&answer)).collect();
        if outcomes.is_empty() {
            return Err(Trouble::strange("append"));
        }
        let newest = outcomes.iter().zip(attempts).rev().find_map(|(outcome, attempt)| match outcome {
            Ok(Appended::New { last, .. }) => Some((*last, attempt.batch.events.last()?)),
            _ => None,
        });
        if let Some((Cursor { epoch, position }, event)) = newest {
            self.know(epoch, number(position), || {
                let event = written(event);
                Newest::of(&event.topics, &event.meta, event.data)
            });
        }
        Ok(outcomes)
    }

    /// In stretches of bounded size, so that Redis serves others in between: the events of each are
    /// found, checked against the grants here, and deleted. Each stretch counts as a deletion of
    /// its own: anything copied before the last of them is discarded.
    async fn delete(&self, topic: &Topic, grants: &Grants) -> Result<Deleted, AppendError> {
        let mut deleted = Deleted { count: 0, kept: 0, serial: 0 };
        let (mut after, mut through) = (place(0), String::new());
        loop {
            let next = self.delete_stretch(topic, grants, [&after, &through], &mut deleted).await;
            (after, through) = next.map_err(|trouble| {
                if deleted.count == 0 { trouble.of_append() } else { trouble.of_repetition().of_append() }
            })?;
            if after.is_empty() {
                return Ok(deleted);
            }
        }
    }

    /// Returns where the next stretch begins, or nothing, and where the last one ends.
    async fn delete_stretch(
        &self,
        topic: &Topic,
        grants: &Grants,
        [after, through]: [&str; 2],
        deleted: &mut Deleted,
    ) -> Result<(String, String), Trouble> {
        let found = self.call(&scripts::FIND, &[topic.as_str(), after, through]).await?;
        let next = (found.text(1)?, found.text(2)?);
        deleted.serial = found.number(0)?;
        let mut doomed = Vec::new();
        let pace = Pace::of_grants(grants);
        for (topics, found) in found.pairs(3)? {
            pace.step().await;
            let is_covered = || audience(&topics).is_some_and(|audience| grants.cover_all(&audience.topics));
            if grants.is_all() || is_covered() {
                doomed.extend([topics.into_owned(), place(found)]);
            } else {
                deleted.kept += 1;
            }
        }
        if !doomed.is_empty() {
            let doomed: Vec<_> = doomed.iter().map(String::as_str).collect();
            let answer = self.call(&scripts::DELETE, &doomed).await?;
            deleted.count += answer.number(0)?;
            deleted.serial = answer.number(1)?;
        }
        Ok(next)
    }
}
