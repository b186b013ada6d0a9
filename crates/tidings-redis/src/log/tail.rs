//! The live end. A tail is a position in the log and a notifier that the keeper fires, so a slow
//! tail costs no queue: it requests the events that it returns.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tidings_log::{
    Cursor, Epoch, Tail, TailItem,
    parts::{just_before, number, position},
};
use tidings_net::Spread;
use tokio::{sync::watch, time::sleep};

use super::{
    answer::Answer,
    client::{ANSWER_BYTES_MAX, LogClient, Newest},
    epochs::{Starts, spelled},
    places::place,
    scripts,
};
use crate::trouble::Trouble;

/// How long to wait when Redis answers with an error.
const ERROR_WAIT: Duration = Duration::from_millis(500);

pub(super) struct RedisTail {
    client: Arc<LogClient>,
    notifier: watch::Receiver<()>,
    seen: Seen,
}

/// Everything up to here was returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    epoch: Epoch,
    place: u64,
    /// The number of the last event up to there.
    number: u64,
    deletions: u64,
}

impl RedisTail {
    /// A tail at the end of the log.
    pub(super) async fn open(client: &Arc<LogClient>) -> Result<(Cursor, Self), Trouble> {
        let notifier = client.listen();
        let end = client.end().await?;
        let epoch = end.epochs.current();
        let seen = Seen { epoch, place: end.newest, number: end.number, deletions: end.deletions };
        let cursor = Cursor { epoch, position: position(end.newest) };
        Ok((cursor, Self { client: Arc::clone(client), notifier, seen }))
    }

    /// The next item and the position after it; `None` at the end.
    async fn follow(&self, bytes_max: usize) -> Result<Option<(TailItem, Seen)>, Trouble> {
        let seen = self.seen;
        loop {
            let starts = self.client.starts();
            let next = if seen.epoch == starts.current() { None } else { starts.next_after(seen.epoch) };
            let (mut through, mut through_number) = (String::new(), String::new());
            if let Some(next) = next {
                let left_through = if next.is_known { number(next.start.after) } else { 0 };
                if seen.place >= left_through {
                    let seen = Seen {
                        epoch: next.start.epoch,
                        place: number(next.start.after),
                        number: next.number,
                        // Earlier deletions may have been of another history.
                        deletions: 0,
                    };
                    return Ok(Some((TailItem::NewEpoch(next.start), seen)));
                }
                (through, through_number) = (place(left_through), next.number.to_string());
            }
            let arguments = [
                &*spelled(starts.current()),
                &seen.deletions.to_string(),
                &place(seen.place),
                &seen.number.to_string(),
                &bytes_max.min(ANSWER_BYTES_MAX).to_string(),
                &through,
                &through_number,
            ];
            let answer = self.client.call(&scripts::FOLLOW, &arguments).await?;
            match answer.bytes(0)? {
                b"epoch" => drop(self.client.end().await?),
                b"end" => return Ok(None),
                b"deleted" => {
                    let deletions = answer.number(1)?;
                    self.client.know_deletions(seen.epoch, deletions);
                    return Ok(Some((TailItem::Deleted { serial: deletions }, Seen { deletions, ..seen })));
                }
                b"skipped" => return Ok(Some(skipped(seen, answer.place(1)?, answer.number(2)?))),
                b"follows" => {
                    let before = number(just_before(position(answer.place(1)?)));
                    return Ok(Some(skipped(seen, before, answer.number(2)?)));
                }
                b"events" => return Ok(Some(self.entries(&answer, &starts, bytes_max)?)),
                _ => return Err(Trouble::strange("a tail")),
            }
        }
    }

    /// Entries of about this many bytes.
    fn entries(
        &self,
        answer: &Answer,
        starts: &Starts,
        bytes_max: usize,
    ) -> Result<(TailItem, Seen), Trouble> {
        let mut seen = self.seen;
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut newest = None;
        for raw in answer.entries(1)? {
            if !entries.is_empty() && bytes >= bytes_max {
                break;
            }
            (seen.place, seen.number) = (raw.place, raw.number().unwrap_or(seen.number + 1));
            if let Some(entry) = self.client.entry(&raw, starts) {
                bytes += entry.memory_bytes();
                entries.push(Arc::new(entry));
            }
            newest = Some(raw);
        }
        let Some(newest) = newest else { return Err(Trouble::strange("a tail")) };
        if seen.epoch == starts.current() {
            self.client
                .know(seen.epoch, seen.place, || Newest::of(&newest.topics, &newest.meta, &newest.data));
        }
        if entries.is_empty() {
            return Ok(skipped(seen, seen.place, seen.number));
        }
        Ok((TailItem::Entries(entries), seen))
    }
}

fn skipped(seen: Seen, through: u64, number: u64) -> (TailItem, Seen) {
    (TailItem::Skipped { through: position(through) }, Seen { place: through, number, ..seen })
}

#[async_trait]
impl Tail for RedisTail {
    async fn next(&mut self, bytes_max: usize) -> Option<TailItem> {
        loop {
            // The notifier is reset before the log is read: any later change fires it again.
            self.notifier.mark_unchanged();
            match self.follow(bytes_max).await {
                Ok(Some((item, seen))) => {
                    self.seen = seen;
                    return Some(item);
                }
                Ok(None) => self.notifier.changed().await.ok()?,
                Err(Trouble::Away(_) | Trouble::Unknown(_)) if self.client.connection.commands().is_err() => {
                    self.client.connection.is_up().await;
                }
                Err(_) => sleep(Spread::AROUND.of(ERROR_WAIT)).await,
            }
            if self.client.connection.is_closed() {
                return None;
            }
        }
    }
}
