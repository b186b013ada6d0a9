//! Reads the stream: one consumer for the whole process, and the only code that changes the index.
//!
//! After each new connection, and whenever something does not fit, the stream is compared with the
//! index before the next consumer starts after what was read.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_nats::{
    Message as StreamMessage,
    header::NATS_MESSAGE_ID,
    jetstream::{
        consumer::DeliverPolicy,
        stream::{Info, Stream},
    },
};
use tidings_log::parts::lock;
use tidings_net::Spread;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::{
    consumer::{Consumer, Delivery},
    eraser,
    format::{Deletion, decode_batch},
    history::{self, Verified, deletions_subject},
    index::{Hidden, Mark, Message},
    link::{RETRY, RETRY_WAIT_MAX},
    shared_index::{SharedIndex, Trusted},
};

/// How often the limits of the stream are checked, and whether it still is the one that was read.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How often the audiences of what was read are saved at most. The first hub that does it does it
/// for all.
const RECORDS_INTERVAL: Duration = Duration::from_secs(60);
/// Most messages that are processed before tails are notified.
const TURN_MESSAGES_MAX: usize = 256;
/// Unreadable messages are reported at most this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Follows the stream forever.
pub(crate) async fn follow(shared: Arc<SharedIndex>) {
    let mut retry = RETRY;
    loop {
        let generation = shared.link.connected().await;
        let began = Instant::now();
        let reason = match read(&shared, generation).await {
            Ok(reason) | Err(reason) => reason,
        };
        tracing::debug!(reason, "comparing the stream with the index again");
        shared.distrust(&reason);
        if began.elapsed() > RETRY_WAIT_MAX {
            retry.succeeded();
        }
        sleep(retry.failed()).await;
    }
}

/// Compares, then reads until something does not fit. Returns what.
async fn read(shared: &Arc<SharedIndex>, generation: u64) -> Result<String, String> {
    let Verified { stream, bucket, first, last } = history::verify(shared).await?;
    let audiences = history::audiences_left_behind(shared, &bucket).await?;
    shared.state().index.begin_at_knowing(first, audiences);
    let mut reader = Reader::begin(shared, stream, last).await?;
    // Events that were deleted and never erased, because the hub that deleted them ended too early.
    let mut left_over = Some(Vec::new());
    let mut checks = interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    checks.tick().await;
    let mut records = interval(Spread::HALF.of(RECORDS_INTERVAL));
    records.set_missed_tick_behavior(MissedTickBehavior::Delay);
    records.tick().await;
    loop {
        if left_over.is_some() && shared.read().sequence >= last {
            history::leave_mark(shared, &bucket).await?;
            history::leave_audiences(shared, &bucket).await?;
            shared.trust(Trusted { generation, stream: reader.stream.clone(), bucket: bucket.clone() });
            eraser::erase(shared, left_over.take().unwrap_or_default());
        }
        tokio::select! {
            () = shared.link.lost(generation) => return Ok("the connection to NATS was lost".to_owned()),
            () = shared.doubts.notified() => return Ok("the stream is being compared with what was read".to_owned()),
            next = reader.consumer.next() => {
                let hidden = reader.take_in_all(next?).await?;
                if let Some(left_over) = &mut left_over {
                    left_over.extend(hidden);
                }
            }
            _ = checks.tick() => {
                let info = shared.link.ask("looking at the stream", reader.stream.get_info()).await?;
                reader.check(&info)?;
                history::leave_mark(shared, &bucket).await?;
            }
            _ = records.tick() => history::leave_audiences(shared, &bucket).await?,
        }
    }
}

/// The stream as it is being read.
struct Reader<'s> {
    shared: &'s SharedIndex,
    stream: Stream,
    consumer: Consumer<'s>,
    deletions_subject: String,
}

impl<'s> Reader<'s> {
    async fn begin(shared: &'s SharedIndex, stream: Stream, last: u64) -> Result<Self, String> {
        let start_sequence = shared.read().sequence + 1;
        let from = DeliverPolicy::ByStartSequence { start_sequence };
        let consumer = Consumer::begin(&shared.link, &stream, from).await?;
        if consumer.pending_at_first == 0 {
            // Either nothing is left of what follows, because it was erased or too old, or the
            // server that reads for us has not received it yet.
            if history::has_any_from(&shared.link, &stream, start_sequence).await? {
                return Err("the server of the consumer is behind the leader of the stream".to_owned());
            }
            shared.state().index.pass(Mark { sequence: last, nanos: 0 });
            shared.settle();
        }
        let deletions_subject = deletions_subject(shared.link.name());
        Ok(Self { shared, stream, consumer, deletions_subject })
    }

    /// Processes a message and those that follow at once. Returns what deletions among them leave
    /// to be erased.
    async fn take_in_all(
        &mut self,
        (delivery, message): (Delivery, StreamMessage),
    ) -> Result<Vec<Hidden>, String> {
        let mut hidden = Vec::new();
        self.take_in(delivery, &message, &mut hidden).await?;
        for _ in 1..TURN_MESSAGES_MAX {
            let Some(next) = self.consumer.next_at_hand() else { break };
            let (delivery, message) = next?;
            self.take_in(delivery, &message, &mut hidden).await?;
        }
        self.shared.settle();
        Ok(hidden)
    }

    async fn take_in(
        &mut self,
        delivery: Delivery,
        message: &StreamMessage,
        hidden: &mut Vec<Hidden>,
    ) -> Result<(), String> {
        let Mark { sequence, .. } = delivery.mark;
        let read = self.shared.read();
        if sequence <= read.sequence {
            return Err("the sequence of the stream went backwards".to_owned());
        }
        if sequence > read.sequence + 1 {
            // Some were erased, or dropped before they were read; only the latter leave a gap.
            let info = self.shared.link.ask("looking at the stream", self.stream.get_info()).await?;
            let mut state = self.shared.state();
            state.index.note_erased(read.sequence + 1);
            state.index.begin_at(info.state.first_sequence.min(sequence));
        }
        let mut state = self.shared.state();
        if message.subject.as_str() == self.deletions_subject {
            match Deletion::decode(&message.payload) {
                Some(deletion) => {
                    if let Some(through) = deletion.unnamed_through() {
                        state.index.forget_unread(through);
                    }
                    state.index.note_missed(deletion.missed);
                    let (count, left) = state.index.delete(&deletion.topic, deletion.spared.as_ref());
                    hidden.extend(left.iter().copied());
                    state.note_deletion(sequence, count, left);
                }
                None => self.shared.reject(delivery.mark),
            }
            state.index.pass(delivery.mark);
        } else if let Some(events) = decode_batch(&message.payload) {
            let headers = message.headers.as_ref();
            let has_key = headers.is_some_and(|headers| headers.get(NATS_MESSAGE_ID).is_some());
            state.index.push(Message { mark: delivery.mark, has_key, events });
        } else {
            self.shared.reject(delivery.mark);
            state.index.pass(delivery.mark);
        }
        Ok(())
    }

    /// Checks that the stream still matches what was read, and drops what it has dropped.
    fn check(&mut self, info: &Info) -> Result<(), String> {
        let read = self.shared.read();
        if info.state.last_sequence < read.sequence {
            return Err("the stream has lost its newest messages".to_owned());
        }
        if info.state.last_sequence > read.sequence && self.consumer.is_silent() {
            return Err(
                "the consumer of the stream delivers nothing although messages are pending".to_owned()
            );
        }
        self.shared.state().index.begin_at(info.state.first_sequence.min(read.sequence + 1));
        self.shared.notify();
        Ok(())
    }
}

impl SharedIndex {
    /// Counts a message in the stream that no hub wrote.
    fn reject(&self, mark: Mark) {
        let count = self.rejected.fetch_add(1, Ordering::Relaxed) + 1;
        let mut logged = lock(&self.rejected_logged);
        if logged.is_none_or(|logged| logged.elapsed() >= REPORT_INTERVAL) {
            *logged = Some(Instant::now());
            tracing::warn!(
                count,
                newest = mark.sequence,
                "messages in the stream were not written by a hub; they are skipped"
            );
        }
    }
}
