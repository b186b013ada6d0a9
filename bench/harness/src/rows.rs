//! The rows of the tables: which measurements of which scenario are shown, and how numbers are
//! written.

use crate::results::{
    Figure, bytes, bytes_in_total, connects, cpu, cpu_added, deliveries, events, kernel_bytes, opening_p99,
    p50, p99, p999, per_read, reply_p99,
};

pub(crate) struct Row {
    pub(crate) scenario: &'static str,
    pub(crate) text: &'static str,
    pub(crate) figure: Figure,
}

pub(crate) const ROWS: &[Row] = &[
    row("idle", "process memory per subscriber, in total, B", bytes_in_total),
    row("idle", "of that, what each subscriber added, B", bytes),
    row("idle", "kernel memory per connection, both ends, B", kernel_bytes),
    row("idle", "connections/s", connects),
    row("fanout", "deliveries/s", deliveries),
    row("fanout", "deliveries per read", per_read),
    row("fanout", "server CPU, µs per delivery", cpu),
    row("fanout", "p99, ms", p99),
    row("fanout-slow", "p50, ms", p50),
    row("fanout-slow", "p99, ms", p99),
    row("fanout-slow", "p99.9, ms", p999),
    row("fanout-slow", "server CPU, µs per delivery", cpu),
    row("many", "events/s", events),
    row("many", "server CPU, µs per event", cpu),
    row("many", "p99, ms", p99),
    row("burst", "deliveries/s", deliveries),
    row("burst", "deliveries per read", per_read),
    row("burst", "p99, ms", p99),
    row("publish", "POST/s", events),
    row("publish", "server CPU, µs per POST", cpu),
    row("publish-64", "POST/s", events),
    row("publish-64", "p99 of the answers, ms", reply_p99),
    row("publish-64", "server CPU, µs per POST", cpu),
    row("publish-1", "POST/s", events),
    row("publish-1", "p99 of the answers, ms", reply_p99),
    row("replay", "deliveries/s", deliveries),
    row("replay-long", "deliveries/s", deliveries),
    row("storm", "connections/s when all reconnect", connects),
    row("growth", "additional server CPU per delivery among 18,000 compared with 1,000, µs", cpu_added),
    row("delete", "while one client deletes: p99 of deliveries, ms", p99),
    row("delete", "the same: p99 of answers to publishers, ms", reply_p99),
    row("delete", "the same: p99 of opening a stream, ms", opening_p99),
    row("slow-readers", "with frozen readers: p99 of the others, ms", p99),
    row("private", "private: server CPU, µs per delivery", cpu),
];

const fn row(scenario: &'static str, text: &'static str, figure: Figure) -> Row {
    Row { scenario, text, figure }
}

/// Three digits, or all digits before the point.
pub(crate) fn figure(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let (whole, part) = text
        .split_once('.')
        .map_or((text.as_str(), String::new()), |(whole, part)| (whole, format!(".{part}")));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + &part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_at_least() {
        assert_eq!([0.123, 12.34, 1234.5, 6_737_000.0].map(figure), ["0.12", "12.3", "1,234", "6,737,000"]);
    }
}
