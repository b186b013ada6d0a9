//! Values that the hubs of a cluster agree on.

use std::time::Duration;

use tidings::{Hub, log::cluster::LocalCluster};
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn an_agreed_value_holds_while_one_hub_lives() {
    let cluster = LocalCluster::default();
    let (one, other) = (hub_in(&cluster).await, hub_in(&cluster).await);
    assert_eq!(one.agree("key", b"first").await, Ok(b"first".to_vec()));
    assert_eq!(other.agree("key", b"second").await, Ok(b"first".to_vec()));
    drop(one);
    sleep(Duration::from_secs(100 * 60 * 60)).await;
    let third = hub_in(&cluster).await;
    assert_eq!(third.agree("key", b"third").await, Ok(b"first".to_vec()));
    drop((other, third));
    sleep(Duration::from_secs(25 * 60 * 60)).await;
    assert_eq!(hub_in(&cluster).await.agree("key", b"last").await, Ok(b"last".to_vec()));
}

async fn hub_in(cluster: &LocalCluster) -> Hub {
    Hub::builder().cluster(cluster.clone()).start().await.expect("the memory log is always available")
}
