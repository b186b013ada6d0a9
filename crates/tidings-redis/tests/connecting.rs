//! Connecting to a real Redis server: credentials, TLS, sockets.
//!
//! Needs: redis-server.

mod support;

use std::time::Duration;

use tidings_log::{Batch, IdempotencyKey, Log, MemoryLimits, TailItem, cluster::Cluster};
use tidings_redis::{Connector, RedisCluster, RedisLog, RedisUrl};
use tidings_testkit::RedisServer;

fn connector(url: &str) -> Connector {
    Connector::new(url.parse::<RedisUrl>().expect("a URL"), "{tidings}", "test")
}

#[tokio::test]
async fn a_server_is_reached_while_it_runs() {
    let mut server = RedisServer::start().await.unwrap();
    let connector = connector(&server.url());
    connector.check().await.unwrap();
    server.stop().await.unwrap();
    assert!(connector.check().await.unwrap_err().to_string().contains(&server.address().to_string()));
    server.start_again().await.unwrap();
    connector.check().await.unwrap();
}

#[tokio::test]
async fn a_client_without_the_password_is_refused() {
    let server =
        RedisServer::start_with(&["requirepass secret", "user me on >mine ~* &* +@all"]).await.unwrap();
    let address = server.address();
    for (login, is_let_in) in [("", false), (":secret@", true), ("me:mine@", true), ("me:secret@", false)] {
        let checked = connector(&format!("redis://{login}{address}/1")).check().await;
        assert_eq!(checked.is_ok(), is_let_in, "{login}: {checked:?}");
    }
}

#[tokio::test]
async fn a_server_keeps_what_it_has_on_disk_and_nothing_else() {
    for (is_durable, left) in [(true, "1"), (false, "")] {
        let started =
            if is_durable { RedisServer::start_durable().await } else { RedisServer::start().await };
        let mut server = started.unwrap();
        server.command(&["SET", "a", "1"]).await.unwrap();
        server.kill().await.unwrap();
        server.start_again().await.unwrap();
        assert_eq!(server.command(&["GET", "a"]).await.unwrap(), left);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_requires_trusted_certificates_on_both_sides() {
    let server = RedisServer::start_tls().await.unwrap();
    let (address, folder) = (server.address(), server.folder());
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let (cert, key) = (cert.display(), key.display());
    let trusted = format!("rediss://{address}?ca={cert}&cert={cert}&cert_key={key}");
    // A busy machine may need longer for the first connection than the connect timeout.
    support::until("it is reached", async || connector(&trusted).check().await.is_ok()).await;
    for url in [
        format!("rediss://{address}?cert={cert}&cert_key={key}"),
        format!("rediss://{address}?ca={cert}"),
        format!("redis://{address}"),
        format!("rediss://localhost:{}?ca={cert}&cert={cert}&cert_key={key}", server.port()),
    ] {
        let checked = connector(&url).check().await;
        assert!(checked.is_err(), "{url}");
    }
    let log = support::open(&trusted).await;
    support::append(&log, "secret").await;
    assert_eq!(support::texts(&log).await, ["secret"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_works_through_a_unix_socket() {
    let socket = tempfile::tempdir().unwrap();
    let path = socket.path().join("redis one.sock");
    let lines = [&*format!("unixsocket \"{}\"", path.display()), "requirepass pass"];
    let server = RedisServer::start_with(&lines).await.unwrap();
    let path = path.display().to_string().replace(' ', "%20");
    for url in [format!("unix://:pass@{path}?db=1"), format!("redis+unix://{path}?pass=pass&db=1")] {
        connector(&url).check().await.unwrap();
    }
    assert!(connector(&format!("unix://{path}")).check().await.is_err());
    let url = format!("redis+unix://{path}?db=1&pass=pass");
    let log = support::open(&url).await;
    support::append(&log, "by socket").await;
    assert_eq!(support::texts(&log).await, ["by socket"]);
    let settings = support::settings(&url, MemoryLimits::default());
    let cluster = RedisCluster::open(&settings).await.unwrap();
    let mut messages = cluster.listen("a").await.unwrap();
    cluster.send("a", b"1").await.unwrap();
    assert_eq!(messages.next().await, Ok(b"1".to_vec()));
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_has_a_name() {
    let server = RedisServer::start().await.unwrap();
    let settings = support::settings(&server.url(), MemoryLimits::default());
    let _log = RedisLog::open(settings.clone()).await.unwrap();
    let _cluster = RedisCluster::open(&settings).await.unwrap();
    let clients = server.command(&["CLIENT", "LIST"]).await.unwrap();
    let names: Vec<_> =
        clients.lines().filter_map(|line| line.split(' ').find(|word| word.starts_with("name="))).collect();
    for (name, count) in [("name=tidings:log", 2), ("name=tidings:cluster", 2), ("name=", 1)] {
        assert_eq!(names.iter().filter(|one| **one == name).count(), count, "{name} {clients}");
    }
}

/// A Redis that evicts keys when its memory is full loses events that it acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_evicts_keys_is_refused_and_the_setting_is_named() {
    for forbidden in [&[][..], &["rename-command CONFIG \"\""]] {
        let server =
            RedisServer::start_with(&[&["maxmemory-policy volatile-lru"], forbidden].concat()).await.unwrap();
        let refused = RedisLog::open(support::settings(&server.url(), MemoryLimits::default())).await;
        let refused = refused.unwrap_err().to_string();
        for part in ["maxmemory-policy is volatile-lru", "set maxmemory-policy to noeviction"] {
            assert!(refused.contains(part), "{refused}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_evicts_keys_is_unhealthy_until_it_stops() {
    let server = RedisServer::start().await.unwrap();
    let log = support::open(&server.url()).await;
    log.health().await.unwrap();
    let set = async |policy| server.command(&["CONFIG", "SET", "maxmemory-policy", policy]).await.unwrap();
    set("allkeys-lru").await;
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]).await.unwrap();
    let is_reported =
        async || log.health().await.is_err_and(|error| error.to_string().contains("noeviction"));
    support::until("the new connection is not trusted", is_reported).await;
    set("noeviction").await;
    support::until("it is trusted again", async || log.health().await.is_ok()).await;
}

/// The permissions that `docs/scaling-out.md` documents are enough, and give no access to other
/// keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_documented_permissions_can_do_everything() {
    let documented = include_str!("../../../docs/scaling-out.md");
    let permissions = documented.split('`').find(|text| text.starts_with("~{tidings}:* ")).expect("the line");
    let server = RedisServer::start_with(&[&format!("user hub on >mine {permissions}")]).await.unwrap();
    let url = format!("redis://hub:mine@{}", server.address());
    let settings = support::settings(&url, MemoryLimits { count_max: Some(1), ..MemoryLimits::default() });
    let log = RedisLog::open(settings.clone()).await.unwrap();
    let (_, mut tail) = log.tail().await.unwrap();
    let event = || support::event("a", "1");
    for count in 0..2 {
        let key = IdempotencyKey::new(&format!("key-{count}"));
        log.append(Batch { events: vec![event()], key }).await.unwrap();
    }
    assert!(!matches!(support::next(&mut tail).await, TailItem::NewEpoch(_)));
    assert_eq!(log.delete(&event().topics[0], &tidings_log::Grants::all()).await.unwrap().count, 1);
    assert_eq!(support::texts(&log).await, [""; 0]);

    let cluster = RedisCluster::open(&settings).await.unwrap();
    let time = Duration::from_secs(60);
    let lease = cluster.acquire("a", time).await.unwrap().unwrap();
    assert!(cluster.renew(&lease, time).await.unwrap());
    cluster.release(&lease).await.unwrap();
    cluster.set("a", b"1", time).await.unwrap();
    assert_eq!(cluster.list("").await.unwrap().len(), 1);
    cluster.remove("a").await.unwrap();
    let mut messages = cluster.listen("a").await.unwrap();
    cluster.send("a", b"1").await.unwrap();
    assert_eq!(messages.next().await, Ok(b"1".to_vec()));
    assert!(RedisLog::open(support::settings(&format!("{url}?name=others"), settings.limits)).await.is_err());
}
