//! The results of a measurement: serialized with serde, displayed as a table.

mod number;
mod soak;

use std::fmt;

use serde::{Deserialize, Serialize};

use self::number::{grouped, rounded};
pub use self::soak::{Growth, Quantity, Sample, Soak};

/// One scenario against one hub.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The hub's name.
    pub hub: String,
    /// The scenario's name.
    pub scenario: String,
    /// The measurements, in order. Most scenarios have one step.
    pub steps: Vec<Step>,
}

/// One measurement.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Step {
    /// What distinguishes it from the other steps.
    pub name: String,
    /// Streams.
    pub subscribers: usize,
    /// Topics.
    pub topics: usize,
    /// Keep-alive connections that publish.
    pub publishers: usize,
    /// Events published.
    pub events: u64,
    /// Length of each event's data.
    pub payload_bytes: usize,
    /// The requested events per second; none means back to back.
    pub rate: Option<f64>,
    /// How subscribers connected, if that was measured.
    pub connecting: Option<Connecting>,
    /// What was delivered.
    pub traffic: Option<Traffic>,
    /// The memory of the server.
    pub memory: Option<Memory>,
    /// Streams that were cut and resumed from their last id.
    pub resumed: u64,
    /// What other clients did meanwhile.
    #[serde(default)]
    pub others: Option<Others>,
    /// The results of a soak.
    pub soak: Option<Soak>,
    /// The faults of the hub.
    pub faults: Faults,
    /// The answer to the first refused publish request.
    pub first_refusal: Option<String>,
    /// A description of the first event that arrived at a stream of another topic.
    #[serde(default)]
    pub first_stray: Option<String>,
}

/// How subscribers connected.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Connecting {
    /// From the first connection to the last response headers.
    pub seconds: f64,
    /// Streams per second.
    pub per_second: f64,
    /// Share of one processor that the load client used.
    pub client_busy: f64,
}

/// What was published and delivered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// From the first publish request to the last delivery, or to the last answer without
    /// subscribers.
    pub seconds: f64,
    /// Events published per second of that time.
    pub events_per_second: f64,
    /// Events that arrived, each counted once per stream.
    pub deliveries: u64,
    /// Deliveries per second of that time.
    pub deliveries_per_second: f64,
    /// Deliveries per read: how much the hub coalesced.
    pub deliveries_per_read: f64,
    /// From just before the request was written, or was due, to the read that brought the event.
    pub latency: Option<Quantiles>,
    /// From the same moment to the answer.
    pub reply: Option<Quantiles>,
    /// Processor time of the server.
    pub server_cpu_seconds: Option<f64>,
    /// The same per delivery, or per publish request without subscribers.
    pub server_cpu_micros_each: Option<f64>,
    /// Share of one processor that the load client used.
    pub client_busy: f64,
    /// Whether the load client used so much that it may have been the limit.
    pub client_limited: bool,
}

/// What clients other than the measured subscribers and publishers did meanwhile.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Others {
    /// Requests of the client that publishes, or publishes and deletes, as fast as it is answered.
    pub requests: u64,
    /// From opening a connection to the response headers of a stream.
    pub opening: Option<Quantiles>,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half of all took at most this.
    pub p50_ms: f64,
    /// 99 in 100.
    pub p99_ms: f64,
    /// 999 in 1,000.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// The memory of the server. PSS: private memory and a share of what is shared.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Before the subscribers connected, but after one had connected and disconnected.
    pub before_bytes: u64,
    /// With all subscribers.
    pub connected_bytes: u64,
    /// After events had been delivered.
    pub after_bytes: u64,
    /// The memory that a subscriber added, at most.
    pub per_subscriber_bytes: f64,
    /// Kernel memory of both ends of a connection.
    pub kernel_per_pair_bytes: Option<f64>,
}

/// Faults of the hub. All are zero for a correct hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Published, but not arrived.
    pub lost: u64,
    /// Arrived more than once.
    pub duplicated: u64,
    /// Arrived after a later event of the same publisher.
    pub reordered: u64,
    /// Arrived at a stream of another topic, or from an earlier run.
    pub strays: u64,
    /// Streams with another order than the first stream of their topic.
    pub disagreeing: u64,
    /// Publish requests that were not answered with success.
    pub refused: u64,
    /// Streams that ended.
    pub disconnected: u64,
    /// Streams that received later events but missed due ones for longer than the patience.
    #[serde(default)]
    pub late: u64,
}

impl Faults {
    /// Whether everything arrived once and in order.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            (self.lost, "deliveries lost"),
            (self.duplicated, "duplicated"),
            (self.reordered, "out of order"),
            (self.strays, "on the wrong stream"),
            (self.disagreeing, "streams in another order than the others"),
            (self.refused, "publish requests refused"),
            (self.disconnected, "streams ended"),
            (self.late, "streams too late"),
        ];
        let texts: Vec<String> = named
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{} {what}", grouped(*count)))
            .collect();
        f.write_str(&if texts.is_empty() {
            "nothing lost, duplicated or reordered".to_owned()
        } else {
            texts.join(", ")
        })
    }
}

impl Report {
    /// The faults of all steps.
    pub fn faults(&self) -> Faults {
        self.steps.iter().fold(Faults::default(), |sum, Step { faults, .. }| Faults {
            lost: sum.lost + faults.lost,
            duplicated: sum.duplicated + faults.duplicated,
            reordered: sum.reordered + faults.reordered,
            strays: sum.strays + faults.strays,
            disagreeing: sum.disagreeing + faults.disagreeing,
            refused: sum.refused + faults.refused,
            disconnected: sum.disconnected + faults.disconnected,
            late: sum.late + faults.late,
        })
    }

    /// Faults and growth in one line; none if there are none.
    pub fn failure(&self) -> Option<String> {
        let faults = self.faults();
        let faults = (!faults.is_none()).then(|| faults.to_string());
        let growth = self.steps.iter().filter_map(|step| step.soak.as_ref()).flat_map(|soak| &soak.growth);
        let growth = growth.filter(|growth| growth.is_too_much()).map(Growth::to_string);
        let all: Vec<String> = faults.into_iter().chain(growth).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }
}

/// A few lines per step, the most important first.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            let name = if step.name.is_empty() { String::new() } else { format!(", {}", step.name) };
            write!(
                f,
                "{} of {}{name}: {} subscribers",
                self.scenario,
                self.hub,
                grouped(step.subscribers as u64)
            )?;
            if step.events > 0 {
                write!(f, ", {} events of {} B", grouped(step.events), grouped(step.payload_bytes as u64))?;
                match step.rate {
                    Some(rate) => write!(f, " at {rate}/s")?,
                    None => write!(f, " back to back")?,
                }
                write!(f, " from {} on {}", step.publishers, step.topics)?;
            }
            writeln!(f)?;
            for (name, value) in step.rows() {
                writeln!(f, "  {name:<22}{value}")?;
            }
        }
        Ok(())
    }
}

impl Step {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        if let Some(connecting) = &self.connecting {
            rows.push((
                "connects",
                format!("{}/s ({:.2} s)", rounded(connecting.per_second), connecting.seconds),
            ));
        }
        if let Some(traffic) = &self.traffic {
            traffic.add_rows(self.subscribers > 0, &mut rows);
        }
        if let Some(memory) = &self.memory {
            rows.push((
                "memory",
                format!(
                    "{} KiB before, {} connected, {} after: {} B per subscriber",
                    grouped(memory.before_bytes / 1024),
                    grouped(memory.connected_bytes / 1024),
                    grouped(memory.after_bytes / 1024),
                    rounded(memory.per_subscriber_bytes)
                ),
            ));
            if let Some(bytes) = memory.kernel_per_pair_bytes {
                rows.push(("kernel memory", format!("{} B per connection, both ends", rounded(bytes))));
            }
        }
        if self.resumed > 0 {
            rows.push(("resumed", format!("{} streams resumed from their last id", grouped(self.resumed))));
        }
        if let Some(others) = &self.others {
            rows.extend(others.opening.map(|times| ("opening a stream", times.to_string())));
            rows.push(("other client", format!("{} requests", grouped(others.requests))));
        }
        if let Some(soak) = &self.soak {
            soak.add_rows(&mut rows);
        }
        rows.push(("checked", self.faults.to_string()));
        rows.extend(self.first_refusal.iter().map(|text| ("first refusal", text.escape_debug().to_string())));
        rows.extend(self.first_stray.iter().map(|text| ("first stray", text.clone())));
        rows
    }
}

impl Traffic {
    fn add_rows(&self, received: bool, rows: &mut Vec<(&'static str, String)>) {
        if received {
            rows.push((
                "deliveries",
                format!(
                    "{}/s ({} in {:.2} s, {:.1} per read)",
                    rounded(self.deliveries_per_second),
                    grouped(self.deliveries),
                    self.seconds,
                    self.deliveries_per_read
                ),
            ));
        }
        rows.push(("events", format!("{}/s", rounded(self.events_per_second))));
        for (name, times) in [("latency", self.latency), ("reply", self.reply)] {
            rows.extend(times.map(|times| (name, times.to_string())));
        }
        if let (Some(seconds), Some(micros)) = (self.server_cpu_seconds, self.server_cpu_micros_each) {
            let what = if received { "delivery" } else { "event" };
            rows.push(("server CPU", format!("{seconds:.3} s, {micros:.3} µs per {what}")));
        }
        let limit = if self.client_limited { ": the client was the limit" } else { "" };
        rows.push(("load client", format!("{:.0} % of a core{limit}", self.client_busy * 100.0)));
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50_ms, p99_ms, p999_ms, max_ms } = self;
        write!(f, "p50 {p50_ms:.2} ms, p99 {p99_ms:.2}, p99.9 {p999_ms:.2}, max {max_ms:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_reported_by_name_and_number() {
        let faults = Faults { lost: 1234, duplicated: 1, ..Faults::default() };
        assert_eq!(faults.to_string(), "1,234 deliveries lost, 1 duplicated");
        assert_eq!(Faults::default().to_string(), "nothing lost, duplicated or reordered");
    }
}
