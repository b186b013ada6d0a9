//! Connecting to a real nats-server: credentials, TLS, JetStream.
//!
//! Needs: nats-server.

mod support;

use std::time::Duration;

use tidings_log::{Batch, IdempotencyKey, Log, Position, cluster::Cluster};
use tidings_nats::{Nats, NatsAddress, NatsLog, NatsSettings};
use tidings_testkit::{NatsNodes, NatsServer};
use tidings_topic::{Filter, Grants, Matcher, NewEvent, Validator};

use support::{connect, eventually};

/// Connects, publishes and reads.
async fn check(url: &str) -> Result<(), String> {
    let address: NatsAddress = url.parse().map_err(|error: tidings_nats::InvalidUrl| error.to_string())?;
    let nats = Nats::connect(&address, NatsSettings::default()).await.map_err(|error| error.to_string())?;
    nats.cluster().await.map_err(|error| error.to_string())?;
    let log = nats.log().await.map_err(|error| error.to_string())?;
    append(&log, "checked").await?;
    let everything = Filter { matchers: vec![Matcher::Any], grants: Grants::all() };
    let page =
        log.read(Position::BEFORE_ALL, &everything, 1 << 20).await.map_err(|error| error.to_string())?;
    (page.entries.len() == 1).then_some(()).ok_or_else(|| format!("{} events", page.entries.len()))
}

/// With a key, so that it may be repeated.
async fn append(log: &NatsLog, data: &str) -> Result<(), String> {
    let event = Validator::default().event(NewEvent::new("a", data)).expect("a valid event");
    let batch = Batch { events: vec![event], key: IdempotencyKey::new(data) };
    log.append(batch).await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_the_password_is_refused() {
    let server = NatsServer::start_with(&["authorization { user: hub, password: \"se:cret\" }"]).unwrap();
    let address = server.address();
    for (login, is_let_in) in
        [("hub:se%3Acret@", true), ("", false), ("hub:wrong@", false), ("se%3Acret@", false)]
    {
        let checked = check(&format!("nats://{login}{address}")).await;
        assert_eq!(checked.is_ok(), is_let_in, "{login}: {checked:?}");
        assert!(!checked.err().unwrap_or_default().contains("cret"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_the_token_is_refused() {
    let server = NatsServer::start_with(&["authorization { token: \"t@ken\" }"]).unwrap();
    let address = server.address();
    for (login, is_let_in) in [("t%40ken@", true), ("", false), ("wrong@", false), ("t%40ken:@", false)] {
        let checked = check(&format!("nats://{login}{address}")).await;
        assert_eq!(checked.is_ok(), is_let_in, "{login}: {checked:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_requires_trusted_certificates_on_both_sides() {
    let server = NatsServer::start_tls().unwrap();
    let (address, folder) = (server.address(), server.folder());
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let (cert, key) = (cert.display(), key.display());
    for (url, is_reached) in [
        (format!("tls://{address}?ca={cert}&cert={cert}&cert_key={key}"), true),
        (format!("tls://{address}?cert={cert}&cert_key={key}"), false),
        (format!("tls://{address}?ca={cert}"), false),
        (format!("tls://{address}?ca={cert}.missing&cert={cert}&cert_key={key}"), false),
        (format!("nats://{address}"), false),
        (format!("tls://localhost:{}?ca={cert}&cert={cert}&cert_key={key}", address.port()), false),
    ] {
        let checked = check(&url).await;
        assert_eq!(checked.is_ok(), is_reached, "{url}: {checked:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tls_url_refuses_a_server_without_tls() {
    let server = NatsServer::start().unwrap();
    check(&format!("tls://{}", server.address())).await.expect_err("nothing is sent unencrypted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_jetstream_is_refused_with_a_reason() {
    let mut server = NatsServer::start_without_jetstream().unwrap();
    let refused = check(&server.url()).await.unwrap_err();
    assert!(refused.contains("JetStream is not enabled on this NATS server: start it with -js"), "{refused}");
    server.stop().unwrap();
    server.set_jetstream(true);
    server.start_again().unwrap();
    check(&server.url()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_without_jetstream_is_refused_with_a_reason() {
    let accounts = "accounts { APP: { users: [{ user: hub, password: pw }] }, JS: { jetstream: enabled } }";
    let server = NatsServer::start_with(&[accounts]).unwrap();
    let refused = check(&format!("nats://hub:pw@{}", server.address())).await.unwrap_err();
    assert!(refused.contains("JetStream is not enabled for this account"), "{refused}");
}

/// The log and the cluster continue without the server that led them, if three keep them. One
/// replica is refused: it would not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_has_as_many_replicas_as_its_address_asks_for() {
    let mut nodes = NatsNodes::start().unwrap();
    let address = |log: &str| format!("{}/{log}", nodes.url()).parse::<NatsAddress>().unwrap();
    let (alone, kept) = (address("alone"), address("kept?replicas=3"));
    connect(&alone, NatsSettings::default()).await.log().await.unwrap();
    let wanted = connect(&address("alone?replicas=3"), NatsSettings::default()).await.log().await;
    assert!(wanted.unwrap_err().to_string().contains("alone has 1 replica, and the address asks for 3"));

    let nats = connect(&kept, NatsSettings::default()).await;
    let (log, cluster) = (nats.log().await.unwrap(), nats.cluster().await.unwrap());
    append(&log, "1").await.unwrap();
    cluster.set("key", b"value", Duration::from_secs(60)).await.unwrap();
    for stream in ["kept", "KV_kept-hub", "KV_kept-cluster"] {
        nodes.is_whole(stream).unwrap();
    }
    let leader = nodes.leader_of("kept").unwrap();
    nodes.node(leader).kill().unwrap();
    eventually("publishing continues", async || append(&log, "2").await.is_ok()).await;
    eventually("the cluster continues", async || cluster.list("").await.is_ok_and(|keys| keys.len() == 1))
        .await;
    let everything = Filter { matchers: vec![Matcher::Any], grants: Grants::all() };
    eventually("the log can be read", async || {
        let page = log.read(Position::BEFORE_ALL, &everything, 1 << 20).await;
        page.is_ok_and(|page| page.entries.iter().map(|entry| entry.event.data.as_str()).eq(["1", "2"]))
    })
    .await;
}
