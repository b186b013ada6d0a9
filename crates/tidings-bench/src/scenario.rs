//! The scenarios: each builds its steps from the same few operations.

mod delete;
mod replay;
mod slow_readers;
mod soak;
mod storm;

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    BenchError, Connecting, Memory, Plan, Progress, Quantiles, Report, Scenario, Step, Traffic,
    engine::{Engine, Load, Manner},
    histogram::Histogram,
    ledger::Ledger,
    plan::Shape,
    process::{Server, kernel_bytes},
    target::Requests,
};

/// Concurrent connects: fewer than the backlog of any server.
const CONNECTING_MAX: usize = 256;
/// Descriptors other than those of subscribers.
const SPARE_DESCRIPTORS: usize = 64;
/// How long to wait for duplicates after the last event.
const AFTERMATH: Duration = Duration::from_millis(100);
/// How long a server settles before its memory is measured.
const CALM: Duration = Duration::from_secs(3);
/// Above this share of processor time the client may limit the measurement.
const BUSY_LIMIT: f64 = 0.9;
/// Growth: the numbers of subscribers, and the deliveries per second that all of them have.
const SIZES: [usize; 6] = [1_000, 2_000, 4_000, 8_000, 12_000, 18_000];
const GROWTH_DELIVERIES_PER_SECOND: f64 = 50_000.0;

/// Runs a measurement. Faults of the hub are part of the report; an error means that there is no
/// report.
pub fn run(plan: &Plan, progress: &mut Progress) -> Result<Report, BenchError> {
    let shape = plan.shape()?;
    allow_descriptors(shape.subscribers + shape.publishers + SPARE_DESCRIPTORS)?;
    progress.label(&format!("{} of {}", plan.scenario.name(), plan.target.name));
    let server = plan.server_pid.map(Server::new).transpose()?;
    let mut bench = Bench { plan, shape, server, progress, runs: 0 };
    let steps = match plan.scenario {
        Scenario::Idle => vec![bench.idle("", shape)?],
        Scenario::Growth => bench.growth()?,
        Scenario::Private => bench.private()?,
        Scenario::Replay => vec![bench.replay()?],
        Scenario::Storm => bench.storm()?,
        Scenario::SlowReaders => bench.slow_readers()?,
        Scenario::Delete => bench.delete()?,
        Scenario::Soak => vec![bench.soak()?],
        Scenario::Fanout | Scenario::FanoutSlow | Scenario::Many | Scenario::Burst | Scenario::Publish => {
            vec![bench.deliver("", shape, false)?]
        }
    };
    progress.clear();
    Ok(Report { hub: plan.target.name.clone(), scenario: plan.scenario.name().to_owned(), steps })
}

struct Bench<'a> {
    plan: &'a Plan,
    shape: Shape,
    server: Option<Server>,
    progress: &'a mut Progress,
    runs: u8,
}

/// The state at the begin of a step, to compare with its end.
struct Start {
    server_cpu: Option<Duration>,
    client_cpu: Duration,
    nanos: u64,
    delivered: u64,
    reads: u64,
}

impl Bench<'_> {
    /// An engine with topics that no earlier run has used.
    fn engine(&mut self, shape: Shape) -> Result<Engine, BenchError> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(|error| BenchError::machine("no random numbers", error))?;
        let name = u64::from_be_bytes(nonce);
        self.runs = self.runs.wrapping_add(1);
        let requests = Requests::new(&self.plan.target, format!("bench-{name:016x}"))?;
        let ledger = Ledger::new(self.runs.wrapping_add(nonce[0]), shape.topics, shape.publishers);
        Engine::new(requests, ledger)
    }

    /// Subscribers in rotation on all topics, then publishers.
    fn people(
        &mut self,
        engine: &mut Engine,
        shape: Shape,
        manner: Manner,
    ) -> Result<Connecting, BenchError> {
        for number in 0..shape.subscribers {
            let topic = u32::try_from(number % shape.topics).expect("topics are fewer than 2^24");
            engine.ledger.subscribe(topic);
            engine.add_subscriber(topic, manner);
        }
        let connecting = self.connect(engine, CONNECTING_MAX)?;
        engine.add_publishers(shape.publishers)?;
        Ok(connecting)
    }

    fn connect(&mut self, engine: &mut Engine, at_once_max: usize) -> Result<Connecting, BenchError> {
        let before = engine.streaming();
        let (began, cpu) = (engine.now(), Engine::processor_time());
        self.progress.begin("subscribers");
        let total = self.shape.subscribers as u64;
        engine.connect(at_once_max, |streaming| self.progress.show(streaming as u64, total))?;
        let seconds = seconds(engine.now() - began);
        let busy = Engine::processor_time().saturating_sub(cpu).as_secs_f64();
        Ok(Connecting {
            seconds,
            per_second: ratio(count(engine.streaming() - before), seconds),
            client_busy: ratio(busy, seconds),
        })
    }

    fn start(&self, engine: &Engine) -> Start {
        Start {
            server_cpu: self.server.map(Server::cpu),
            client_cpu: Engine::processor_time(),
            nanos: engine.now(),
            delivered: engine.ledger.delivered(),
            reads: engine.reads,
        }
    }

    /// The traffic from `start` to `end_nanos`.
    fn traffic(&self, engine: &Engine, start: &Start, end_nanos: u64) -> Traffic {
        let wall = seconds(engine.now() - start.nanos);
        let seconds = seconds(end_nanos.saturating_sub(start.nanos));
        let deliveries = engine.ledger.delivered() - start.delivered;
        let events = engine.answered();
        let cpu =
            self.server.zip(start.server_cpu).map(|(server, before)| server.cpu().saturating_sub(before));
        let each = if deliveries > 0 { deliveries } else { events };
        let client_busy =
            ratio(Engine::processor_time().saturating_sub(start.client_cpu).as_secs_f64(), wall);
        Traffic {
            seconds,
            events_per_second: ratio(whole(events), seconds),
            deliveries,
            deliveries_per_second: ratio(whole(deliveries), seconds),
            deliveries_per_read: ratio(whole(deliveries), whole(engine.reads - start.reads)),
            latency: quantiles(&engine.latency),
            reply: quantiles(&engine.replies),
            server_cpu_seconds: cpu.map(|cpu| cpu.as_secs_f64()),
            server_cpu_micros_each: cpu.map(|cpu| ratio(cpu.as_secs_f64() * 1e6, whole(each))),
            client_busy,
            client_limited: client_busy > BUSY_LIMIT,
        }
    }

    /// Publishes all events to the connected subscribers.
    fn publish(&mut self, engine: &mut Engine, load: Load) -> Result<Traffic, BenchError> {
        self.progress.begin(if self.shape.subscribers > 0 { "deliveries" } else { "events" });
        let start = self.start(engine);
        let received = self.shape.subscribers > 0;
        engine.run(load, self.plan.patience, |engine| {
            if received {
                self.progress.show(engine.ledger.delivered(), engine.ledger.expected().max(1));
            } else {
                self.progress.show(engine.answered(), load.events);
            }
        })?;
        let end = if engine.ledger.delivered() > start.delivered {
            engine.last_delivery_nanos
        } else {
            engine.last_reply_nanos
        };
        let start = Start { nanos: engine.load_began_nanos(), ..start };
        let traffic = self.traffic(engine, &start, end);
        engine.linger(AFTERMATH)?;
        Ok(traffic)
    }

    fn step(&self, name: &str, shape: Shape, engine: &Engine) -> Step {
        let mut faults = engine.ledger.faults(self.plan.one_order);
        faults.refused = engine.refused;
        faults.disconnected = engine.disconnected;
        Step {
            name: name.to_owned(),
            subscribers: shape.subscribers,
            topics: shape.topics,
            publishers: shape.publishers,
            events: engine.answered(),
            payload_bytes: shape.payload_bytes,
            rate: shape.rate,
            faults,
            first_refusal: engine.first_refusal.clone(),
            first_stray: engine.ledger.first_stray(),
            ..Step::default()
        }
    }

    /// Fanout, many, burst, publish: all subscribers connect, then all events are published.
    fn deliver(&mut self, name: &str, shape: Shape, private: bool) -> Result<Step, BenchError> {
        let mut engine = self.engine(shape)?;
        let connecting = self.people(&mut engine, shape, Manner::default())?;
        let mut load = load(shape);
        load.private = private;
        let traffic = self.publish(&mut engine, load)?;
        let step = self.step(name, shape, &engine);
        engine.hang_up();
        let connecting = (shape.subscribers > 0).then_some(connecting);
        Ok(Step { connecting, traffic: Some(traffic), ..step })
    }

    /// Memory of idle subscribers, before and after an event.
    fn idle(&mut self, name: &str, shape: Shape) -> Result<Step, BenchError> {
        // One subscriber connects and disconnects first, so that one-time allocations are not
        // counted.
        let one = Shape { subscribers: 1, ..shape };
        let mut engine = self.engine(one)?;
        self.people(&mut engine, one, Manner::default())?;
        self.publish(&mut engine, load(Shape { rate: None, events: 1, ..one }))?;
        engine.hang_up();
        drop(engine);
        let mut engine = self.engine(shape)?;
        let before = self.memory()?;
        let connecting = self.people(&mut engine, shape, Manner::default())?;
        engine.linger(CALM)?;
        let connected = self.memory()?;
        let traffic = self.publish(&mut engine, load(shape))?;
        engine.linger(CALM)?;
        let after = self.memory()?;
        let step = self.step(name, shape, &engine);
        engine.hang_up();
        let memory = before.zip(connected).zip(after);
        let memory = memory
            .map(|((before, connected), after)| per_subscriber(before, connected, after, shape.subscribers));
        Ok(Step { connecting: Some(connecting), traffic: Some(traffic), memory, ..step })
    }

    /// Process and kernel memory, if the server process is known.
    fn memory(&self) -> Result<Option<(u64, Option<u64>)>, BenchError> {
        let process = self.server.map(Server::pss_bytes).transpose()?;
        Ok(process.map(|process| (process, kernel_bytes())))
    }

    /// Idle, then events at a rate that gives each size the same deliveries per second.
    fn growth(&mut self) -> Result<Vec<Step>, BenchError> {
        let largest = self.shape.subscribers;
        let mut sizes: Vec<usize> = SIZES.into_iter().filter(|size| *size < largest).collect();
        sizes.push(largest);
        let (mut steps, mut before) = (Vec::new(), None);
        for subscribers in sizes {
            let rate = self.plan.rate.unwrap_or(GROWTH_DELIVERIES_PER_SECOND / count(subscribers));
            // As many deliveries for each size as the smallest gets.
            let events = (self.shape.events * SIZES[0].min(largest) as u64 / subscribers as u64).max(1);
            let shape = Shape { subscribers, events, rate: Some(rate), ..self.shape };
            self.shape.subscribers = subscribers;
            let mut step = self.idle(&format!("{subscribers} subscribers"), shape)?;
            // The server keeps memory of earlier steps, so all are compared with the state before
            // the first.
            if let Some(memory) = &mut step.memory {
                let first = *before.get_or_insert(memory.before_bytes);
                memory.before_bytes = first;
                let most = memory.connected_bytes.max(memory.after_bytes);
                memory.per_subscriber_bytes = ratio(whole(most.saturating_sub(first)), count(subscribers));
            }
            steps.push(step);
        }
        Ok(steps)
    }

    /// The same events, public and then private.
    fn private(&mut self) -> Result<Vec<Step>, BenchError> {
        let target = &self.plan.target;
        if target.private.is_none() {
            return Err(BenchError::plan(format!("private: {} has no private events", target.name)));
        }
        if target.subscribe_tokens.is_empty() {
            return Err(BenchError::plan(
                "private: --subscribe-tokens FILE is missing, with one token per line, each with a grant on every topic",
            ));
        }
        Ok(vec![self.deliver("public", self.shape, false)?, self.deliver("private", self.shape, true)?])
    }
}

fn load(shape: Shape) -> Load {
    let topics = u32::try_from(shape.topics).expect("topics are fewer than 2^24");
    Load::new(shape.events, topics, shape.rate, shape.payload_bytes)
}

fn per_subscriber(
    before: (u64, Option<u64>),
    connected: (u64, Option<u64>),
    after: (u64, Option<u64>),
    subscribers: usize,
) -> Memory {
    let each = |more: u64, less: u64| ratio(whole(more.saturating_sub(less)), count(subscribers));
    Memory {
        before_bytes: before.0,
        connected_bytes: connected.0,
        after_bytes: after.0,
        per_subscriber_bytes: each(connected.0.max(after.0), before.0),
        kernel_per_pair_bytes: after.1.zip(before.1).map(|(after, before)| each(after, before)),
    }
}

/// Raises the file descriptor limit to the hard limit.
fn allow_descriptors(needed: usize) -> Result<(), BenchError> {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < needed as u64) {
        let maximum = limit.maximum.unwrap_or_default();
        return Err(BenchError::plan(format!(
            "this takes {needed} file descriptors, and the hard limit (ulimit -Hn) is {maximum}; try fewer --subscribers"
        )));
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .map_err(|error| BenchError::machine("cannot raise the file descriptor limit", error))
}

fn quantiles(times: &Histogram) -> Option<Quantiles> {
    let millis = |share: f64| seconds(times.quantile(share)) * 1e3;
    (!times.is_empty()).then(|| Quantiles {
        p50_ms: millis(0.5),
        p99_ms: millis(0.99),
        p999_ms: millis(0.999),
        max_ms: seconds(times.max()) * 1e3,
    })
}

fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn whole(number: u64) -> f64 {
    number as f64
}

fn count(number: usize) -> f64 {
    whole(number as u64)
}

fn ratio(part: f64, of: f64) -> f64 {
    if of > 0.0 { part / of } else { 0.0 }
}
