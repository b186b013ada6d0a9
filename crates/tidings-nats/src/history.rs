//! The epochs of the log, as agreed by all hubs, and whether the stream is still the one that was
//! read.
//!
//! The list is stored under one key of a bucket next to the stream and is changed by
//! compare-and-set only, so that of several hubs that notice the same loss one names the new epoch
//! and the others adopt it. The creation time of the stream is stored with it: another time means
//! another stream.
//!
//! A hub compares the stream with what it has read after every connection, before it answers
//! anything. It cannot detect the loss of an end that happened while no hub was running, if the
//! [mark](MARK_KEY) that hubs leave was lost with it.

use std::time::Duration;

use async_nats::jetstream::{
    self,
    kv::{self, Operation, Store},
    stream::{DiscardPolicy, Info, State, Stream},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidings_log::{Epoch, EpochStart, Epochs, Position, parts::position};

use crate::{
    bucket::{Bucket, check_replicas},
    format::{Audiences, LeftAudiences, decode, encode},
    index::{Mark, last_number_of},
    link::{Link, if_found},
    settings::NatsSettings,
    shared_index::SharedIndex,
};

/// How often a change of the list is retried against other hubs that change it.
const ROUNDS_MAX: usize = 16;

/// The key of the list.
const EPOCHS_KEY: &str = "epochs";
/// The key of the newest message that a hub has read and vouches for.
const MARK_KEY: &str = "mark";

/// The key of the [audiences of what was read](leave_audiences).
const AUDIENCES_KEY: &str = "audiences";
/// Most bytes of that. Beyond that, the audiences that have been silent longest are left out: their
/// subscribers get a gap notice if anything at all is gone.
const AUDIENCES_BYTES_MAX: usize = 256 * 1024;

/// The stream, after it was compared with what had been read.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) stream: Stream,
    pub(crate) bucket: Store,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// The list as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    /// When the stream was created, in nanoseconds since 1970.
    created: String,
    /// Each epoch, and the position after which it begins.
    epochs: Vec<(u64, u128)>,
}

/// A message of the stream that hubs have read.
#[derive(Serialize, Deserialize)]
struct StoredMark {
    created: String,
    /// The epoch in which it was read.
    epoch: u64,
    sequence: u64,
    nanos: u64,
}

impl Record {
    /// Version 1 had other messages.
    const VERSION: u32 = 2;

    fn new(created: &str, epochs: &Epochs) -> Self {
        let number = |start: &EpochStart| (start.epoch.to_u64(), u128::from_be_bytes(start.after.to_bytes()));
        Self {
            version: Self::VERSION,
            created: created.to_owned(),
            epochs: epochs.iter().map(number).collect(),
        }
    }

    fn epochs(&self) -> Option<Epochs> {
        let start = |(epoch, after): &(u64, u128)| EpochStart {
            epoch: Epoch::from_u64(*epoch),
            after: Position::from_bytes(after.to_be_bytes()),
        };
        (self.version == Self::VERSION)
            .then(|| Epochs::from_stored(self.epochs.iter().map(start).collect()))?
    }
}

/// Compares the stream with what was read. Where they differ a new epoch begins, and the index
/// adopts it.
pub(crate) async fn verify(shared: &SharedIndex) -> Result<Verified, String> {
    let link = &shared.link;
    let stream = open_stream(link, &shared.settings).await?;
    let bucket = open_bucket(link, &shared.settings).await?;
    for _ in 0..ROUNDS_MAX {
        let info = shared.settled_info(&stream).await?;
        let created = created(&info);
        let stored = link.ask("reading the epochs", bucket.entry(EPOCHS_KEY)).await?;
        let revision = stored.as_ref().map_or(0, |entry| entry.revision);
        let Some(entry) = stored.filter(|entry| entry.operation == Operation::Put) else {
            let epochs = shared.known_epochs(&created).unwrap_or_else(|| Epochs::starting(new_epoch()));
            propose(link, &bucket, &Record::new(&created, &epochs), revision).await?;
            continue;
        };
        let record: Record = serde_json::from_slice(&entry.value)
            .map_err(|error| format!("the list of epochs cannot be read: {error}"))?;
        let epochs = record.epochs().ok_or("the list of epochs was written by another version of Tidings")?;
        let begin = async |after| {
            let epochs = epochs.with(EpochStart { epoch: new_epoch(), after });
            propose(link, &bucket, &Record::new(&created, &epochs), revision).await
        };
        if record.created != created {
            tracing::warn!(was = record.created, is = created, "the stream was replaced: a new epoch begins");
            begin(Position::BEFORE_ALL).await?;
            continue;
        }
        shared.adopt(&created, epochs.clone());
        let read = match shared.read() {
            Mark { sequence: 0, .. } => mark_left_behind(link, &bucket, &created, &epochs).await?,
            read => read,
        };
        let Some(sequence) = kept_through(shared, &stream, &info, read).await? else {
            let state = info.state;
            return Ok(Verified { stream, bucket, first: state.first_sequence, last: state.last_sequence });
        };
        let State { first_sequence, last_sequence, .. } = info.state;
        tracing::warn!(
            read = read.sequence,
            kept = sequence,
            first_sequence,
            last_sequence,
            "the stream lost its newest messages: a new epoch begins"
        );
        begin(position(last_number_of(sequence))).await?;
    }
    Err("other hubs keep changing the list of epochs".to_owned())
}

/// Leaves a mark for a hub that starts when no running hub knows any more how far the stream
/// reached.
pub(crate) async fn leave_mark(shared: &SharedIndex, bucket: &Store) -> Result<(), String> {
    let (Some((created, epoch)), Mark { sequence, nanos }) = (shared.identity(), shared.read()) else {
        return Ok(());
    };
    if nanos == 0 {
        return Ok(());
    }
    let mark = StoredMark { created, epoch: epoch.to_u64(), sequence, nanos };
    let value = serde_json::to_vec(&mark).expect("a mark is plain data").into();
    let is_as_good = |known: &[u8]| {
        serde_json::from_slice::<StoredMark>(known).is_ok_and(|known| {
            known.created == mark.created && known.epoch == mark.epoch && known.sequence >= sequence
        })
    };
    leave(&shared.link, bucket, MARK_KEY, value, is_as_good).await
}

/// Leaves the audiences of what was read, for a hub that starts when retention has taken some of
/// it.
pub(crate) async fn leave_audiences(shared: &SharedIndex, bucket: &Store) -> Result<(), String> {
    let Some(left) = shared.audiences(AUDIENCES_BYTES_MAX) else { return Ok(()) };
    let is_as_good = |known: &[u8]| {
        decode(known).is_some_and(|known: LeftAudiences| {
            known.identity == left.identity && known.audiences.through >= left.audiences.through
        })
    };
    leave(&shared.link, bucket, AUDIENCES_KEY, encode(&left), is_as_good).await
}

/// Leaves a value for other hubs, unless what is there is as good.
async fn leave(
    link: &Link,
    bucket: &Store,
    key: &str,
    value: Bytes,
    is_as_good: impl Fn(&[u8]) -> bool,
) -> Result<(), String> {
    let stored = link.ask("reading what other hubs left", bucket.entry(key)).await?;
    if stored.as_ref().is_some_and(|entry| is_as_good(&entry.value)) {
        return Ok(());
    }
    let revision = stored.map_or(0, |entry| entry.revision);
    // If another hub was faster, what it left is as good.
    let _ = link.ask("leaving a value for other hubs", bucket.update(key, value, revision)).await;
    Ok(())
}

/// The audiences of what other hubs have read.
pub(crate) async fn audiences_left_behind(shared: &SharedIndex, bucket: &Store) -> Result<Audiences, String> {
    let stored = shared.link.ask("reading the audiences", bucket.entry(AUDIENCES_KEY)).await?;
    let left = stored.and_then(|entry| decode::<LeftAudiences>(&entry.value));
    let identity = shared.identity().map(|(created, epoch)| (created, epoch.to_u64()));
    let left = left.filter(|left| Some(&left.identity) == identity.as_ref());
    Ok(left.map(|left| left.audiences).unwrap_or_default())
}

async fn mark_left_behind(
    link: &Link,
    bucket: &Store,
    created: &str,
    epochs: &Epochs,
) -> Result<Mark, String> {
    let stored = link.ask("reading the mark", bucket.entry(MARK_KEY)).await?;
    let mark = stored.and_then(|entry| serde_json::from_slice::<StoredMark>(&entry.value).ok());
    let mark = mark.filter(|mark| mark.created == created && mark.epoch == epochs.current().epoch.to_u64());
    Ok(mark.map_or(Mark::default(), |mark| Mark { sequence: mark.sequence, nanos: mark.nanos }))
}

/// Up to which message the stream is still what was read, if not up to its end.
async fn kept_through(
    shared: &SharedIndex,
    stream: &Stream,
    info: &Info,
    read: Mark,
) -> Result<Option<u64>, String> {
    let (first, last) = (info.state.first_sequence, info.state.last_sequence);
    let marks = shared.marks(last);
    // The time of messages that were skipped unread is not known: then the newest that was read
    // stands for it.
    let compared = if read.nanos == 0 { marks.last().copied().unwrap_or_default() } else { read };
    if read.sequence <= last && agrees(shared, stream, first, compared).await? {
        return Ok(None);
    }
    if marks.is_empty() {
        let nothing = first.saturating_sub(1).min(last);
        return Ok(Some(if read.sequence > last { last } else { nothing }));
    }
    // What was kept is the beginning of what was read: find its end by binary search.
    let (mut low, mut high) = (0, marks.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if agrees(shared, stream, first, marks[middle]).await? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let kept = low.checked_sub(1).map_or(first.saturating_sub(1).min(last), |index| marks[index].sequence);
    Ok(Some(kept))
}

/// Whether the stream still has this message, or had it when retention took it.
async fn agrees(shared: &SharedIndex, stream: &Stream, first: u64, mark: Mark) -> Result<bool, String> {
    if mark.sequence < first || mark.sequence == 0 || mark.nanos == 0 {
        return Ok(true);
    }
    // The leader is asked, not any server that keeps the stream: a replica that differs from it
    // would make comparisons inconsistent.
    let asked = async { if_found(stream.get_raw_message(mark.sequence).await) };
    let message = shared.link.ask("comparing the stream with what was read", asked).await?;
    // It may have been erased since, which is no loss.
    Ok(message.is_none_or(|message| message.time.unix_timestamp_nanos() == i128::from(mark.nanos)))
}

/// Whether the stream has anything from this sequence on, according to the leader.
pub(crate) async fn has_any_from(link: &Link, stream: &Stream, sequence: u64) -> Result<bool, String> {
    let everything = format!("{}.>", link.name());
    let asked = async { if_found(stream.get_first_raw_message_by_subject(everything, sequence).await) };
    Ok(link.ask("looking for what follows", asked).await?.is_some())
}

/// Replaces the list that was read. It does not matter which of several hubs succeeds: all of them
/// read again.
async fn propose(link: &Link, bucket: &Store, record: &Record, revision: u64) -> Result<(), String> {
    let value = serde_json::to_vec(record).expect("a list of numbers is plain data");
    let asked = async {
        match bucket.update(EPOCHS_KEY, value.into(), revision).await {
            Err(error) if error.kind() != kv::UpdateErrorKind::WrongLastRevision => Err(error),
            _ => Ok(()),
        }
    };
    link.ask("writing the epochs", asked).await
}

fn created(info: &Info) -> String {
    info.created.unix_timestamp_nanos().to_string()
}

fn new_epoch() -> Epoch {
    Epoch::from_u64(getrandom::u64().expect("the system gives random numbers"))
}

/// The stream, created if it does not exist.
async fn open_stream(link: &Link, settings: &NatsSettings) -> Result<Stream, String> {
    let config = stream_config(link.name(), settings);
    link.ask("opening the stream", link.jetstream().get_or_create_stream(config)).await
}

/// Gives the stream the limits of these settings.
pub(crate) async fn set_limits(link: &Link, settings: &NatsSettings) -> Result<(), String> {
    let stream = open_stream(link, settings).await?;
    let has = &stream.cached_info().config;
    check_replicas(has, settings.replicas)?;
    let wanted = stream_config(link.name(), settings);
    let mut changed = has.clone();
    changed.max_bytes = wanted.max_bytes;
    changed.max_messages = wanted.max_messages;
    changed.max_age = wanted.max_age;
    changed.duplicate_window = wanted.duplicate_window;
    changed.allow_direct = true;
    if changed == *has {
        return Ok(());
    }
    tracing::info!(stream = link.name(), "changing the limits of the stream to those of this hub");
    link.ask("changing the limits of the stream", link.jetstream().update_stream(changed)).await.map(drop)
}

/// The subjects of batches and of deletions.
pub(crate) fn events_subject(name: &str) -> String {
    format!("{name}.events")
}

/// See [`events_subject`].
pub(crate) fn deletions_subject(name: &str) -> String {
    format!("{name}.deletions")
}

/// The bytes that the stream may hold beyond the visible ones: what the server stores in addition
/// to the messages.
const STREAM_BYTES_SPARE: u64 = 1 << 20;
/// Likewise messages: deletions are some, too.
const STREAM_MESSAGES_SPARE: u64 = 10_000;

fn stream_config(name: &str, settings: &NatsSettings) -> jetstream::stream::Config {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let max_age = settings.age_max.unwrap_or(Duration::ZERO);
    // The server refuses a window that is longer than its retention.
    let window_max = if max_age.is_zero() { Duration::MAX } else { max_age };
    jetstream::stream::Config {
        name: name.to_owned(),
        description: Some("Events of Tidings hubs".to_owned()),
        subjects: vec![events_subject(name), deletions_subject(name)],
        max_bytes: signed(settings.bytes_max.saturating_add(settings.bytes_max / 8 + STREAM_BYTES_SPARE)),
        max_messages: settings
            .count_max
            .map_or(-1, |count| signed(count.saturating_add(STREAM_MESSAGES_SPARE))),
        max_age,
        discard: DiscardPolicy::Old,
        duplicate_window: settings.keys_age_max.min(window_max),
        num_replicas: settings.replicas.unwrap_or(1),
        allow_direct: true,
        ..Default::default()
    }
}

/// The bucket of what hubs have to agree on.
pub(crate) async fn open_bucket(link: &Link, settings: &NatsSettings) -> Result<Store, String> {
    let bucket = Bucket {
        name: &format!("{}-hub", link.name()),
        description: "What Tidings hubs know of their stream",
        replicas: settings.replicas,
        max_age: None,
        max_bytes: None,
    };
    bucket.open(link).await
}
