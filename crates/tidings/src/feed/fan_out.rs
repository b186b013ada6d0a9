//! The fan-out: the one task that follows the log and writes the feeds. Everything that is delivered
//! live passes through here, in the order of the log. Ephemeral events are written between the
//! entries of the log: one that was published here after the last entry that this hub knew then.

use std::{sync::Arc, time::Duration};

use tidings_log::{Clock, Cursor, Entry, Position, Tail, TailItem, Unavailable, vital::catch_panic};
use tokio::{
    task::yield_now,
    time::{Instant, sleep_until},
};

use crate::{feed::feeds::FeedWriter, hub::HubState, publish::ephemeral::LiveEvent};

/// How much of the log the writer takes in one batch. Small enough to keep latency even, large
/// enough to share a wake-up.
const WRITER_TURN_BYTES: usize = 256 * 1024;

/// How much of the ephemeral events it takes before it gives way to other tasks.
const EPHEMERAL_TURN_BYTES: usize = 64 * 1024;

/// Ephemeral events are dropped while the shards are behind by more than this share of what makes
/// publishers of stored ones wait: they must not be the reason of that.
const EPHEMERAL_LAG_SHARE: u64 = 4;

/// How long an ephemeral event waits for the entry that it follows. The entry is in the log and
/// comes soon, unless it has been deleted, or the store cannot be reached.
const ENTRY_WAIT: Duration = Duration::from_millis(200);

/// Follows the log to its end. Without this nothing is delivered, so the hub closes when it ends,
/// for whatever reason.
pub(crate) async fn fan_out(state: Arc<HubState>, tail: Box<dyn Tail>, writer: FeedWriter) {
    match catch_panic(write_feeds(&state, tail, writer)).await {
        Err(panicked) => state.engine.fail(format!("the fan-out has ended: {panicked}")),
        Ok(()) if state.engine.is_closed() => {}
        Ok(()) => match state.log.health().await {
            Ok(()) => state.engine.fail("the log was closed".to_owned()),
            Err(Unavailable(reason)) => state.engine.fail(format!("the log has ended: {reason}")),
        },
    }
    // No deletion can arrive any more that a caller could wait for.
    state.pressure.restart(None);
    state.deletions.close();
}

/// The one writer: everything that is delivered live passes through here, in the order of the log.
async fn write_feeds(state: &HubState, mut tail: Box<dyn Tail>, mut writer: FeedWriter) {
    let feeds = &state.engine.feeds;
    loop {
        // Kept until it is there: an ephemeral event interrupts no request for the next entries.
        let mut next = tail.next(WRITER_TURN_BYTES);
        let mut waits_until: Option<Instant> = None;
        let item = loop {
            let waits = state.ephemeral.live.of_oldest(|_| ()).is_some();
            waits_until = waits.then(|| waits_until.unwrap_or_else(|| Instant::now() + ENTRY_WAIT));
            tokio::select! {
                biased;
                item = &mut next => break item,
                () = state.ephemeral.live.arrived() => {
                    write_ephemeral(state, &mut writer, Due::AtHead).await;
                }
                () = wait(waits_until), if waits => {
                    write_ephemeral(state, &mut writer, Due::All).await;
                }
            }
        };
        drop(next);
        let Some(item) = item else { return };
        match item {
            TailItem::Entries(entries) => {
                let mut rest = &*entries;
                while let Some(entry) = rest.first() {
                    write_ephemeral(state, &mut writer, Due::Before(entry.cursor.position)).await;
                    let due = &rest[..before_ephemeral(state, rest)];
                    let count = writer.write(feeds, due);
                    let is_interrupted = count < due.len();
                    let (written, later) = rest.split_at(count);
                    state
                        .engine
                        .lag
                        .add_written(written.iter().map(|entry| entry.memory_bytes() as u64).sum());
                    if let Some(last) = written.last() {
                        state.pressure.fanned_out(last.cursor);
                    }
                    rest = later;
                    if is_interrupted {
                        yield_now().await;
                    }
                }
            }
            TailItem::Skipped { through } => {
                let head = Cursor { position: through, ..feeds.head().log };
                tracing::warn!("the fan-out fell behind retention; subscribers continue from the log");
                writer.restart(feeds, head);
                state.pressure.fanned_out(head);
            }
            TailItem::Deleted { serial } => {
                writer.forget(feeds);
                state.engine.replays.forget();
                state.deletions.reached(serial);
            }
            TailItem::NewEpoch(start) => {
                tracing::warn!(epoch = ?start.epoch, "the log lost its end or was replaced; the gap is reported to subscribers");
                let head = Cursor { epoch: start.epoch, position: start.after };
                writer.restart(feeds, head);
                state.pressure.restart(Some(head));
            }
        }
        write_ephemeral(state, &mut writer, Due::AtHead).await;
    }
}

async fn wait(until: Option<Instant>) {
    if let Some(until) = until {
        sleep_until(until).await;
    }
}

/// How many of these entries come before the ephemeral event that is next, which is not before the
/// first of them.
fn before_ephemeral(state: &HubState, entries: &[Arc<Entry>]) -> usize {
    let after = state.ephemeral.live.of_oldest(|oldest| oldest.after).flatten();
    after.map_or(entries.len(), |after| {
        entries.partition_point(|entry| entry.cursor.position <= after.position).max(1)
    })
}

/// Which ephemeral events are to be written.
#[derive(Clone, Copy)]
enum Due {
    /// Those that follow no entry after the head.
    AtHead,
    /// Those that come before this entry, which is the next.
    Before(Position),
    /// All of them.
    All,
}

impl Due {
    fn covers(self, event: &LiveEvent, head: Cursor) -> bool {
        event.after.is_none_or(|after| {
            after.epoch != head.epoch
                || match self {
                    Self::AtHead => after.position <= head.position,
                    Self::Before(next) => after.position < next,
                    Self::All => true,
                }
        })
    }
}

/// Writes the ephemeral events that are due, after the head.
async fn write_ephemeral(state: &HubState, writer: &mut FeedWriter, due: Due) {
    let feeds = &state.engine.feeds;
    let head = feeds.head().log;
    let mut is_first_turn = true;
    loop {
        let events = state.ephemeral.live.take_while(EPHEMERAL_TURN_BYTES, |event| due.covers(event, head));
        if events.is_empty() {
            return;
        }
        if !std::mem::take(&mut is_first_turn) {
            yield_now().await;
        }
        if state.engine.lag.bytes() > state.lag_bytes_max / EPHEMERAL_LAG_SHARE {
            state.ephemeral.count_dropped(events.len());
            continue;
        }
        let now = Clock::default().now();
        let entries: Vec<_> = events.into_iter().map(|live| Entry::new(head, now, live.event)).collect();
        let mut rest = &*entries;
        while !rest.is_empty() {
            let (written, later) = rest.split_at(writer.write_ephemeral(feeds, rest));
            let bytes = written.iter().map(|entry| entry.memory_bytes() as u64).sum();
            state.engine.lag.add_written(bytes);
            rest = later;
            if !rest.is_empty() {
                yield_now().await;
            }
        }
    }
}
