//! `tidings bench` in miniature: every scenario against a real hub, and against faulty hubs.
#![cfg(target_os = "linux")]

#[path = "bench/faulty_hub.rs"]
mod faulty_hub;

use std::process::{Output, Stdio};

use serde_json::Value;
use tidings_testkit::{Hub, PATIENCE};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    time::timeout,
};

use self::faulty_hub::{Fault, FaultyHub};

fn tidings(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.args(args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

async fn bench(args: &[&str]) -> Output {
    let mut command = tidings(&[&["bench"], args].concat());
    command.env("PATH", "/usr/bin:/bin");
    timeout(4 * PATIENCE, command.output()).await.expect("a miniature takes seconds").unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// Checks that a run failed with this code and one line, and returns the line.
#[track_caller]
fn mistake(output: &Output, code: i32) -> String {
    let line = std::str::from_utf8(&output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    line.strip_prefix("error: ").expect(line).trim_end().to_owned()
}

/// The steps of a run that must have found nothing wrong.
#[track_caller]
fn steps(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    document["results"][0]["steps"].as_array().unwrap().clone()
}

#[tokio::test]
async fn every_kind_of_delivery_is_counted_to_the_last_event() {
    let hub = Hub::serve(&[]).await.unwrap();
    let pid = hub.pid().unwrap().to_string();
    for (scenario, subscribers, events, deliveries) in [
        ("idle", 20, 1, 20),
        ("fanout", 20, 50, 1000),
        ("many", 20, 50, 50),
        ("burst", 20, 50, 1000),
        ("publish", 0, 50, 0),
        ("replay", 20, 50, 5 * 1000),
    ] {
        let url = hub.url("");
        let size = [subscribers.to_string(), events.to_string()];
        let args = ["--url", &url, "--server-pid", &pid, "--subscribers", &size[0], "--events", &size[1]];
        let output = bench(&[&[scenario, "--json"], &args[..]].concat()).await;
        let steps = steps(&output);
        let traffic = &steps[0]["traffic"];
        assert_eq!(traffic["deliveries"], deliveries, "{scenario}: {traffic}");
        assert!(traffic["server_cpu_seconds"].as_f64().unwrap() > 0.0, "{scenario}: {traffic}");
        assert!(traffic["reply"]["p50_ms"].as_f64().unwrap() > 0.0, "{scenario}: {traffic}");
        assert_eq!(steps[0]["subscribers"], subscribers, "{scenario}");
        if scenario == "idle" {
            assert!(steps[0]["memory"]["before_bytes"].as_u64().unwrap() > 0);
        }
    }
}

#[tokio::test]
async fn events_at_a_rate_have_a_latency_from_when_they_were_due() {
    let hub = Hub::serve(&[]).await.unwrap();
    let output = bench(&[
        "fanout-slow",
        "growth",
        "--url",
        &hub.url(""),
        "--subscribers",
        "20",
        "--events",
        "20",
        "--rate",
        "200",
    ])
    .await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for part in ["fanout-slow of tidings", "growth of tidings", "at 200/s", "latency", "nothing lost"] {
        assert!(stdout(&output).contains(part), "{part} in {}", stdout(&output));
    }
}

#[tokio::test]
async fn frozen_readers_receive_everything_in_the_end() {
    let hub = Hub::serve(&[]).await.unwrap();
    let args = ["--subscribers", "20", "--events", "60", "--rate", "100", "--payload-bytes", "65536"];
    let output = bench(&[&["slow-readers", "--url", &hub.url(""), "--json"], &args[..]].concat()).await;
    let steps = steps(&output);
    assert_eq!(steps.len(), 2);
    assert_eq!(steps[0]["traffic"]["deliveries"], 20 * 60);
    assert_eq!(steps[1]["traffic"]["deliveries"], 18 * 60);
}

#[tokio::test]
async fn deletions_are_measured_by_how_long_the_others_wait() {
    let hub = Hub::serve(&[]).await.unwrap();
    let args = ["--subscribers", "10", "--events", "100", "--rate", "200", "--json"];
    let output = bench(&[&["delete", "--url", &hub.url("")], &args[..]].concat()).await;
    let steps = steps(&output);
    assert_eq!(steps.len(), 3);
    for step in &steps {
        assert_eq!(step["traffic"]["deliveries"], 10 * 100, "{step}");
        assert!(step["others"]["opening"]["p50_ms"].as_f64().unwrap() > 0.0, "{step}");
    }
    let requests = |step: usize| steps[step]["others"]["requests"].as_u64().unwrap();
    assert!(requests(0) == 0 && requests(1) > 0 && requests(2) > 0, "{steps:?}");
}

#[tokio::test]
async fn private_events_reach_subscribers_with_a_grant() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tidings.toml");
    let secret = "0123456789abcdef0123456789abcdef";
    std::fs::write(
        &config,
        format!("[[issuer]]\niss = \"a\"\naudience = \"https://b.example\"\nsecret = \"{secret}\"\n"),
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let token = async |rights: &[&str]| {
        let output =
            tidings(&[&["token", "new", "--config", config], rights].concat()).output().await.unwrap();
        stdout(&output).trim().to_owned()
    };
    let hub = Hub::serve(&["--config", config]).await.unwrap();
    let url = hub.url("");
    let run = async |subscriber: String| {
        let file = folder.path().join("tokens");
        std::fs::write(&file, subscriber + "\n").unwrap();
        let publisher = token(&["--publish", "*"]).await;
        let tokens = ["--subscribe-tokens", file.to_str().unwrap(), "--token", &publisher];
        let size = ["--subscribers", "20", "--events", "20", "--rate", "200", "--patience", "1s"];
        bench(&[&["private", "--url", &url], &tokens[..], &size].concat()).await
    };
    let output = run(token(&["--subscribe", "bench-*"]).await).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // A subscriber with another grant receives none, so they were private.
    let output = run(token(&["--subscribe", "user-*"]).await).await;
    assert_eq!(mistake(&output, 1), "private of tidings: 400 deliveries lost");
}

#[tokio::test]
async fn a_soak_loses_no_event_and_the_server_does_not_grow() {
    let hub = Hub::serve(&["--retain-count", "1000"]).await.unwrap();
    let pid = hub.pid().unwrap().to_string();
    let args = ["--url", &hub.url(""), "--server-pid", &pid, "--minutes", "0.05", "--subscribers", "100"];
    let output = bench(&[&["soak", "--json", "--payload-bytes", "128"], &args[..]].concat()).await;
    let steps = steps(&output);
    assert_eq!(steps[0]["events"], 600);
    assert_eq!(steps[0]["traffic"]["deliveries"], 2 * 600);
    let soak = &steps[0]["soak"];
    let [closed, reset] = ["closed", "reset"].map(|way| soak[way].as_u64().unwrap());
    assert!(closed > 0 && reset > 0, "{soak}");
    assert_eq!(steps[0]["resumed"], closed + reset, "{soak}");
    assert_eq!(soak["gaps"], 0);
    assert_eq!(soak["growth"].as_array().unwrap().len(), 2, "{soak}");
}

#[tokio::test]
async fn a_reported_gap_is_not_a_loss() {
    let hub = Hub::serve(&["--retain-count", "10"]).await.unwrap();
    let url = hub.url("");
    let output = bench(&["soak", "--url", &url, "--minutes", "0.02", "--subscribers", "5", "--json"]).await;
    let soak = &steps(&output)[0]["soak"];
    assert!(soak["gaps"].as_u64().unwrap() > 0, "{soak}");
}

#[tokio::test]
async fn a_soak_detects_a_hub_that_loses_events_or_falls_silent() {
    for (fault, parts) in [
        (Fault::Lose, ["soak of tidings: 1 deliveries lost", ""]),
        (Fault::Forget, ["soak of tidings: ", " deliveries lost"]),
        (Fault::Silence, [" deliveries lost, ", "1 streams too late"]),
        (Fault::HangUp, [" deliveries lost, ", "1 streams ended"]),
    ] {
        let hub = FaultyHub::start(fault).await;
        let args = ["--url", &hub.url, "--minutes", "0.1", "--subscribers", "1", "--patience", "1s"];
        let output = bench(&[&["soak"], &args[..]].concat()).await;
        let line = mistake(&output, 1);
        assert!(parts.iter().all(|part| line.contains(part)), "{fault:?}: {line}");
    }
}

/// A hub on a port of its own, which a second process can take over. It ends when its output is
/// closed.
async fn own_hub() -> (Child, Lines<BufReader<ChildStderr>>, String) {
    let mut hub = tidings(&["serve", "--listen", "127.0.0.1:0"]).spawn().unwrap();
    let mut lines = BufReader::new(hub.stderr.take().unwrap()).lines();
    loop {
        let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        let words = line.split(|mark: char| mark.is_whitespace() || "=\",".contains(mark));
        if let Some(url) = words.into_iter().find(|word| word.starts_with("http://127.0.0.1:")) {
            return (hub, lines, url.to_owned());
        }
    }
}

#[tokio::test]
async fn after_a_kill_all_subscribers_reconnect_and_receive_the_next_event() {
    let (hub, _output, url) = own_hub().await;
    let again = format!(
        "'{}' serve --listen {}",
        env!("CARGO_BIN_EXE_tidings"),
        url.strip_prefix("http://").unwrap()
    );
    let pid = hub.id().unwrap().to_string();
    let args = ["--url", &url, "--server-pid", &pid, "--restart-command", &again, "--settle", "1s"];
    let output = bench(&[&["storm", "--json", "--subscribers", "50"], &args[..]].concat()).await;
    let steps = steps(&output);
    assert_eq!(steps[1]["traffic"]["deliveries"], 50);
    assert!(steps[1]["connecting"]["per_second"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn a_hub_that_loses_duplicates_or_reorders_events_is_detected() {
    for (fault, line) in [
        (Fault::Lose, "fanout-slow of tidings: 4 deliveries lost"),
        (Fault::Double, "fanout-slow of tidings: 4 duplicated"),
        (Fault::Reorder, "fanout-slow of tidings: 4 out of order"),
        (Fault::Refuse, "fanout-slow of tidings: 4 deliveries lost, 1 publish requests refused"),
    ] {
        let hub = FaultyHub::start(fault).await;
        let size = ["--subscribers", "4", "--events", "20", "--rate", "500", "--patience", "1s"];
        let output = bench(&[&["fanout-slow", "--url", &hub.url], &size[..]].concat()).await;
        assert_eq!(mistake(&output, 1), line);
        assert!(stdout(&output).contains("checked"), "the table is printed nevertheless");
    }
    let honest = FaultyHub::start(Fault::None).await;
    let size = ["--subscribers", "4", "--events", "20", "--rate", "500"];
    let output = bench(&[&["fanout-slow", "--url", &honest.url], &size[..]].concat()).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn streams_that_end_are_reported() {
    let hub = FaultyHub::start(Fault::HangUp).await;
    let size = ["--subscribers", "4", "--events", "20", "--rate", "500", "--patience", "1s"];
    let output = bench(&[&["fanout-slow", "--url", &hub.url], &size[..]].concat()).await;
    assert!(mistake(&output, 1).ends_with("deliveries lost, 4 streams ended"));
}

#[tokio::test]
async fn a_wrong_command_line_is_one_line_with_the_fix() {
    for (args, part) in [
        (&["fanuot"][..], "'fanout'"),
        (&["fanout", "--hub", "ncahn"], "nchan"),
        (&["fanout", "--subscribers", "0"], "--subscribers 0"),
        (&["fanout", "--publishers", "257"], "--publishers 257: it must be from 1 to 256"),
        (&["fanout", "--rate", "0"], "--rate"),
        (&["fanout", "--url", "https://example.com"], "http://"),
        (&["fanout", "--body", "hello"], "{data}"),
        (&["fanout", "--subscribe", "http://127.0.0.1:8080/stream"], "{topic} is missing"),
        (&["fanout", "--publish", "http://127.0.0.1:8080/post"], "{topic} is missing"),
        (&["fanout", "--output", "/no/such/directory/results.json"], "/no/such/directory/results.json"),
        (&["fanout", "--publish-header", "nonsense"], "`nonsense`"),
        (&["fanout", "--server-pid", "4194999"], "--server-pid 4194999"),
        (&["replay", "--hub", "axum"], "no history"),
        (&["storm"], "--restart-command"),
        (&["soak", "--minutes", "0"], "a number of minutes"),
        (&["soak", "--events", "9"], "--events"),
        (&["soak", "--minutes", "9999999"], "--minutes"),
        (&["soak", "--hub", "axum"], "no history"),
        (&["delete", "--hub", "nchan"], "nchan cannot delete topics"),
        (&["private"], "--subscribe-tokens"),
        (&["private", "--subscribe-tokens", "/no/such/file"], "/no/such/file"),
        (&["fanout", "--subscribers", "16000000"], "ulimit -Hn"),
    ] {
        let line = mistake(&bench(args).await, 2);
        assert!(line.contains(part), "{part} in {line}");
    }
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = bench(&["fanout", "--subscribers", "1", "--url", &format!("http://{unused}")]).await;
    assert!(mistake(&output, 1).contains(&format!("fanout: no connection to {unused}")));
}

#[tokio::test]
async fn a_hub_that_refuses_subscriptions_is_quoted() {
    let hub = Hub::serve(&[]).await.unwrap();
    let subscribe = hub.url("/nowhere?{topic}");
    let output = bench(&["fanout", "--url", &hub.url(""), "--subscribe", &subscribe]).await;
    assert!(mistake(&output, 1).starts_with("fanout: a subscription was answered 404: "));
}

#[tokio::test]
async fn an_event_on_the_stream_of_another_topic_is_quoted() {
    let hub = Hub::serve(&[]).await.unwrap();
    let subscribe = hub.url("/stream?topic=*&topic={topic}");
    let size = ["--subscribers", "3", "--events", "6", "--patience", "1s"];
    let output =
        bench(&[&["many", "--url", &hub.url(""), "--subscribe", &subscribe], &size[..]].concat()).await;
    assert!(mistake(&output, 1).contains("on the wrong stream"));
    let quoted =
        stdout(&output).lines().find(|line| line.contains("first stray")).expect("the stray event is quoted");
    assert!(quoted.contains("arrived at a stream of topic"), "{quoted}");
}

#[tokio::test]
async fn a_dry_run_prints_the_requests_and_sends_none() {
    let output = bench(&[
        "publish",
        "--hub",
        "nchan",
        "--url",
        "http://127.0.0.1:1",
        "--token",
        "secret-token",
        "--dry-run",
    ])
    .await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = stdout(&output);
    for part in ["to 127.0.0.1:1:", "GET /sub/TOPIC-0 HTTP/1.1", "POST /pub/TOPIC-0 HTTP/1.1", "\nDATA"] {
        assert!(printed.contains(part), "{part} in {printed}");
    }
    assert!(!printed.contains("secret-token"), "{printed}");
}

#[tokio::test]
async fn results_contain_version_date_and_arguments() {
    let hub = Hub::serve(&[]).await.unwrap();
    let args = ["publish", "--url", &hub.url(""), "--events", "10", "--name", "candidate", "--json"];
    let output = bench(&[&args[..], &["--token", "secret-token"]].concat()).await;
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["version"], env!("CARGO_PKG_VERSION"));
    assert!(document["date"].as_str().unwrap().contains('T'), "{document}");
    assert_eq!(document["arguments"][0], "bench");
    assert_eq!(document["results"][0]["hub"], "candidate");
    assert!(!stdout(&output).contains("secret-token"), "{document}");
}

#[tokio::test]
async fn help_explains_every_scenario() {
    let output = bench(&["--help"]).await;
    for part in [
        "idle",
        "soak",
        "fanout-slow",
        "slow-readers",
        "growth",
        "--subscribe <TEMPLATE>",
        "GET /sub/{topic}",
        "[default: tidings]",
    ] {
        assert!(stdout(&output).contains(part), "{part} in {}", stdout(&output));
    }
}
