//! Users with JWTs and with nkeys on a real nats-server.
//!
//! Needs: nats-server.

mod support;

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use nkeys::KeyPair;
use tidings_log::{Log, cluster::Cluster};
use tidings_nats::{Nats, NatsAddress, NatsSettings};
use tidings_testkit::{NatsOperator, NatsServer};

use support::{connect, eventually};

const HOUR: Duration = Duration::from_secs(3_600);

fn address(server: &NatsServer, parameter: &str, file: &Path) -> NatsAddress {
    format!("{}?{parameter}={}", server.url(), file.display()).parse().expect("an address")
}

/// Opens a log and a cluster, and writes.
async fn check(address: &NatsAddress) -> Result<(), String> {
    let nats = Nats::connect(address, NatsSettings::default()).await.map_err(|error| error.to_string())?;
    let log = nats.log().await.map_err(|error| error.to_string())?;
    log.health().await.map_err(|error| error.to_string())?;
    let cluster = nats.cluster().await.map_err(|error| error.to_string())?;
    cluster.set("key", b"value", HOUR).await.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_a_jwt_of_the_account_is_admitted_and_others_are_named() {
    let operator = NatsOperator::new();
    let server = NatsServer::start_with(&[&operator.options().unwrap()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.creds");
    let at = address(&server, "creds", &file);
    fs::write(&file, operator.creds(Some(SystemTime::now() + HOUR)).unwrap()).unwrap();
    check(&at).await.unwrap();
    for (creds, problem) in [
        (NatsOperator::new().creds(None).unwrap(), "does not admit the user in"),
        (operator.creds(Some(SystemTime::now() - HOUR)).unwrap(), "who has expired"),
    ] {
        let seed = creds.lines().find(|line| line.starts_with("SU")).unwrap();
        fs::write(&file, &creds).unwrap();
        let refused = check(&at).await.unwrap_err();
        assert!(refused.contains(problem) && refused.contains(file.to_str().unwrap()), "{refused}");
        assert!(!refused.contains(seed) && !refused.contains("eyJ") && !refused.contains('\n'), "{refused}");
    }
    let nobody = check(&server.url().parse().unwrap()).await.unwrap_err();
    assert!(nobody.contains("authorization violation"), "{nobody}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_nkey_user_is_admitted_and_others_are_named() {
    let (hub, stranger) = (KeyPair::new_user(), KeyPair::new_user());
    let users = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", hub.public_key());
    let server = NatsServer::start_with(&[&users]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.nk");
    let at = address(&server, "nkey", &file);
    fs::write(&file, hub.seed().unwrap()).unwrap();
    check(&at).await.unwrap();
    fs::write(&file, stranger.seed().unwrap()).unwrap();
    let refused = check(&at).await.unwrap_err();
    assert!(refused.contains(&format!("does not admit the user in {}", file.display())), "{refused}");
}

/// A JWT expires, and a key is replaced, while hubs run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_file_is_used_for_the_next_connection() {
    let users = |key: &KeyPair| format!("authorization {{ users: [ {{ nkey: {} }} ] }}", key.public_key());
    let (old, new) = (KeyPair::new_user(), KeyPair::new_user());
    let mut server = NatsServer::start_with(&[&users(&old)]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.nk");
    fs::write(&file, old.seed().unwrap()).unwrap();
    let log = connect(&address(&server, "nkey", &file), NatsSettings::default()).await.log().await.unwrap();
    log.health().await.unwrap();
    server.stop().unwrap();
    fs::write(&file, new.seed().unwrap()).unwrap();
    *server.options() = vec![users(&new)];
    server.start_again().unwrap();
    eventually("the hub reconnects with the new key", async || log.health().await.is_ok()).await;
}
