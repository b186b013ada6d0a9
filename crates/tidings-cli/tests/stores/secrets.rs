//! No URL of a store, a bridge or a hub shows a secret, whatever prints it.

#![cfg(unix)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use tidings_testkit::{Hub, NatsOperator, NatsServer, RedisServer};

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
    for hub in [
        "http://u:5ecret@127.0.0.1:1",
        "http://:5ecret@127.0.0.1:1",
        "http://127.0.0.1:1?token=5ecret",
        "ftp://u:5ecret@h",
    ] {
        assert_hidden(&["publish", "--url", hub, "chat", "hello"], &[]);
        assert_hidden(&["serve", "--check", "--public-url", hub], &[]);
        assert_hidden(&["serve", "--check", "--allow-origin", hub], &[]);
        assert_hidden(&["bench", "--url", hub, "ceiling"], &[]);
        assert_hidden(&["health", "--url", hub], &[]);
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

#[test]
fn a_seed_in_place_of_its_file_is_refused_and_not_shown() {
    let creds = NatsOperator::new().creds(None).unwrap();
    let seed = creds.lines().find(|line| line.starts_with("SU")).unwrap();
    for parameter in ["nkey", "creds"] {
        let store = format!("nats://127.0.0.1:1?{parameter}={seed}");
        for args in [["serve", "--store", &store], ["serve", &store, "--no-auth"]] {
            let output = Command::new(env!("CARGO_BIN_EXE_tidings")).args(args).output().unwrap();
            let printed = String::from_utf8_lossy(&output.stderr);
            assert!(
                !output.status.success() && !printed.is_empty() && !printed.contains(&seed[..8]),
                "{printed}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_hub_with_nats_credentials_shows_the_seed_or_the_jwt() {
    let operator = NatsOperator::new();
    let mut server = NatsServer::start_with(&[&operator.options().unwrap()]).unwrap();
    let file = server.folder().join("hub.creds");
    let creds = operator.creds(None).unwrap();
    let secrets: Vec<_> = creds.lines().filter(|line| line.len() > 50).collect();
    assert_eq!(secrets.len(), 2, "the JWT and the seed");
    fs::write(&file, &creds).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let store = format!("{}?creds={}", server.url(), file.display());
    let hub = Hub::not_started(["serve", "--listen", "127.0.0.1:0", "--store", &store]).unwrap();
    let mut hub = hub.with_environment("RUST_LOG", "debug,async_nats=trace");
    hub.start_again().await.unwrap();
    let warned = hub.printed("other users of this machine can read this file").await.unwrap();
    assert!(warned.contains(file.to_str().unwrap()), "{warned}");
    assert_eq!(hub.publish("news", "hello").await.unwrap().status, 200);
    server.kill().unwrap();
    fs::write(&file, secrets[1]).unwrap();
    server.start_again().unwrap();
    let problem = hub.printed("has no JWT").await.unwrap();
    assert!(
        problem.contains("cannot connect to NATS") && problem.contains(file.to_str().unwrap()),
        "{problem}"
    );
    fs::write(&file, &creds).unwrap();
    while hub.request("GET /readyz", b"").await.unwrap().status != 200 {}
    let printed = hub.output().join("\n");
    assert!(secrets.iter().all(|secret| !printed.contains(&secret[..30])), "{printed}");
    hub.stop().await.unwrap();
}
