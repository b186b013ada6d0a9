//! How many subscribers all hubs of a cluster have.

use std::time::Duration;

use tidings::{Hub, log::cluster::LocalCluster};
use tokio::time::sleep;

use crate::stage::{Listener, to};

async fn hub_in(cluster: &LocalCluster) -> Hub {
    Hub::builder().cluster(cluster.clone()).start().await.expect("memory is always there")
}

/// Longer than hubs take to say how many they have.
const NEXT_TURN: Duration = Duration::from_secs(6);

#[tokio::test(start_paused = true)]
async fn the_subscribers_of_all_hubs_are_counted_and_those_of_a_dead_one_no_more() {
    let cluster = LocalCluster::default();
    let (one, other) = (hub_in(&cluster).await, hub_in(&cluster).await);
    let alone = Hub::in_memory().await;
    let _first = Listener::open(&one, to(&one, &["chat"])).await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(Listener::open(&other, to(&other, &["chat"])).await);
    }
    sleep(NEXT_TURN).await;
    for hub in [&one, &other] {
        assert_eq!(hub.subscribers_in_cluster().await, Ok(4));
    }
    assert_eq!(alone.subscribers_in_cluster().await, Ok(0));
    others.pop();
    assert_eq!(other.subscribers_in_cluster().await, Ok(3), "here it is exact");
    sleep(NEXT_TURN).await;
    assert_eq!(one.subscribers_in_cluster().await, Ok(3));

    drop((others, other));
    assert_eq!(one.subscribers_in_cluster().await, Ok(3), "it may only be slow");
    sleep(Duration::from_secs(16)).await;
    assert_eq!(one.subscribers_in_cluster().await, Ok(1));
}
