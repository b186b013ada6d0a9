//! Fetches events that are not in memory, by the sequence of their message.

use std::sync::Arc;

use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use futures_util::{StreamExt, TryStreamExt, stream};
use tidings_log::{
    Cursor, Entry, Event, Timestamp, Unavailable,
    parts::{Audience, position},
};

use crate::{
    format::decode_batch,
    index::{Candidate, index_of, sequence_of},
    link::{Link, if_found},
    shared_index::{SharedIndex, Trusted},
};

/// Most messages that are requested at the same time, for one page.
const REQUESTS_MAX: usize = 32;

/// Events of one message.
struct Fetched {
    nanos: u64,
    events: Vec<Event>,
}

/// The requested events, or those that the stream does not have.
pub(crate) enum FetchOutcome {
    All(Vec<Arc<Entry>>),
    Missing(Vec<u64>),
}

/// Returns the events of these candidates, in their order.
pub(crate) async fn fetch(
    shared: &SharedIndex,
    trusted: &Trusted,
    wanted: &[Candidate],
) -> Result<FetchOutcome, Unavailable> {
    let mut sequences: Vec<_> =
        wanted.iter().filter(|one| one.entry.is_none()).map(|one| sequence_of(one.number)).collect();
    sequences.dedup();
    let asked = stream::iter(sequences).map(|sequence| async move {
        Ok::<_, Unavailable>((sequence, message(&shared.link, &trusted.stream, sequence).await?))
    });
    let messages: Vec<_> = asked.buffered(REQUESTS_MAX).try_collect().await?;
    let mut missing = Vec::new();
    let mut entries = Vec::with_capacity(wanted.len());
    for one in wanted {
        if let Some(entry) = &one.entry {
            entries.push(Arc::clone(entry));
            continue;
        }
        let sequence = sequence_of(one.number);
        let place = messages.binary_search_by_key(&sequence, |(sequence, _)| *sequence);
        let found = place.ok().and_then(|place| messages[place].1.as_ref());
        match found.and_then(|found| Some((found.nanos, found.events.get(index_of(one.number))?))) {
            Some((nanos, event)) if nanos == one.nanos && Audience::of(event) == *one.audience => {
                entries.push(Arc::new(shared.entry(one.number, nanos, event.clone())));
            }
            Some(_) => {
                // Another message is at this position, so the stream is not the one that was read.
                shared.doubts.notify_one();
                return Err(Unavailable("the stream is not the one that was read".to_owned()));
            }
            None => missing.push(one.number),
        }
    }
    Ok(if missing.is_empty() { FetchOutcome::All(entries) } else { FetchOutcome::Missing(missing) })
}

/// A message, if the stream has it and a hub wrote it.
async fn message(link: &Link, stream: &Stream, sequence: u64) -> Result<Option<Fetched>, Unavailable> {
    let asked = async {
        match stream.direct_get(sequence).await {
            Ok(message) => Ok(Some(message)),
            // Any server may have answered, and may be behind. The leader is authoritative.
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {
                if_found(stream.get_raw_message(sequence).await).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        }
    };
    let found = link.ask("reading the stream", asked).await.map_err(Unavailable)?;
    Ok(found.and_then(|message| {
        let events = decode_batch(&message.payload)?.into_iter().map(|(event, _)| event).collect();
        let nanos = u64::try_from(message.time.unix_timestamp_nanos()).ok()?;
        Some(Fetched { nanos, events })
    }))
}

impl SharedIndex {
    /// An event at its position.
    fn entry(&self, number: u64, nanos: u64, event: Event) -> Entry {
        let epoch = self.state().index.epoch_of(number);
        let cursor = Cursor { epoch, position: position(number) };
        Entry::new(cursor, Timestamp::from_millis(nanos / 1_000_000), event)
    }
}
