//! `tidings serve --store DIR` is killed repeatedly while many clients publish and subscribe: no
//! acknowledged event is lost, duplicated or reordered, and no gap is reported.
//!
//! `TIDINGS_KILLS=300 TIDINGS_KEYED=100000` runs it longer.

#![cfg(unix)]

use std::env;

use tidings_testkit::{
    Hub,
    failover::{Losses, run_failover},
};

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_kills_lose_no_acknowledged_event() {
    let (kills, keyed_min) = (number("TIDINGS_KILLS", 20), number("TIDINGS_KEYED", 0));
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("log");
    let mut hub = Hub::serve(&["--store", store.to_str().unwrap()]).await.unwrap();
    let address = [hub.address()];
    let outcome = run_failover(&address, kills + 1, Losses::None, async |round, load| {
        if round == kills {
            return load.has_keyed(keyed_min).await;
        }
        hub.kill().await?;
        hub.start_again().await
    });
    println!("{kills} kills: {:?}", outcome.await.unwrap());
    hub.stop().await.unwrap();
}
