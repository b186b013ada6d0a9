//! Subscribers connect and disconnect for a long time while events are published. Each resumes from
//! its last id and must receive everything since, exactly once and in order; the server must not
//! grow.
//!
//! A certain fault ends the soak early. The hub needs a history of everything that is published
//! during the longest absence (`habits.rs`) and its own delays: 2,000 events by default. Events
//! covered by a gap notice are counted, not lost.

mod habits;

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use self::habits::Habits;
use super::{AFTERMATH, Bench, CONNECTING_MAX, load};
use crate::{
    BenchError, Growth, Sample, Soak, Step,
    engine::{Ending, Engine, Manner},
    ledger::Published,
};

/// How often the server is measured: this many times in a short soak, and at this interval in a
/// long one.
const SAMPLES_MIN: u32 = 60;
const SAMPLE_INTERVAL_MAX: Duration = Duration::from_secs(10);
/// Maximum delay of disconnects and reconnects.
const TURN: Duration = Duration::from_millis(10);

/// The next disconnect or reconnect.
type Agenda = BinaryHeap<Reverse<(u64, u32)>>;

impl Bench<'_> {
    pub(super) fn soak(&mut self) -> Result<Step, BenchError> {
        let shape = self.shape;
        let mut engine = self.engine(shape)?;
        if !engine.requests.can_resume() {
            return Err(BenchError::plan(format!(
                "soak: {} keeps no history that a subscriber could resume from",
                self.plan.target.name
            )));
        }
        engine.gaps_excused = true;
        let connecting = self.people(&mut engine, shape, Manner { careful: true, ..Manner::default() })?;
        self.progress.begin("seconds");
        let start = self.start(&engine);
        engine.begin(load(shape))?;
        let mut coming = Coming::new(self, &engine);
        let mut watch = Watch::new(self, &engine);
        while !engine.has_published()
            && watch.late == 0
            && !(engine.ledger.faulty() || engine.disconnected > 0)
        {
            coming.and_going(&mut engine);
            engine.open_waiting(CONNECTING_MAX)?;
            engine.turn(TURN)?;
            watch.look(self, &engine)?;
            self.progress.show(watch.elapsed(&engine).as_secs(), self.plan.length.as_secs());
        }
        // A soak that ended early has nothing to compare.
        let growth = if engine.has_published() { Growth::judge(&watch.samples) } else { Vec::new() };
        let mut soak = Soak {
            minutes: watch.elapsed(&engine).as_secs_f64() / 60.0,
            seed: self.plan.seed,
            closed: coming.closed,
            reset: coming.reset,
            gaps: 0,
            samples: watch.samples,
            growth,
        };
        engine.stop_publishing();
        self.gather(&mut engine)?;
        let traffic = self.traffic(&engine, &start, engine.last_delivery_nanos);
        engine.linger(AFTERMATH)?;
        let mut step = self.step("", shape, &engine);
        step.faults.late = watch.late;
        step.resumed = engine.resumed;
        soak.gaps = engine.ledger.gaps();
        engine.hang_up();
        Ok(Step { connecting: Some(connecting), traffic: Some(traffic), soak: Some(soak), ..step })
    }

    /// Reconnects all subscribers, and waits until all have everything, or until nothing has
    /// arrived for the patience.
    fn gather(&mut self, engine: &mut Engine) -> Result<(), BenchError> {
        engine.reconnect_ended();
        let mut last_change = (engine.ledger.delivered(), engine.now());
        while !(engine.has_published() && engine.ledger.complete()) {
            engine.open_waiting(CONNECTING_MAX)?;
            engine.turn(TURN)?;
            if engine.ledger.delivered() != last_change.0 {
                last_change = (engine.ledger.delivered(), engine.now());
            } else if Duration::from_nanos(engine.now() - last_change.1) > self.plan.patience {
                break;
            }
        }
        Ok(())
    }
}

/// The schedule of disconnects and reconnects.
struct Coming {
    habits: Habits,
    /// The number of visits that each subscriber has begun.
    visits: Vec<u32>,
    agenda: Agenda,
    closed: u64,
    reset: u64,
}

impl Coming {
    fn new(bench: &Bench<'_>, engine: &Engine) -> Self {
        let habits = Habits::new(bench.plan.seed, bench.plan.length);
        let visits = vec![0; bench.shape.subscribers];
        let first = |number| Reverse((later(engine.now(), habits.visit(number, 0).stays), number));
        let agenda = (0..).take(visits.len()).map(first).collect();
        Self { habits, visits, agenda, closed: 0, reset: 0 }
    }

    fn and_going(&mut self, engine: &mut Engine) {
        let now = engine.now();
        while let Some(Reverse((due, number))) = self.agenda.peek().copied()
            && due <= now
        {
            self.agenda.pop();
            let next =
                if engine.is_away(number) { self.come(engine, number) } else { self.go(engine, number) };
            self.agenda.push(Reverse((later(now, next), number)));
        }
    }

    /// Returns how long it stays.
    fn come(&mut self, engine: &mut Engine, number: u32) -> Duration {
        let visit = &mut self.visits[number as usize];
        engine.come_back(number, self.habits.visit(number, *visit).way);
        *visit += 1;
        self.habits.visit(number, *visit).stays
    }

    /// Returns how long it is away.
    fn go(&mut self, engine: &mut Engine, number: u32) -> Duration {
        let visit = self.habits.visit(number, self.visits[number as usize]);
        // A subscriber that is still connecting, or has no id to resume from, stays for as long
        // again.
        if !engine.is_streaming(number) || engine.last_event_id(number).is_none() {
            return visit.stays.max(TURN);
        }
        engine.leave(number, visit.ending);
        match visit.ending {
            Ending::Close => self.closed += 1,
            Ending::Reset => self.reset += 1,
        }
        visit.away
    }
}

/// The resources of the server, and whether events arrive in time.
struct Watch {
    began_nanos: u64,
    interval: Duration,
    next_nanos: u64,
    samples: Vec<Sample>,
    /// What had been published at an earlier time, and that time.
    published: (u64, Published),
    late: u64,
}

impl Watch {
    fn new(bench: &Bench<'_>, engine: &Engine) -> Self {
        Self {
            began_nanos: engine.now(),
            interval: SAMPLE_INTERVAL_MAX.min(bench.plan.length / SAMPLES_MIN),
            next_nanos: engine.now(),
            samples: Vec::new(),
            published: (engine.now(), engine.ledger.published()),
            late: 0,
        }
    }

    fn look(&mut self, bench: &Bench<'_>, engine: &Engine) -> Result<(), BenchError> {
        if engine.now() < self.next_nanos {
            return Ok(());
        }
        self.next_nanos = later(engine.now(), self.interval);
        if let Some(server) = bench.server {
            self.samples.push(Sample {
                seconds: self.elapsed(engine).as_secs_f64(),
                memory_bytes: server.written_bytes()?,
                descriptors: server.descriptors()?,
                connections: engine.connections() as u64,
                deliveries: engine.ledger.delivered(),
            });
        }
        if engine.now() >= later(self.published.0, bench.plan.patience) {
            self.late = engine.late_since(self.published.0, &self.published.1);
            self.published = (engine.now(), engine.ledger.published());
        }
        Ok(())
    }

    fn elapsed(&self, engine: &Engine) -> Duration {
        Duration::from_nanos(engine.now() - self.began_nanos)
    }
}

/// A time on the clock of the run.
#[expect(clippy::cast_possible_truncation, reason = "584 years")]
fn later(nanos: u64, by: Duration) -> u64 {
    nanos + by.as_nanos() as u64
}
