//! `/metrics` of the real binary: each metric moves by what it measures, every series exists from
//! the start, and no client can add one or leave its text there.
//!
//! Needs: redis-server.

#![cfg(target_os = "linux")]

mod endings;
mod hub;
mod moves;
mod served;

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    process::Command,
};

use tidings_testkit::{Connection, Hub, binary};

use crate::moves::{Case, prove, values};

/// The tables of all modules.
const TABLES: &[&[Case]] = &[endings::CASES, hub::CASES, served::CASES];

/// Metrics that no case moves; the file below `crates` whose tests do, and the name by which they read
/// them.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("tidings_build_info", "tidings-cli/tests/metrics/main.rs", "tidings_build_info"),
    ("process_start_time_seconds", "tidings-cli/tests/metrics/main.rs", "process_start_time_seconds"),
    ("process_threads", "tidings-cli/tests/metrics/main.rs", "process_threads"),
    (
        "tidings_ephemeral_dropped_total",
        "tidings-cli/tests/stores/ephemeral.rs",
        "tidings_ephemeral_dropped_total",
    ),
    ("tidings_fan_out_lag_bytes", "tidings/tests/hub/limits.rs", "fan_out_lag_bytes"),
    ("tidings_deliveries_total", "tidings-cli/tests/stores/measurements.rs", "tidings_deliveries_total"),
    (
        "tidings_delivered_bytes_total",
        "tidings-cli/tests/stores/measurements.rs",
        "tidings_delivered_bytes_total",
    ),
    (
        "tidings_delivery_lag_seconds",
        "tidings-cli/tests/stores/measurements.rs",
        "tidings_delivery_lag_seconds",
    ),
    ("tidings_streams_stalled", "tidings-cli/tests/stores/measurements.rs", "tidings_streams_stalled"),
    (
        "tidings_reader_lag_bytes_worst",
        "tidings-cli/tests/stores/measurements.rs",
        "tidings_reader_lag_bytes_worst",
    ),
    (
        "tidings_reader_lag_bytes_p99",
        "tidings-cli/tests/stores/measurements.rs",
        "tidings_reader_lag_bytes_p99",
    ),
    ("tidings_gaps_total", "tidings-cli/tests/stores/measurements.rs", "tidings_gaps_total"),
    ("tidings_replays_total", "tidings-cli/tests/stores/measurements.rs", "tidings_replays_total"),
    ("tidings_replay_pages_total", "tidings-cli/tests/stores/measurements.rs", "tidings_replay_pages_total"),
    (
        "tidings_replay_events_total",
        "tidings-cli/tests/stores/measurements.rs",
        "tidings_replay_events_total",
    ),
    ("tidings_replays_running", "tidings/tests/hub/limits.rs", "replays_running"),
    (
        "tidings_replays_running_max",
        "tidings-cli/tests/stores/measurements.rs",
        "tidings_replays_running_max",
    ),
    ("tidings_patterns_max", "tidings-cli/tests/stores/measurements.rs", "tidings_patterns_max"),
    ("tidings_feed_bytes_max", "tidings-cli/tests/stores/measurements.rs", "tidings_feed_bytes_max"),
    (
        "tidings_fan_out_lag_bytes_max",
        "tidings-cli/tests/stores/measurements.rs",
        "tidings_fan_out_lag_bytes_max",
    ),
    ("tidings_appends_pending", "tidings-cli/tests/stores/measurements.rs", "tidings_appends_pending"),
    (
        "tidings_appends_pending_max",
        "tidings-cli/tests/stores/measurements.rs",
        "tidings_appends_pending_max",
    ),
    (
        "tidings_appends_pending_bytes",
        "tidings-cli/tests/stores/measurements.rs",
        "tidings_appends_pending_bytes",
    ),
    (
        "tidings_appends_pending_bytes_max",
        "tidings-cli/tests/stores/measurements.rs",
        "tidings_appends_pending_bytes_max",
    ),
    ("tidings_log_events", "tidings-cli/tests/stores/measurements.rs", "tidings_log_events"),
    ("tidings_log_bytes", "tidings-cli/tests/stores/measurements.rs", "tidings_log_bytes"),
    ("tidings_log_bytes_max", "tidings-cli/tests/stores/measurements.rs", "tidings_log_bytes_max"),
    (
        "tidings_log_oldest_timestamp_seconds",
        "tidings-cli/tests/stores/measurements.rs",
        "tidings_log_oldest_timestamp_seconds",
    ),
    (
        "tidings_log_newest_timestamp_seconds",
        "tidings-cli/tests/stores/measurements.rs",
        "tidings_log_newest_timestamp_seconds",
    ),
    (
        "tidings_log_sync_duration_seconds",
        "tidings-cli/tests/stores/measurements.rs",
        "tidings_log_sync_duration_seconds",
    ),
    ("tidings_store_info", "tidings-cli/tests/stores/measurements.rs", "tidings_store_info"),
    ("tidings_store_up", "tidings-cli/tests/stores/measurements.rs", "tidings_store_up"),
    (
        "tidings_store_operation_duration_seconds",
        "tidings-cli/tests/stores/measurements.rs",
        "tidings_store_operation_duration_seconds",
    ),
    ("tidings_store_errors_total", "tidings-cli/tests/stores/measurements.rs", "tidings_store_errors_total"),
    ("tidings_cluster_hubs", "tidings-cli/tests/stores/measurements.rs", "tidings_cluster_hubs"),
    ("tidings_cluster_leases", "tidings-cli/tests/stores/measurements.rs", "tidings_cluster_leases"),
    ("tidings_stored_events_rejected_total", "tidings-redis/tests/log.rs", "rejected_count"),
    ("tidings_bridge_listening", "tidings-cli/tests/stores/bridge.rs", "tidings_bridge_listening"),
    ("tidings_bridge_queue_bytes", "tidings-redis/tests/bridge/coming_in.rs", "figures.queue_bytes"),
    ("tidings_bridge_received_total", "tidings-redis/tests/bridge/coming_in.rs", "figures.received"),
    (
        "tidings_bridge_published_total",
        "tidings-cli/tests/stores/bridge.rs",
        "tidings_bridge_published_total",
    ),
    (
        "tidings_bridge_undecodable_total",
        "tidings-cli/tests/stores/bridge.rs",
        "tidings_bridge_undecodable_total",
    ),
    ("tidings_bridge_invalid_total", "tidings-cli/tests/stores/bridge.rs", "tidings_bridge_invalid_total"),
    ("tidings_bridge_too_large_total", "tidings-redis/tests/bridge/coming_in.rs", "figures.too_large"),
    ("tidings_bridge_no_room_total", "tidings-redis/tests/bridge/coming_in.rs", ".no_room"),
    ("tidings_bridge_dropped_total", "tidings-redis/tests/bridge/coming_in.rs", "figures.dropped"),
    ("tidings_bridge_sent_total", "tidings-redis/tests/bridge/going_out.rs", "figures.sent"),
    ("tidings_bridge_unsent_total", "tidings-redis/tests/bridge/going_out.rs", "figures.unsent"),
    ("tidings_bridge_returned_total", "tidings-redis/tests/bridge/going_out.rs", "figures.returned"),
    (
        "tidings_bridge_connections_lost_total",
        "tidings-cli/tests/stores/bridge.rs",
        "tidings_bridge_connections_lost_total",
    ),
    (
        "tidings_issuers_without_keys",
        "tidings-cli/tests/credentials/issuers.rs",
        "tidings_issuers_without_keys",
    ),
    (
        "tidings_issuer_keys_fetched_total",
        "tidings-cli/tests/credentials/issuers.rs",
        "tidings_issuer_keys_fetched_total",
    ),
    (
        "tidings_issuer_keys_failed_total",
        "tidings-cli/tests/credentials/issuers.rs",
        "tidings_issuer_keys_failed_total",
    ),
    (
        "tidings_acme_certificate_expiry_timestamp_seconds",
        "tidings-cli/tests/acme.rs",
        "tidings_acme_certificate_expiry_timestamp_seconds",
    ),
    ("tidings_acme_obtained_total", "tidings-cli/tests/acme.rs", "tidings_acme_obtained_total"),
    ("tidings_acme_failed_total", "tidings-cli/tests/acme.rs", "tidings_acme_failed_total"),
    ("tidings_hook_delivered_total", "tidings-cli/tests/stores/hooks.rs", "tidings_hook_delivered_total"),
    ("tidings_hook_failed_total", "tidings-cli/tests/stores/hooks.rs", "tidings_hook_failed_total"),
    ("tidings_hook_dropped_total", "tidings-cli/src/hooks/ledger.rs", "dropped"),
    ("tidings_hook_pending", "tidings-cli/tests/stores/hooks.rs", "tidings_hook_pending"),
    ("tidings_hook_pending_age_seconds", "tidings-cli/src/hooks/board.rs", "waiting(0, now)"),
    ("tidings_application_up", "tidings-cli/src/commands/application/state.rs", "tidings_application_up"),
    (
        "tidings_application_starts_total",
        "tidings-cli/src/commands/application/state.rs",
        "tidings_application_starts_total",
    ),
];

async fn scrape(hub: &Hub) -> String {
    hub.request("GET /metrics", b"").await.unwrap().text()
}

/// The names of all metrics in the reference that the program prints.
fn described() -> BTreeSet<String> {
    let output = Command::new(binary().unwrap()).arg("metrics").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect()
}

/// The metric of a series.
fn metric_of(series: &str) -> &str {
    let name = series.split('{').next().unwrap_or_default();
    let is_of_histogram = |suffix: &&str| name.ends_with(&format!("_seconds{suffix}"));
    let suffix = ["_count", "_sum", "_bucket"].into_iter().find(is_of_histogram);
    suffix.map_or(name, |suffix| &name[..name.len() - suffix.len()])
}

#[tokio::test]
async fn the_metrics_of_the_hub_move_by_what_they_measure() {
    prove(hub::CASES).await;
}

#[tokio::test]
async fn the_metrics_of_serving_move_by_what_they_measure() {
    prove(served::CASES).await;
}

#[tokio::test]
async fn the_metrics_of_streams_that_end_move_by_what_they_measure() {
    prove(endings::CASES).await;
}

#[test]
fn every_metric_is_moved_by_a_test() {
    let series = TABLES.iter().flat_map(|cases| *cases).flat_map(|case| case.series);
    let moved: BTreeSet<_> = series.map(|(series, _)| metric_of(series).to_owned()).collect();
    let elsewhere: BTreeSet<_> = ELSEWHERE.iter().map(|(metric, ..)| (*metric).to_owned()).collect();
    let both: Vec<_> = moved.intersection(&elsewhere).collect();
    assert!(both.is_empty(), "moved by a case, so not to be listed elsewhere: {both:?}");
    for (metric, file, name) in ELSEWHERE {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(name), "{file} does not name {name}, so it cannot test {metric}");
    }
    let tested: BTreeSet<_> = moved.union(&elsewhere).cloned().collect();
    assert_eq!(tested, described(), "left: those of the tests; right: those of `tidings metrics`");
}

#[tokio::test]
async fn every_series_exists_from_the_start_and_counts_from_0() {
    let hub = Hub::serve(&[]).await.unwrap();
    let text = scrape(&hub).await;
    let kinds: HashMap<_, _> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    assert_eq!(kinds.keys().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), described());
    // The scrape itself has a connection, the process a start, and the store was opened.
    let caused = [
        "tidings_connections_accepted_total",
        "process_cpu_seconds_total",
        "tidings_store_operation_duration_seconds",
    ];
    for (series, value) in values(&text) {
        let metric = metric_of(&series);
        if kinds[metric] != "gauge" && !caused.contains(&metric) {
            assert!(value == 0.0, "{series} {value}");
        }
    }
    let version = format!("tidings_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    assert!(text.contains(&version), "{text}");
    let [threads, start] = ["process_threads", "process_start_time_seconds"].map(|name| values(&text)[name]);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!(threads >= 1.0 && start > 1e9 && start < now + 60.0, "{threads} {start}");
    let later = values(&scrape(&hub).await)["process_start_time_seconds"];
    assert_eq!(later.to_bits(), start.to_bits());
}

#[tokio::test]
async fn a_flood_of_odd_requests_adds_no_series_and_no_text_of_clients() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidings.toml");
    let planted = ["planted-topic", "tk_planted-key-of-good-length", "planted-secret-of-tickets-long-enough"];
    let [topic, key, secret] = planted;
    let text = format!(
        "[[key]]\nname = \"planted-name\"\nsecret = \"{key}\"\npublish = [\"*\"]\nsubscribe = [\"*\"]\nadmin = true\n\
         [[ticket_secret]]\nid = \"planted-id\"\nsecret = \"{secret}\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let hub = Hub::serve(&["--config", file.to_str().unwrap()]).await.unwrap();
    let bearer = format!("Authorization: Bearer {key}");
    let scrape = async || hub.request(&format!("GET /metrics\n{bearer}"), b"").await.unwrap().text();
    let before: BTreeSet<_> = values(&scrape().await).into_keys().collect();

    let json = format!("POST /tickets\n{bearer}\nContent-Type: application/json");
    let ticket =
        hub.request(&json, br#"{"topic":["planted-topic"]}"#).await.unwrap().text().trim().to_owned();
    assert!(ticket.len() > 20, "{ticket}");
    let mut connection = Connection::open(hub.address()).await.unwrap();
    for number in 0..300 {
        let head = match number % 6 {
            0 => format!("POST /topics/{topic}-{number}\n{bearer}"),
            1 => format!("PLANTED{number} /planted-path/{number}"),
            2 => format!("GET /planted-{number}?ticket={ticket}"),
            3 => format!("HEAD /topics/{topic}-{number}?ticket={ticket}"),
            4 => format!("POST /topics/{topic}\nAuthorization: Bearer tk_planted-unknown-{number}-key-long"),
            _ => format!("DELETE /planted%2f{number}/..//\nOrigin: https://planted.example"),
        };
        connection.request(&head, b"planted-data").await.unwrap();
        if head.starts_with("HEAD") {
            connection.head().await.unwrap();
        } else {
            connection.response().await.unwrap();
        }
    }

    let after = scrape().await;
    assert_eq!(values(&after).into_keys().collect::<BTreeSet<_>>(), before);
    let text = after.to_lowercase();
    assert!(!text.contains("planted") && !text.contains(&ticket.to_lowercase()), "{after}");
}
