//! What is to be measured.

use std::time::Duration;

use crate::{
    BenchError, Target,
    mark::{PUBLISHERS_MAX, SEQUENCE_MAX, TOPICS_MAX},
};

/// What is measured. Sizes are those of the project's own comparison; a [`Plan`] can override them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scenario {
    /// Idle subscribers: memory per connection, connections per second.
    Idle,
    /// All subscribers on one topic, events back to back: deliveries per second.
    Fanout,
    /// The same at ten events per second: how late they arrive.
    FanoutSlow,
    /// Every subscriber has a topic of its own: events per second from end to end.
    Many,
    /// Few subscribers, very many events back to back.
    Burst,
    /// No subscribers: publish requests per second.
    Publish,
    /// Late subscribers request the events that they missed.
    Replay,
    /// The server is killed and all subscribers reconnect at once.
    Storm,
    /// Some subscribers stop reading: the latency of the others, and what the slow ones receive in
    /// the end.
    SlowReaders,
    /// From a thousand to eighteen thousand subscribers: memory and processor time of each.
    Growth,
    /// Private events to subscribers with different grants, compared with public ones.
    Private,
    /// One client deletes topics all the time: how long the others wait, compared with a client that
    /// publishes as much and with none.
    Delete,
    /// Subscribers connect and disconnect for a long time: whether events are lost and the server
    /// grows.
    Soak,
}

/// What is measured, of which hub, how large.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The hub.
    pub target: Target,
    /// What is measured.
    pub scenario: Scenario,
    /// How many streams, instead of the scenario's own number. For growth: the largest number.
    pub subscribers: Option<usize>,
    /// How many events.
    pub events: Option<u64>,
    /// How many connections publish.
    pub publishers: Option<usize>,
    /// Events per second.
    pub rate: Option<f64>,
    /// Length of each event's data.
    pub payload_bytes: Option<usize>,
    /// The process whose memory and processor time are measured, with its children.
    pub server_pid: Option<u32>,
    /// The command that restarts the killed server in the foreground; for [`Scenario::Storm`].
    pub restart_command: Option<String>,
    /// The time for the server to settle before its memory is measured after a storm.
    pub settle: Duration,
    /// The minimum time for which slow readers read nothing.
    pub frozen: Duration,
    /// How long a [`Scenario::Soak`] takes.
    pub length: Duration,
    /// The seed for the times that subscribers stay connected in a soak; the same number repeats a
    /// run.
    pub seed: u64,
    /// The time without an event after which missing events count as lost.
    pub patience: Duration,
    /// Whether all streams of a topic must receive the events of all publishers in one order.
    pub one_order: bool,
}

impl Plan {
    /// The scenario with its own sizes, and a patience of ten seconds.
    pub fn new(target: Target, scenario: Scenario) -> Self {
        Self {
            target,
            scenario,
            subscribers: None,
            events: None,
            publishers: None,
            rate: None,
            payload_bytes: None,
            server_pid: None,
            restart_command: None,
            settle: Duration::from_secs(60),
            frozen: Duration::ZERO,
            length: Duration::from_secs(30 * 60),
            seed: 1,
            patience: Duration::from_secs(10),
            one_order: true,
        }
    }

    pub(crate) fn shape(&self) -> Result<Shape, BenchError> {
        let own = self.scenario.shape();
        let subscribers = if own.subscribers == 0 { 0 } else { self.subscribers.unwrap_or(own.subscribers) };
        let rate = self.rate.or(own.rate);
        let shape = Shape {
            subscribers,
            topics: own.topics.min(subscribers.max(1)),
            events: if self.scenario == Scenario::Soak {
                self.soak_events(rate)?
            } else {
                self.events.unwrap_or(own.events)
            },
            publishers: self.publishers.unwrap_or(own.publishers),
            rate,
            payload_bytes: self.payload_bytes.unwrap_or(own.payload_bytes),
        };
        let within = |flag: &str, value: u64, max: u64| {
            if (1..=max).contains(&value) {
                return Ok(());
            }
            Err(BenchError::plan(format!("{flag} {value}: it must be from 1 to {max}")))
        };
        if own.subscribers > 0 {
            within("--subscribers", shape.subscribers as u64, TOPICS_MAX as u64 - 1)?;
        }
        let flag = if self.scenario == Scenario::Soak { "--minutes: events" } else { "--events" };
        within(flag, shape.events, SEQUENCE_MAX - 2)?;
        within("--publishers", shape.publishers as u64, PUBLISHERS_MAX as u64)?;
        within("--payload-bytes", shape.payload_bytes as u64, PAYLOAD_BYTES_MAX)?;
        if shape.rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            return Err(BenchError::plan("--rate: it must be more than 0 events per second"));
        }
        Ok(shape)
    }

    /// As many as the rate makes in the time.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast of a float saturates"
    )]
    fn soak_events(&self, rate: Option<f64>) -> Result<u64, BenchError> {
        if self.events.is_some() {
            return Err(BenchError::plan("--events: a soak takes --rate and --minutes instead"));
        }
        Ok((rate.unwrap_or_default() * self.length.as_secs_f64()) as u64)
    }
}

const PAYLOAD_BYTES_MAX: u64 = 64 << 20;
/// As many topics as subscribers.
const A_TOPIC_EACH: usize = usize::MAX;

/// How large a scenario is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) subscribers: usize,
    pub(crate) topics: usize,
    pub(crate) events: u64,
    pub(crate) publishers: usize,
    pub(crate) rate: Option<f64>,
    pub(crate) payload_bytes: usize,
}

impl Scenario {
    /// All of them, in the order in which they are explained.
    pub const ALL: [Self; 13] = [
        Self::Idle,
        Self::Fanout,
        Self::FanoutSlow,
        Self::Many,
        Self::Burst,
        Self::Publish,
        Self::Replay,
        Self::Storm,
        Self::SlowReaders,
        Self::Growth,
        Self::Private,
        Self::Delete,
        Self::Soak,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Fanout => "fanout",
            Self::FanoutSlow => "fanout-slow",
            Self::Many => "many",
            Self::Burst => "burst",
            Self::Publish => "publish",
            Self::Replay => "replay",
            Self::Storm => "storm",
            Self::SlowReaders => "slow-readers",
            Self::Growth => "growth",
            Self::Private => "private",
            Self::Delete => "delete",
            Self::Soak => "soak",
        }
    }

    fn shape(self) -> Shape {
        let (subscribers, topics, events, publishers, rate, payload_bytes) = match self {
            Self::Idle | Self::Storm => (15_000, 1, 1, 1, None, 128),
            Self::Fanout => (5_000, 1, 200, 8, None, 128),
            Self::FanoutSlow => (5_000, 1, 100, 1, Some(10.0), 128),
            Self::Many => (5_000, A_TOPIC_EACH, 50_000, 8, None, 128),
            Self::Burst => (100, 1, 20_000, 8, None, 128),
            Self::Publish => (0, 1, 100_000, 8, None, 128),
            Self::Replay => (200, 1, 1_000, 1, None, 128),
            // More than 8 MB to each.
            Self::SlowReaders => (1_000, 1, 264, 1, Some(20.0), 32 << 10),
            // The rate follows from the number of subscribers.
            Self::Growth => (18_000, 1, 200, 1, None, 128),
            Self::Private => (5_000, 1, 50, 1, Some(10.0), 128),
            // Far below what a hub can do: a wait has another cause than a lack of processors.
            Self::Delete => (100, 1, 2_500, 8, Some(500.0), 128),
            // 20,000 deliveries per second. The events are long so that whatever caches them is
            // full after a minute.
            Self::Soak => (5_000, 50, 0, 4, Some(200.0), 1 << 10),
        };
        Shape { subscribers, topics, events, publishers, rate, payload_bytes }
    }
}
