//! The fan-out: the one task that follows the log and writes the feeds. Everything that is delivered
//! live passes through here, in the order of the log.

use std::sync::Arc;

use tidings_log::{Cursor, Tail, TailItem, Unavailable, vital::catch_panic};

use crate::{feed::feeds::FeedWriter, hub::HubState};

/// How much of the log the writer takes in one batch. Small enough to keep latency even, large
/// enough to share a wake-up.
const WRITER_TURN_BYTES: usize = 256 * 1024;

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
    state.engine.close();
    state.pressure.restart(None);
    state.deletions.close();
}

/// The one writer: everything that is delivered live passes through here, in the order of the log.
async fn write_feeds(state: &HubState, mut tail: Box<dyn Tail>, mut writer: FeedWriter) {
    let feeds = &state.engine.feeds;
    while let Some(item) = tail.next(WRITER_TURN_BYTES).await {
        match item {
            TailItem::Entries(entries) => {
                let mut rest = &*entries;
                while !rest.is_empty() {
                    let (written, later) = rest.split_at(writer.write(feeds, rest));
                    state
                        .engine
                        .lag
                        .add_written(written.iter().map(|entry| entry.memory_bytes() as u64).sum());
                    if let Some(last) = written.last() {
                        state.pressure.fanned_out(last.cursor);
                    }
                    rest = later;
                    if !rest.is_empty() {
                        tokio::task::yield_now().await;
                    }
                }
            }
            TailItem::Skipped { through } => {
                let head = Cursor { position: through, ..feeds.head() };
                tracing::warn!("the fan-out fell behind retention; subscribers continue from the log");
                writer.restart(feeds, head);
                state.pressure.fanned_out(head);
            }
            TailItem::Deleted { serial } => {
                writer.forget(feeds);
                state.engine.forget_pages();
                state.deletions.reached(serial);
            }
            TailItem::NewEpoch(start) => {
                tracing::warn!(epoch = ?start.epoch, "the log lost its end or was replaced; the gap is reported to subscribers");
                let head = Cursor { epoch: start.epoch, position: start.after };
                writer.restart(feeds, head);
                state.pressure.restart(Some(head));
            }
        }
    }
}
