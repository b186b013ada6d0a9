//! `tidings serve --store DIR` is killed again and again while many publish and many listen: nothing that was acknowledged is lost, nothing comes twice or
//! out of order, and no gap is reported, because there is none.
//!
//! `TIDINGS_KILLS=300 TIDINGS_KEYED=100000` makes it long.

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
async fn nothing_acknowledged_is_lost_when_the_hub_is_killed_again_and_again() {
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
