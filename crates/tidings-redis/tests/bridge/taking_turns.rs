//! Several hubs with one log and one cluster, one of which bridges.

use std::time::Duration;

use tidings::{Hub, MemoryLimits, MemoryLog, log::cluster::LocalCluster};
use tidings_redis::bridge::BridgeSettings;
use tidings_testkit::RedisServer;
use tokio::time::Instant;

use crate::stage::{Application, Bridged, settings};

/// Hubs that share everything.
struct Together {
    log: MemoryLog,
    cluster: LocalCluster,
    settings: BridgeSettings,
}

impl Together {
    fn new(server: &RedisServer, parameters: &str) -> Self {
        let mut settings = settings(server, parameters);
        settings.lease_time = Duration::from_secs(2);
        Self { log: MemoryLog::new(MemoryLimits::default()), cluster: LocalCluster::default(), settings }
    }

    async fn hub(&self) -> Bridged {
        let builder = Hub::builder().log(self.log.clone()).cluster(self.cluster.clone());
        Bridged::of(builder.start().await.unwrap(), self.settings.clone()).await
    }
}

#[tokio::test]
async fn exactly_one_of_several_hubs_bridges() {
    let server = RedisServer::start().await.unwrap();
    let together = Together::new(&server, "channels=chat&both_ways=true");
    let mut first = together.hub().await;
    first.until("the bridge to listen", |figures| figures.is_listening).await;
    let others = [together.hub().await, together.hub().await];
    for other in &others {
        other.until("the others to be on standby", |_| other.bridge.trouble().is_none()).await;
        assert!(!other.bridge.figures().is_listening);
    }
    let mut application = Application::start(&server, &["chat"]).await;
    assert_eq!(application.publish("chat", "from outside").await, 2, "itself and one hub");
    for (number, hub) in [&first, &others[0], &others[1]].into_iter().enumerate() {
        hub.publish("chat", &format!("from hub {number}")).await;
    }
    let lines = ["from outside", "from hub 0", "from hub 1", "from hub 2"];
    assert_eq!(application.messages(4).await, lines);
    let mut inside = first.data(4).await;
    inside.sort();
    assert_eq!(inside, ["from hub 0", "from hub 1", "from hub 2", "from outside"]);
}

#[tokio::test]
async fn another_hub_takes_over_from_a_dead_one_without_duplicates() {
    let server = RedisServer::start().await.unwrap();
    let together = Together::new(&server, "channels=chat&both_ways=true");
    let mut application = Application::start(&server, &["chat"]).await;
    let mut bridging = together.hub().await;
    bridging.until("the bridge to listen", |figures| figures.is_listening).await;
    let mut reader = together.hub().await;
    for round in 0..4 {
        let next = together.hub().await;
        assert_eq!(application.publish("chat", format!("{round} from outside")).await, 2);
        assert_eq!(reader.data(1).await, [format!("{round} from outside")]);
        // A bridge that is dropped releases nothing, as when its process is killed.
        drop(bridging);
        let died = Instant::now();
        let taken_over = async {
            loop {
                for hub in [&reader, &next] {
                    if hub.bridge.figures().is_listening {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(tidings_testkit::PATIENCE, taken_over).await.expect("another to take over");
        assert!(died.elapsed() >= Duration::from_millis(500), "the lease was not waited for");
        if reader.bridge.figures().is_listening {
            // The reader of the log continues under another name.
            let fresh = together.hub().await;
            bridging = std::mem::replace(&mut reader, fresh);
            drop(next);
        } else {
            bridging = next;
        }
        bridging.publish("chat", &format!("{round} from inside")).await;
        assert_eq!(reader.data(1).await, [format!("{round} from inside")]);
        let lines = [format!("{round} from outside"), format!("{round} from inside")];
        assert_eq!(application.messages(2).await, lines, "what came in did not go out");
    }
}

#[tokio::test]
async fn a_stopped_bridge_releases_its_lease_at_once() {
    let server = RedisServer::start().await.unwrap();
    let mut together = Together::new(&server, "channels=chat");
    // No test would wait for that.
    together.settings.lease_time = Duration::from_secs(3_600);
    let first = together.hub().await;
    first.until("the bridge to listen", |figures| figures.is_listening).await;
    let mut second = together.hub().await;
    first.bridge.stop().await;
    second.until("the other to listen", |figures| figures.is_listening).await;
    Application::start(&server, &[]).await.publish("chat", "hello").await;
    assert_eq!(second.data(1).await, ["hello"]);
}

#[tokio::test]
async fn bridges_of_different_names_do_not_wait_for_each_other() {
    let server = RedisServer::start().await.unwrap();
    let together = Together::new(&server, "channels=chat");
    let first = together.hub().await;
    first.until("the bridge to listen", |figures| figures.is_listening).await;
    let other = Bridged::of(first.hub.clone(), settings(&server, "channels=chat&name=another")).await;
    other.until("the other to listen", |figures| figures.is_listening).await;
}
