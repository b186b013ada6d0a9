//! What readers and their drivers need of a hub: feeds, history, settings, and when it ends.
//!
//! Shards, subscriptions and the writer of the feeds know this, and not the [hub](crate::Hub), which
//! controls it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tidings_log::Log;
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    closing::Closing,
    counts::Counts,
    edits::Edits,
    endings::Endings,
    feed::feeds::Feeds,
    replay::{PageReading, ReplayRequest, Replays},
    settings::HubSettings,
    shard::lag::Lag,
};

/// How long a reader waits before it retries a log that could not be read.
const LOG_RETRY: Duration = Duration::from_millis(500);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) settings: HubSettings,
    pub(crate) feeds: Feeds,
    pub(crate) lag: Arc<Lag>,
    pub(crate) closing: Closing,
    pub(crate) endings: Endings,
    pub(crate) edits: Arc<Edits>,
    pub(crate) counts: Counts,
    /// Fires when closing has begun.
    closing_notifier: watch::Sender<()>,
    pub(crate) replays: Replays,
    /// Where history is read: the runtimes of shards only send, and have no threads that may block
    /// on a disk.
    runtime: Handle,
    /// Why the hub has closed by itself, if it has.
    failure: OnceLock<String>,
}

impl Engine {
    /// Reads history in the runtime that this is called in.
    pub(crate) fn new(settings: HubSettings, feeds: Feeds, log: Arc<dyn Log>) -> Self {
        Self {
            replays: Replays::new(log, settings.replays_max, settings.replay_page_bytes),
            settings,
            feeds,
            lag: Arc::default(),
            closing: Closing::default(),
            endings: Endings::default(),
            edits: Arc::default(),
            counts: Counts::default(),
            closing_notifier: watch::Sender::default(),
            runtime: Handle::current(),
            failure: OnceLock::new(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closing.is_closed(Instant::now())
    }

    /// Ends all subscribers.
    pub(crate) fn close(&self) {
        self.closing.close();
        self.closing_notifier.send_replace(());
        self.feeds.wake_all();
    }

    /// Ends all subscribers within this time.
    pub(crate) fn close_over(&self, time: Duration) {
        self.closing.begin(time, Instant::now());
        self.closing_notifier.send_replace(());
        self.feeds.wake_all();
    }

    /// Waits until nothing is published any more and no subscriber is left.
    pub(crate) async fn closed(&self) {
        let mut notifier = self.closing_notifier.subscribe();
        while !self.is_closed() {
            let end = self.closing.ends_at(1.0);
            tokio::select! {
                result = notifier.changed() => result.expect("the notifier belongs to this"),
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {}
            }
        }
    }

    /// The hub cannot work any more: all streams end, publishers are refused, and health reports
    /// the reason.
    pub(crate) fn fail(&self, reason: String) {
        tracing::error!(reason, "the hub has failed and is closed");
        let _ = self.failure.set(reason);
        self.close();
    }

    /// Why the hub has closed by itself, if it has.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Reads the next page of a reader. While the log is unavailable the reader waits: it is
    /// behind, and nothing else could be sent to it.
    pub(crate) fn read_page(self: &Arc<Self>, request: ReplayRequest) -> PageReading {
        let engine = Arc::clone(self);
        PageReading::spawn(&self.runtime, async move {
            loop {
                match engine.replays.next_page(request.clone()).await {
                    Ok(page) => return page,
                    Err(error) => {
                        tracing::debug!(%error, "history cannot be read; waiting");
                        tokio::time::sleep(LOG_RETRY).await;
                    }
                }
            }
        })
    }
}
