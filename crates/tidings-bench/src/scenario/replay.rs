//! Late subscribers request everything after the first event.

use std::time::Duration;

use super::{AFTERMATH, Bench, CONNECTING_MAX, Start, load};
use crate::{
    BenchError, Step, Traffic,
    engine::{Engine, Manner},
    histogram::Histogram,
    plan::Shape,
};

/// One pass takes milliseconds, so several are added up.
const PASSES: usize = 5;
const TURN: Duration = Duration::from_millis(100);

impl Bench<'_> {
    pub(super) fn replay(&mut self) -> Result<Step, BenchError> {
        let shape = self.shape;
        let mut engine = self.engine(shape)?;
        if !engine.requests.can_resume() {
            return Err(BenchError::plan(format!(
                "replay: {} keeps no history that a subscriber could resume from",
                self.plan.target.name
            )));
        }
        // One subscriber reads the id of the first event, from which the late ones resume.
        engine.ledger.subscribe(0);
        let watcher = engine.add_subscriber(0, Manner { careful: true, ..Manner::default() });
        engine.connect(CONNECTING_MAX, |_| {})?;
        engine.add_publishers(shape.publishers)?;
        engine.run(load(Shape { events: 1, ..shape }), self.plan.patience, |_| {})?;
        let id = engine.last_event_id(watcher).map(str::to_owned);
        let id = id.ok_or_else(|| BenchError::hub("the hub gave the first event no id"))?;
        self.publish(&mut engine, load(shape))?;
        engine.hang_up();

        self.progress.begin("deliveries");
        let (mut seconds, mut cpu, mut traffic) = (0.0, None, Traffic::default());
        for _ in 0..PASSES {
            engine.latency = Histogram::default();
            for _ in 0..shape.subscribers {
                engine.ledger.subscribe_behind_the_first(0);
                let number = engine.add_subscriber(0, Manner::default());
                engine.resume_behind(number, id.clone());
            }
            let mut start = self.start(&engine);
            start.nanos = engine.connect_then_ask(CONNECTING_MAX)?;
            let pass = self.take_history(&mut engine, &start)?;
            seconds += pass.seconds;
            cpu = pass.server_cpu_seconds.map(|more| cpu.unwrap_or_default() + more);
            traffic = Traffic { deliveries: traffic.deliveries + pass.deliveries, ..pass };
            engine.linger(AFTERMATH)?;
            engine.hang_up();
            if !engine.ledger.complete() {
                break;
            }
        }
        let deliveries = super::whole(traffic.deliveries);
        traffic.seconds = seconds;
        traffic.deliveries_per_second = super::ratio(deliveries, seconds);
        traffic.events_per_second = traffic.deliveries_per_second / super::count(shape.subscribers);
        traffic.server_cpu_seconds = cpu;
        traffic.server_cpu_micros_each = cpu.map(|cpu| super::ratio(cpu * 1e6, deliveries));
        // The age of a stored event is not a latency.
        traffic.latency = None;
        Ok(Step { traffic: Some(traffic), ..self.step("", shape, &engine) })
    }

    fn take_history(&mut self, engine: &mut Engine, start: &Start) -> Result<Traffic, BenchError> {
        let mut last_change = (engine.ledger.delivered(), engine.now());
        while !engine.ledger.complete() {
            engine.turn(TURN)?;
            self.progress.show(engine.ledger.delivered(), engine.ledger.expected());
            if engine.ledger.delivered() != last_change.0 {
                last_change = (engine.ledger.delivered(), engine.now());
            } else if Duration::from_nanos(engine.now() - last_change.1) > self.plan.patience {
                break;
            }
        }
        Ok(self.traffic(engine, start, engine.last_delivery_nanos))
    }
}
