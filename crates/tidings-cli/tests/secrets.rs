//! No URL of a store, a bridge or a hub shows a secret, whatever prints it.
//!
//! Needs: redis-server, nats-server.

#![cfg(unix)]

use std::process::{Command, Stdio};

use tidings_testkit::{Hub, NatsServer, RedisServer};

const SECRET: &str = "5ecret";

/// Every part of a URL in which a user may write a secret, rightly or not.
const STORES: [&str; 21] = [
    "nats://5ecret@127.0.0.1:1",
    "nats://5ecret:5ecret@127.0.0.1:1/news",
    "nats://u:5ecret@127.0.0.1:1,127.0.0.1:2/news?replicas=3",
    "nats://5ecret@127.0.0.1:1,5ecret@127.0.0.1:2",
    "nats://u:5ecret@127.0.0.1:1,nats://u:5ecret@127.0.0.1:2",
    "nats://127.0.0.1:1?token=5ecret",
    "nats://127.0.0.1:1?5ecret",
    "tls://u:5ecret@127.0.0.1:1?ca=/nowhere",
    "nats://u:5ecret#5ecret@127.0.0.1:1",
    "nats://u:1/5ecret@127.0.0.1",
    "redis://5ecret:5ecret@127.0.0.1:1/2?name=shop&wait=1",
    "redis://:5ecret@127.0.0.1:1?password=5ecret",
    "redis://:5ecret/5ecret?5ecret#5ecret@127.0.0.1:1",
    "redis://u:1?5ecret=x@127.0.0.1",
    "redis://127.0.0.1:1#5ecret",
    "rediss://u:5ecret@127.0.0.1:1?cert=/nowhere&cert_key=/nowhere",
    "redis+sentinel://u:5ecret@127.0.0.1:1,127.0.0.1:2/s?sentinel_user=5ecret&sentinel_password=5ecret",
    "redis+cluster://u:5ecret@127.0.0.1:1,u:5ecret@127.0.0.1:2",
    "redis+unix://u:5ecret@/nowhere/redis.sock?db=1",
    "unix:///nowhere/redis.sock?user=5ecret&pass=5ecret",
    "mysql://u:5ecret@127.0.0.1",
];

/// Runs `tidings` until it has printed all messages about a store that is unreachable.
#[track_caller]
fn assert_hidden(args: &[&str], variables: &[(&str, &str)]) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidings"))
        .args(args)
        .env_clear()
        .env("RUST_LOG", "debug")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    assert!(!printed.is_empty() && !printed.contains(SECRET), "{args:?} {printed}");
}

#[test]
fn no_url_of_a_store_shows_a_secret_when_it_is_checked_or_refused() {
    for store in STORES {
        assert_hidden(&["serve", "--check", "--store", store], &[]);
        assert_hidden(&["serve", "--listen", "127.0.0.1:0", "--store", store], &[]);
        assert_hidden(&["serve", "--check"], &[("TIDINGS_STORE", store)]);
        assert_hidden(&["serve", store], &[]);
        let mark = if store.contains('?') { "&" } else { "?" };
        assert_hidden(&["serve", "--check", "--bridge", &format!("{store}{mark}channels=a")], &[]);
    }
    for hub in ["http://u:5ecret@127.0.0.1:1", "http://127.0.0.1:1?token=5ecret", "ftp://u:5ecret@h"] {
        assert_hidden(&["publish", "--url", hub, "chat", "hello"], &[]);
        assert_hidden(&["serve", "--check", "--public-url", hub], &[]);
        assert_hidden(&["serve", "--check", "--allow-origin", hub], &[]);
        assert_hidden(&["bench", "--url", hub, "ceiling"], &[]);
    }
}

/// What a hub prints and answers while its servers run, and after they have stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_running_hub_shows_a_secret() {
    let mut redis = RedisServer::start_with(&["requirepass 5ecret"]).await.unwrap();
    let mut nats =
        NatsServer::start_with(&["authorization { user: 5ecret-user, password: 5ecret }"]).unwrap();
    let stores = [
        format!("redis://:5ecret@{}", redis.address()),
        format!("nats://5ecret-user:5ecret@{}", nats.address()),
    ];
    let bridge = format!("redis://:5ecret@{}?channels=news&both_ways=true", redis.address());
    let mut hubs = Vec::new();
    for store in &stores {
        let args = ["serve", "--listen", "127.0.0.1:0", "-v", "--store", store, "--bridge", &bridge];
        let mut hub = Hub::not_started(args).unwrap().with_environment("RUST_LOG", "debug");
        hub.start_again().await.unwrap();
        hub.printed("the bridge is listening").await.unwrap();
        hub.publish("news", "hello").await.unwrap();
        hubs.push(hub);
    }
    redis.kill().await.unwrap();
    nats.kill().unwrap();
    for hub in &mut hubs {
        while hub.request("GET /readyz", b"").await.unwrap().status == 200 {}
        hub.printed("the connection was lost").await.unwrap();
        for path in ["GET /readyz", "GET /metrics", "GET /", "POST /topics/news"] {
            let answer = hub.request(path, b"x").await.unwrap();
            assert!(!answer.text().contains(SECRET), "{path}: {}", answer.text());
        }
        let printed = hub.output().join("\n");
        assert!(!printed.contains(SECRET), "{printed}");
        hub.stop().await.unwrap();
    }
}
