//! The table of all metrics, from which both `/metrics` and their reference are made. To add one,
//! add a row to its section.

mod components;
mod connections;
mod fan_out;
mod hub;
mod log;
mod process;
mod streams;

use super::metric::Metric;

/// The sections, in the order of the reference.
pub(super) static SECTIONS: &[(&str, &[Metric])] = &[
    ("Hub", hub::METRICS),
    ("Fan-out and subscribers", fan_out::METRICS),
    ("Log, store and cluster", log::METRICS),
    ("Streams and requests", streams::METRICS),
    ("Connections", connections::METRICS),
    ("Components", components::METRICS),
    ("Process", process::METRICS),
];

/// All metrics.
pub(super) fn metrics() -> impl Iterator<Item = &'static Metric> {
    SECTIONS.iter().flat_map(|(_, metrics)| *metrics)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut names = HashSet::new();
        for metric in metrics() {
            let name = metric.name;
            assert!(names.insert(name), "{name} is there twice");
            assert!(name.starts_with("tidings_") || name.starts_with("process_"), "{name}");
            let is_usual = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            assert!(name.bytes().all(is_usual), "{name}");
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{name}: {}", metric.help);
            assert!(metric.action.ends_with('.'), "{name}: {}", metric.action);
        }
    }

    #[test]
    fn a_label_has_each_value_once() {
        for metric in metrics() {
            for label in metric.labels() {
                let values: HashSet<_> = label.values.iter().collect();
                assert_eq!(values.len(), label.values.len(), "{} {}", metric.name, label.name);
            }
        }
    }
}
