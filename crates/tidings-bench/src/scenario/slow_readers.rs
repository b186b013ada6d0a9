//! Some subscribers stop reading while events are published. The others must not be affected, and
//! the slow ones must receive everything in the end.

use std::time::{Duration, Instant};

use super::{AFTERMATH, Bench, CONNECTING_MAX, Start, load};
use crate::{
    BenchError, Memory, Step,
    engine::{Engine, Manner},
    histogram::Histogram,
    plan::Shape,
};

/// One in ten is slow.
const SLOW_SHARE: usize = 10;
/// The receive buffer of a slow reader.
const SLOW_RECEIVE_BYTES: usize = 4 << 10;
const TURN: Duration = Duration::from_millis(20);

impl Bench<'_> {
    pub(super) fn slow_readers(&mut self) -> Result<Vec<Step>, BenchError> {
        Ok(vec![self.readers("undisturbed", false)?, self.readers("with frozen readers", true)?])
    }

    fn readers(&mut self, name: &str, freeze: bool) -> Result<Step, BenchError> {
        let shape = self.shape;
        let mut engine = self.engine(shape)?;
        let before = self.memory()?;
        let slow = (shape.subscribers / SLOW_SHARE).max(1);
        let mut frozen = Vec::new();
        for place in 0..shape.subscribers {
            engine.ledger.subscribe(0);
            let is_slow = place < slow;
            let manner = Manner {
                careful: is_slow,
                receive_buffer_bytes: (is_slow && freeze).then_some(SLOW_RECEIVE_BYTES),
            };
            let number = engine.add_subscriber(0, manner);
            frozen.extend((is_slow && freeze).then_some(number));
        }
        let connecting = self.connect(&mut engine, CONNECTING_MAX)?;
        let connected = self.memory()?;
        engine.add_publishers(shape.publishers)?;
        // A subscriber without an event has no id to resume from.
        engine.run(load(Shape { events: 1, ..shape }), self.plan.patience, |_| {})?;
        (engine.latency, engine.replies) = (Histogram::default(), Histogram::default());
        for number in &frozen {
            engine.freeze(*number, true)?;
        }
        let began = Instant::now();
        self.progress.begin("deliveries");
        let start = self.start(&engine);
        let reading = (shape.subscribers - frozen.len()) as u64;
        let enough = engine.ledger.delivered() + reading * shape.events;
        engine.run_until(load(shape), enough, self.plan.patience, |engine| {
            self.progress.show(engine.ledger.delivered(), engine.ledger.expected().max(1));
        })?;
        let traffic = self.traffic(&engine, &start, engine.last_delivery_nanos);
        let after = self.memory()?;
        if freeze {
            engine.linger(self.plan.frozen.saturating_sub(began.elapsed()))?;
            self.thaw(&mut engine, &frozen)?;
        }
        engine.linger(AFTERMATH)?;
        let mut step = self.step(name, shape, &engine);
        step.resumed = engine.resumed;
        engine.hang_up();
        let memory = before.zip(connected).zip(after);
        let memory = memory.map(|((before, connected), after)| {
            let memory: Memory = super::per_subscriber(before, connected, after, shape.subscribers);
            Memory { kernel_per_pair_bytes: None, ..memory }
        });
        Ok(Step { connecting: Some(connecting), traffic: Some(traffic), memory, ..step })
    }

    /// Reads again, reconnects the subscribers that were cut, and waits until all have everything.
    fn thaw(&mut self, engine: &mut Engine, frozen: &[u32]) -> Result<(), BenchError> {
        engine.expect_endings();
        self.progress.begin("deliveries to thawed readers");
        for number in frozen {
            engine.freeze(*number, false)?;
        }
        let mut last_change: Start = self.start(engine);
        while !engine.ledger.complete() {
            engine.reconnect_ended();
            engine.open_waiting(CONNECTING_MAX)?;
            engine.turn(TURN)?;
            self.progress.show(engine.ledger.delivered(), engine.ledger.expected());
            if engine.ledger.delivered() != last_change.delivered {
                last_change.delivered = engine.ledger.delivered();
                last_change.nanos = engine.now();
            } else if Duration::from_nanos(engine.now() - last_change.nanos) > self.plan.patience {
                break;
            }
        }
        Ok(())
    }
}
