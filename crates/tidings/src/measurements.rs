//! What a hub measures of itself, for servers that publish metrics.

use tidings_log::{LogStats, histogram::Recorded};

use crate::{
    counts::{Driver, closed::CloseReason, reader_lag::ReaderLag},
    hub::Hub,
    measured_log::{LogFailure, LogOperation},
    replay::counts::ReplayStats,
};

/// What a hub has measured since it started, and how it is now. In addition to
/// [`HubStats`](crate::HubStats).
#[derive(Clone, Debug)]
pub struct Measurements {
    /// What was sent to sockets that the hub drives itself: most streams over HTTP/1.1.
    pub shards: Deliveries,
    /// What was handed to those that pull their streams: HTTP/2 and HTTP/1.0, and users of the
    /// library.
    pub pulled: Deliveries,
    /// Streams that have ended, in the order of [`CloseReason::ALL`]. The application's own are not
    /// counted.
    pub closed: [u64; CloseReason::ALL.len()],
    /// How far the subscribers of the shards are behind, at most a second ago.
    pub readers: ReaderLag,
    /// History.
    pub replays: ReplayStats,
    /// Pages of history that are being read, and how many may be.
    pub replays_running: Usage,
    /// Batches that are being appended.
    pub appends: Usage,
    /// Their bytes.
    pub appends_bytes: Usage,
    /// [`HubStats::fan_out_lag_bytes`](crate::HubStats::fan_out_lag_bytes); beyond the limit,
    /// publishers wait.
    pub fan_out_lag_bytes: Usage,
    /// Encoded events that the feeds hold; beyond the limit, the oldest are dropped.
    pub feed_bytes: Usage,
    /// Distinct URL Patterns that are subscribed to.
    pub patterns: Usage,
    /// How long the operations of the log took, in the order of [`LogOperation::ALL`].
    pub log_durations: [Recorded; LogOperation::ALL.len()],
    /// Operations of the log that failed, in the order of [`LogFailure::ALL`].
    pub log_failures: [u64; LogFailure::ALL.len()],
    /// What the log knows of itself, if it does.
    pub log: Option<LogStats>,
    /// Hubs of the cluster, this one included.
    pub cluster_hubs: usize,
    /// Leases of the cluster that this hub holds.
    pub cluster_leases: usize,
}

/// What one kind of driver has delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deliveries {
    /// Events that were handed over to their last byte, each once for every subscriber.
    pub events: u64,
    /// Bytes that were handed over for streams, before encryption.
    pub bytes: u64,
    /// How long after its append a sampled event was handed over. A shard counts once for each event
    /// and feed, when it has sent it to all who accept it; one that pulls its stream counts each
    /// time.
    pub lag: Recorded,
}

/// How much there is of something limited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// How much there is now.
    pub now: u64,
    /// How much there may be.
    pub max: u64,
}

impl Hub {
    /// What this hub has measured. Waits for nothing, and asks no other server.
    #[doc(hidden)]
    pub fn measurements(&self) -> Measurements {
        let state = &self.state;
        let engine = &state.engine;
        let now = self.stats();
        let deliveries = |driver| {
            let counts = engine.counts.of(driver);
            let delivered = counts.deliveries.total();
            Deliveries { events: delivered.events, bytes: delivered.bytes, lag: counts.lag.recorded() }
        };
        let [appends, appends_bytes] = state.pressure.appends();
        Measurements {
            shards: deliveries(Driver::Shard),
            pulled: deliveries(Driver::Pulled),
            closed: engine.counts.closed.by_reason(),
            readers: engine.counts.readers.all(),
            replays: engine.replays.stats(),
            replays_running: usage(engine.replays.running()),
            appends: usage(appends),
            appends_bytes: usage(appends_bytes),
            fan_out_lag_bytes: Usage { now: now.fan_out_lag_bytes, max: state.lag_bytes_max },
            feed_bytes: usage((now.feed_bytes as u64, engine.settings.feed_bytes_max as u64)),
            patterns: usage((now.patterns as u64, engine.settings.patterns_max as u64)),
            log_durations: state.measured_log.durations(),
            log_failures: state.measured_log.failures(),
            log: state.log.stats(),
            cluster_hubs: state.cluster_hubs.count(),
            cluster_leases: state.measured_cluster.lease_count(),
        }
    }
}

fn usage((now, max): (u64, u64)) -> Usage {
    Usage { now, max }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt;
    use tidings_log::{MemoryLimits, MemoryLog};
    use tidings_topic::{NewEvent, Since};

    use super::*;
    use crate::Subscribe;

    fn closed(hub: &Hub) -> Vec<(CloseReason, u64)> {
        let counts = CloseReason::ALL.into_iter().zip(hub.measurements().closed);
        counts.filter(|(_, count)| *count > 0).collect()
    }

    #[tokio::test]
    async fn a_pulled_stream_counts_what_it_returned_and_measures_a_sampled_event() {
        let hub = Hub::in_memory().await;
        let mut stream = hub.subscribe(Subscribe::topics(["chat"])).await.expect("there");
        let mut own = hub.listen("chat").await.expect("there");
        let mut bytes = stream.next().await.expect("the preface").len();
        for data in ["one", "two"] {
            hub.publish(NewEvent::new("chat", data)).await.expect("published");
            bytes += stream.next().await.expect("an event").len();
            own.next().await.expect("an event");
        }
        let pulled = hub.measurements().pulled;
        assert_eq!((pulled.events, pulled.bytes), (2, bytes as u64), "without those of the application");
        // The first event is sampled; the second may be, on a slow machine.
        assert!((1..=2).contains(&pulled.lag.count()), "{:?}", pulled.lag);
        assert_eq!(hub.measurements().shards.events, 0);
    }

    /// It is at the position of the stored event before it, which was measured.
    #[tokio::test]
    async fn an_ephemeral_event_is_not_measured() {
        let hub = Hub::in_memory().await;
        let mut stream = hub.subscribe("chat").await.expect("there");
        stream.next().await.expect("the preface");
        for event in [NewEvent::new("chat", "hello"), NewEvent::new("chat", "typing").ephemeral()] {
            hub.publish(event).await.expect("published");
            stream.next().await.expect("an event");
            assert_eq!(hub.measurements().pulled.lag.count(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pulled_stream_that_has_ended_counts_for_its_reason() {
        let hub = Hub::builder().lifetime_max(Duration::from_secs(60)).start().await.expect("there");
        let begun = async |ask: Subscribe| {
            let mut stream = hub.subscribe(ask).await.expect("there");
            stream.next().await.expect("the preface");
            stream
        };
        let chat = || Subscribe::topics(["chat"]);
        drop(hub.subscribe(chat()).await.expect("there"));
        assert!(closed(&hub).is_empty(), "nobody has read it");
        drop(begun(chat()).await);
        let old = begun(chat()).await;
        let expired = begun(chat().expires_in(Duration::from_secs(10))).await;
        let revoked = begun(chat()).await;
        hub.end([revoked.connection()]);
        for stream in [revoked, expired, old] {
            stream.collect::<Vec<_>>().await;
        }
        let last = begun(chat()).await;
        hub.close();
        last.collect::<Vec<_>>().await;
        let expected = [
            CloseReason::Client,
            CloseReason::Expired,
            CloseReason::Revoked,
            CloseReason::Lifetime,
            CloseReason::Shutdown,
        ];
        assert_eq!(closed(&hub), expected.map(|reason| (reason, 1)));
    }

    #[tokio::test]
    async fn history_counts_by_page_event_and_gap() {
        let limits = MemoryLimits { count_max: Some(3), ..MemoryLimits::default() };
        let hub = Hub::builder().log(MemoryLog::new(limits)).start().await.expect("there");
        let mut ids = Vec::new();
        for number in 0..5 {
            let published = hub.publish(NewEvent::new("chat", number.to_string())).await;
            ids.extend(published.expect("published").id);
        }
        let since = |id: &str| Subscribe::topics(["chat"]).since(Since::Id(id.to_owned()));
        let replays = |hub: &Hub| hub.measurements().replays;
        drop(hub.subscribe(since(ids[2].as_str())).await.expect("there"));
        let one = ReplayStats { completed: 1, pages_read: 1, pages_shared: 0, events: 2, gaps: [0; 3] };
        assert_eq!(replays(&hub), one);
        drop(hub.subscribe(since(ids[2].as_str())).await.expect("there"));
        let two = ReplayStats { completed: 2, pages_shared: 1, events: 4, ..one };
        assert_eq!(replays(&hub), two);
        drop(hub.subscribe(since(ids[0].as_str())).await.expect("there"));
        assert_eq!(replays(&hub).gaps, [1, 0, 0]);
        drop(hub.subscribe(since("never-issued")).await.expect("there"));
        assert_eq!(replays(&hub).gaps, [1, 1, 0]);
    }

    #[tokio::test]
    async fn history_before_the_start_of_another_topic_is_not_complete() {
        let hub = Hub::in_memory().await;
        for topic in ["a", "b", "a", "b"] {
            hub.publish(NewEvent::new(topic, topic)).await.expect("published");
        }
        let request = Subscribe::topics(["a"]).since(Since::Earliest).topic_since("b", Since::Last(1));
        drop(hub.subscribe(request).await.expect("there"));
        let replays = hub.measurements().replays;
        assert_eq!((replays.pages_read, replays.events, replays.completed), (1, 2, 0));
    }

    #[tokio::test]
    async fn what_is_limited_is_measured_with_its_limit() {
        let hub =
            Hub::builder().patterns_max(7).feed_bytes_max(1_000).appends_max(5).start().await.expect("there");
        let pattern = hub.validator().pattern("/a/:b").expect("valid");
        let _stream = hub.subscribe(Subscribe::new([pattern])).await.expect("there");
        let measured = hub.measurements();
        assert_eq!(measured.patterns, Usage { now: 1, max: 7 });
        assert_eq!(measured.feed_bytes, Usage { now: 0, max: 1_000 });
        assert_eq!(measured.appends, Usage { now: 0, max: 5 });
        assert_eq!(measured.replays_running.now, 0);
        assert_eq!((measured.cluster_hubs, measured.cluster_leases), (1, 0));
        hub.publish(NewEvent::new("chat", "hello")).await.expect("published");
        let log = hub.measurements().log.expect("it knows");
        assert_eq!((log.store, log.events, log.is_up), ("memory", 1, true));
    }
}
