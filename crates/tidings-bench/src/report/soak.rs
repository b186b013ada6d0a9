//! The results of a soak other than faults: the resources of the server over time, and whether they
//! grew.
//!
//! Growth is judged by medians, so that no single reading decides. A warm-up fills every cache and
//! history of the server; then the first third of the readings is compared with the last.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::number::grouped;

/// The first quarter of all readings is not judged.
const WARM_UP_SHARE: usize = 4;
/// The allowed growth of memory: this share, plus this much for small servers.
const MEMORY_GROWTH_PERCENT_MAX: u64 = 5;
const MEMORY_GROWTH_BYTES_MAX: u64 = 1 << 20;
/// The allowed growth of file descriptors, not counting one for each connection.
const DESCRIPTORS_GROWTH_MAX: u64 = 50;
/// The number of readings that are displayed, evenly chosen.
const ROWS_MAX: usize = 12;

/// A long run with subscribers that connect and disconnect.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Soak {
    /// How long events were published.
    pub minutes: f64,
    /// The seed of the times that subscribers stay connected.
    pub seed: u64,
    /// Streams that subscribers closed.
    pub closed: u64,
    /// Streams that subscribers reset.
    pub reset: u64,
    /// Gaps that the hub reported: its history was too short for the absence of a subscriber.
    pub gaps: u64,
    /// Readings of the server, in order.
    pub samples: Vec<Sample>,
    /// The growth; empty without a server process, or if a fault ended the soak early.
    pub growth: Vec<Growth>,
}

/// A reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since the first event.
    pub seconds: f64,
    /// PSS of the server: private memory and a share of what is shared.
    pub memory_bytes: u64,
    /// Open file descriptors of the server, including sockets.
    pub descriptors: u64,
    /// Open connections of the load client.
    pub connections: u64,
    /// Events that had arrived, each counted once per stream.
    pub deliveries: u64,
}

/// A resource of the server, early and late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// The resource.
    pub of: Quantity,
    /// The median of the first third after the warm-up.
    pub first: u64,
    /// The median of the last third.
    pub last: u64,
    /// The allowed growth.
    pub allowed: u64,
}

/// A resource that is checked for growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Memory (PSS), in bytes.
    Memory,
    /// Open file descriptors, not counting one for each connection.
    Descriptors,
}

impl Growth {
    /// Judges memory and descriptors; nothing if there are too few readings for thirds.
    pub(crate) fn judge(samples: &[Sample]) -> Vec<Self> {
        let warm = &samples[samples.len() / WARM_UP_SHARE..];
        let third = warm.len() / 3;
        if third == 0 {
            return Vec::new();
        }
        let thirds = (&warm[..third], &warm[warm.len() - third..]);
        let judged = |of, value: fn(&Sample) -> u64, allowed: fn(u64) -> u64| {
            let (first, last) = (median(thirds.0, value), median(thirds.1, value));
            Self { of, first, last, allowed: allowed(first) }
        };
        vec![
            judged(
                Quantity::Memory,
                |sample| sample.memory_bytes,
                |first| first * MEMORY_GROWTH_PERCENT_MAX / 100 + MEMORY_GROWTH_BYTES_MAX,
            ),
            judged(
                Quantity::Descriptors,
                |sample| sample.descriptors.saturating_sub(sample.connections),
                |_| DESCRIPTORS_GROWTH_MAX,
            ),
        ]
    }

    /// Whether it grew by more than it may.
    pub fn is_too_much(&self) -> bool {
        self.last > self.first + self.allowed
    }
}

fn median(samples: &[Sample], value: fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(value).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, first, last, allowed } = *self;
        match of {
            Quantity::Memory => {
                let [first, last, allowed] = [first, last, allowed].map(|bytes| grouped(bytes / 1024));
                write!(f, "memory from {first} to {last} KiB, {allowed} more are allowed")
            }
            Quantity::Descriptors => {
                let [first, last, allowed] = [first, last, allowed].map(grouped);
                write!(
                    f,
                    "descriptors other than connections from {first} to {last}, {allowed} more are allowed"
                )
            }
        }
    }
}

impl Soak {
    pub(super) fn add_rows(&self, rows: &mut Vec<(&'static str, String)>) {
        rows.push((
            "disconnects",
            format!(
                "{} streams closed, {} reset, {} gaps reported, in {:.1} minutes with seed {}",
                grouped(self.closed),
                grouped(self.reset),
                grouped(self.gaps),
                self.minutes,
                self.seed
            ),
        ));
        if !self.samples.is_empty() {
            rows.push(("readings", " seconds       KiB   files  connections   deliveries".to_owned()));
        }
        // Rounded up, so that there are never more; the last reading is always shown.
        let step = self.samples.len().div_ceil(ROWS_MAX).max(1);
        for sample in self.samples.iter().rev().step_by(step).collect::<Vec<_>>().into_iter().rev() {
            let Sample { seconds, memory_bytes, descriptors, connections, deliveries } = *sample;
            let [memory, descriptors, connections, deliveries] =
                [memory_bytes / 1024, descriptors, connections, deliveries].map(grouped);
            rows.push((
                "",
                format!("{seconds:>8.1}{memory:>10}{descriptors:>8}{connections:>13}{deliveries:>13}"),
            ));
        }
        for growth in &self.growth {
            let verdict = if growth.is_too_much() { "GREW" } else { "steady" };
            rows.push((verdict, growth.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Forty readings, ten of which are the warm-up.
    fn judge(memory_bytes: impl Fn(u64) -> u64, descriptors: impl Fn(u64) -> u64) -> Vec<Growth> {
        let sample = |number| Sample {
            memory_bytes: memory_bytes(number),
            descriptors: descriptors(number),
            // Hundreds of connects and disconnects are not growth.
            connections: 4000 + number % 7 * 100,
            ..Sample::default()
        };
        Growth::judge(&(0..40).map(sample).collect::<Vec<_>>())
    }

    fn too_much(growth: &[Growth]) -> Vec<Quantity> {
        growth.iter().filter(|growth| growth.is_too_much()).map(|growth| growth.of).collect()
    }

    #[test]
    fn filling_the_history_is_not_growth() {
        let growth = judge(|number| number.min(10) * 10 * MIB, |number| 4020 + number % 7 * 100);
        assert_eq!(too_much(&growth), []);
        assert_eq!((growth[0].first, growth[0].last), (100 * MIB, 100 * MIB));
        assert_eq!((growth[1].first, growth[1].last), (20, 20));
    }

    #[test]
    fn single_outliers_are_not_growth() {
        let growth = judge(
            |number| if number == 35 { 900 * MIB } else { 100 * MIB },
            |number| if number > 36 { 9000 } else { 4020 + number % 7 * 100 },
        );
        assert_eq!(too_much(&growth), []);
    }

    #[test]
    fn growth_by_a_twentieth_and_a_mebibyte_is_allowed() {
        let late =
            |more: u64| judge(move |number| if number >= 30 { 106 * MIB + more } else { 100 * MIB }, |_| 0);
        assert_eq!(too_much(&late(0)), []);
        assert_eq!(too_much(&late(1)), [Quantity::Memory]);
    }

    #[test]
    fn a_steady_leak_is_growth() {
        let growth = judge(|number| (100 + number) * MIB, |number| 4000 + number % 7 * 100 + number * 3);
        assert_eq!(too_much(&growth), [Quantity::Memory, Quantity::Descriptors]);
        assert_eq!(
            growth[1].to_string(),
            "descriptors other than connections from 45 to 105, 50 more are allowed"
        );
    }

    #[test]
    fn too_few_readings_are_not_judged() {
        assert_eq!(Growth::judge(&[]), []);
        assert_eq!(Growth::judge(&[Sample::default(); 2]), []);
    }
}
