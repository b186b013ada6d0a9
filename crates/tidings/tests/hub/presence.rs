//! Who subscribes at the hubs of a cluster, and how many.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use tidings::{
    ConnectionId, Hub, Presence,
    log::cluster::{Change, Cluster, ClusterError, Lease, LocalCluster, Messages, Watch},
};
use tokio::{sync::watch, time::sleep};

use crate::stage::{Listener, to};

/// Within this time it is known everywhere who came and went.
const SOON: Duration = Duration::from_secs(1);
/// Longer than hubs take to say how many they have.
const NEXT_TURN: Duration = Duration::from_secs(6);
/// By then it is known that a hub is dead.
const LEASE: Duration = Duration::from_secs(16);

/// A hub that tells who comes and goes.
struct Telling {
    hub: Hub,
    reported: Arc<Mutex<Vec<Presence>>>,
    listeners: HashMap<String, Listener>,
}

impl Telling {
    async fn start(cluster: impl Cluster) -> Self {
        let reported = Arc::<Mutex<Vec<Presence>>>::default();
        let news = Arc::clone(&reported);
        let hub = Hub::builder()
            .cluster(cluster)
            .on_presence(move |presence| news.lock().expect("nobody panicked").push(presence.clone()))
            .start()
            .await
            .expect("memory is always there");
        Self { hub, reported, listeners: HashMap::new() }
    }

    async fn come(&mut self, name: &str) {
        let listener = Listener::open(&self.hub, to(&self.hub, &["chat"]).label(name)).await;
        self.listeners.insert(name.to_owned(), listener);
    }

    fn go(&mut self, name: &str) {
        self.listeners.remove(name).expect("it came");
    }

    /// What the hook received since it was last looked at: `+ann` for one who came, `-ann` for one who went, `(…)` for those of other hubs.
    fn reported(&self) -> Vec<String> {
        let reported = std::mem::take(&mut *self.reported.lock().expect("nobody panicked"));
        let spelled = reported.iter().map(|presence| {
            assert_eq!(presence.matchers.iter().map(|matcher| &*matcher.text).collect::<Vec<_>>(), ["chat"]);
            let sign = if presence.here { '+' } else { '-' };
            let name = presence.label.as_deref().expect("everybody has a name");
            if presence.is_local { format!("{sign}{name}") } else { format!("({sign}{name})") }
        });
        spelled.collect()
    }

    /// The names of all who are here.
    fn present(&self) -> Vec<String> {
        let present = self.hub.presence_list();
        let names = present.iter().map(|presence| {
            assert!(presence.here);
            presence.label.as_deref().expect("everybody has a name").to_owned()
        });
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

#[tokio::test(start_paused = true)]
async fn everybody_receives_who_comes_and_goes_at_whatever_hub() {
    let cluster = LocalCluster::default();
    let mut one = Telling::start(cluster.clone()).await;
    one.come("ann").await;
    assert_eq!(one.reported(), ["+ann"], "at once");
    sleep(SOON).await;

    let mut other = Telling::start(cluster).await;
    sleep(SOON).await;
    assert_eq!(other.reported(), ["(+ann)"], "who was here before");
    other.come("bob").await;
    sleep(SOON).await;
    assert_eq!((one.reported(), other.reported()), (vec!["(+bob)".to_owned()], vec!["+bob".to_owned()]));
    assert_eq!((one.present(), other.present()), (vec!["ann".into(), "bob".into()], one.present()));
    let connection =
        |hub: &Hub| hub.presence_list().iter().map(|presence| presence.connection).collect::<HashSet<_>>();
    assert_eq!(connection(&one.hub), connection(&other.hub));

    one.go("ann");
    assert_eq!(one.reported(), ["-ann"]);
    sleep(SOON).await;
    assert_eq!(other.reported(), ["(-ann)"]);
    assert_eq!((one.present(), other.present()), (vec!["bob".into()], vec!["bob".into()]));
    sleep(Duration::from_secs(600)).await;
    assert_eq!((one.reported(), other.reported()), (vec![], vec![]), "there is nothing new");
}

#[tokio::test(start_paused = true)]
async fn the_subscribers_of_a_hub_that_dies_are_gone_within_the_lease() {
    let cluster = LocalCluster::default();
    let mut one = Telling::start(cluster.clone()).await;
    let mut other = Telling::start(cluster.clone()).await;
    for number in 0..3 {
        one.come("ann").await;
        other.come("bob").await;
        sleep(SOON).await;
        assert_eq!((one.reported().len(), other.reported().len()), (2, 2), "{number}");
        // Nobody says good-bye.
        let dead = std::mem::replace(&mut other, Telling::start(cluster.clone()).await);
        drop((dead.listeners, dead.hub));
        sleep(LEASE / 2).await;
        assert_eq!(one.reported(), [""; 0], "it may only be slow");
        sleep(LEASE / 2).await;
        assert_eq!((one.reported(), one.present()), (vec!["(-bob)".to_owned()], vec!["ann".to_owned()]));
        one.go("ann");
        sleep(SOON).await;
        one.reported();
        other.reported();
    }
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_is_closed_takes_its_subscribers_along_at_once() {
    let cluster = LocalCluster::default();
    let (mut one, mut other) = (Telling::start(cluster.clone()).await, Telling::start(cluster.clone()).await);
    one.come("ann").await;
    other.come("bob").await;
    sleep(SOON).await;
    one.reported();
    other.hub.close();
    other.hub.closed().await;
    assert_eq!(other.listeners.len(), 1, "however long its streams take to end");
    sleep(SOON).await;
    assert_eq!(one.reported(), ["(-bob)"]);
    let left = cluster.list("presence/").await.expect("it can be reached");
    assert_eq!(left.len(), 2, "the mark and the page of the other one: {left:?}");

    one.hub.close_over(Duration::from_secs(30));
    sleep(Duration::from_secs(29)).await;
    assert_eq!(cluster.list("presence/").await.expect("it can be reached").len(), 2, "it is not over");
    one.hub.closed().await;
    assert_eq!(cluster.list("presence/").await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn of_very_many_each_is_reported_once() {
    const MEMBERS: usize = 500;
    let cluster = LocalCluster::default();
    let (mut one, other) = (Telling::start(cluster.clone()).await, Telling::start(cluster).await);
    let names: Vec<_> = (0..MEMBERS).map(|number| number.to_string()).collect();
    for name in &names {
        one.come(name).await;
    }
    sleep(SOON).await;
    assert_eq!(other.hub.presence_list().len(), MEMBERS);
    for name in names.iter().step_by(3) {
        one.go(name);
    }
    for name in names.iter().step_by(6) {
        one.come(name).await;
    }
    sleep(SOON).await;
    assert_eq!(other.present(), one.present());
    let mut here = HashMap::<ConnectionId, bool>::new();
    for reported in other.reported.lock().expect("nobody panicked").iter() {
        let before = here.insert(reported.connection, reported.here);
        assert_eq!(before, (!reported.here).then_some(true), "{reported:?}");
    }
    assert_eq!(here.len(), MEMBERS + names.iter().step_by(6).count());
    assert_eq!(here.values().filter(|here| **here).count(), one.listeners.len());
}

#[tokio::test(start_paused = true)]
async fn those_who_is_here_for_a_moment_is_reported_here_and_elsewhere_never_or_twice() {
    let cluster = LocalCluster::default();
    let (mut one, other) = (Telling::start(cluster.clone()).await, Telling::start(cluster).await);
    sleep(SOON).await;
    for pause in [0, 1, 50, 100, 250, 500] {
        for _ in 0..10 {
            one.come("ann").await;
            sleep(Duration::from_millis(pause)).await;
            one.go("ann");
        }
        sleep(SOON).await;
        assert_eq!(one.reported(), ["+ann", "-ann"].repeat(10));
        let reported = other.reported();
        assert_eq!(reported, ["(+ann)", "(-ann)"].repeat(reported.len() / 2), "{pause}");
        assert_eq!(other.present(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_cluster_is_away_nothing_is_reported_and_afterwards_the_difference() {
    for away_secs in [1, 8, 12, 20, 60, 600] {
        let cluster = Shaky::default();
        let (mut one, mut other) =
            (Telling::start(cluster.clone()).await, Telling::start(cluster.clone()).await);
        one.come("ann").await;
        other.come("bob").await;
        sleep(NEXT_TURN).await;
        one.reported();
        other.reported();
        cluster.is_away.send_replace(true);
        other.go("bob");
        other.come("cid").await;
        sleep(Duration::from_secs(away_secs)).await;
        assert_eq!(
            (one.reported(), other.reported()),
            (vec![], vec!["-bob".into(), "+cid".into()]),
            "{away_secs} s"
        );
        cluster.is_away.send_replace(false);
        sleep(LEASE * 2).await;
        assert_eq!(
            (one.reported(), other.reported()),
            (vec!["(-bob)".into(), "(+cid)".into()], vec![]),
            "{away_secs} s"
        );
        assert_eq!((one.present(), other.present()), (vec!["ann".into(), "cid".into()], one.present()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_dies_while_the_cluster_is_away_is_found_dead_afterwards() {
    let cluster = Shaky::default();
    let (one, mut other) = (Telling::start(cluster.clone()).await, Telling::start(cluster.clone()).await);
    other.come("bob").await;
    sleep(SOON).await;
    assert_eq!(one.reported(), ["(+bob)"]);
    cluster.is_away.send_replace(true);
    drop((other.listeners, other.hub));
    sleep(Duration::from_secs(60)).await;
    assert_eq!((one.reported(), one.present()), (vec![], vec!["bob".into()]));
    cluster.is_away.send_replace(false);
    sleep(LEASE + RETRY).await;
    assert_eq!((one.reported(), one.present()), (vec!["(-bob)".to_owned()], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_forgets_everything_is_reported_again_and_nobody_goes() {
    let cluster = Shaky::default();
    let (mut one, mut other) = (Telling::start(cluster.clone()).await, Telling::start(cluster.clone()).await);
    one.come("ann").await;
    other.come("bob").await;
    sleep(SOON).await;
    one.reported();
    other.reported();
    for (key, _) in cluster.local.list("").await.expect("it can be reached") {
        cluster.local.remove(&key).await.expect("it can be reached");
    }
    sleep(SOON).await;
    assert_eq!(cluster.local.list("").await.expect("it can be reached").len(), 4, "at once");
    sleep(LEASE * 2).await;
    assert_eq!((one.reported(), other.reported()), (vec![], vec![]));
    other.go("bob");
    sleep(SOON).await;
    assert_eq!(one.reported(), ["(-bob)"]);
}

#[tokio::test(start_paused = true)]
async fn what_it_costs_that_others_know_is_bounded() {
    const MEMBERS: usize = 15_000;
    let cluster = Shaky::default();
    let written = || cluster.written.swap(0, Relaxed);
    let mut one = Telling::start(cluster.clone()).await;
    sleep(SOON).await;
    written();
    sleep(Duration::from_secs(100)).await;
    assert!(written() < 100 * 20, "a hub that has nobody");
    for number in 0..MEMBERS {
        one.come(&format!("{number:010}")).await;
    }
    sleep(SOON).await;
    let all = cluster.local.list("presence/page/").await.expect("it can be reached");
    let all: usize = all.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert!((MEMBERS * 35..MEMBERS * 60).contains(&all), "{all} bytes");
    let came = written();
    assert!(came <= 2 * all, "{came} bytes while all of them came");
    sleep(Duration::from_secs(450)).await;
    let rest = written() / 450;
    assert!((all / 50..all / 38).contains(&rest), "{rest} bytes a second while nothing happens");
    sleep(Duration::from_secs(1)).await;
    one.go("0000007777");
    sleep(SOON).await;
    let one_page = written();
    assert!((1_000..4_000).contains(&one_page), "{one_page} bytes because one went");
    println!(
        "{MEMBERS} subscribers: {all} bytes, {came} while they came, {rest} a second at rest, {one_page} for one"
    );
}

#[tokio::test(start_paused = true)]
async fn where_nobody_asks_only_the_number_is_shown() {
    let cluster = LocalCluster::default();
    let quiet = hub_in(&cluster).await;
    let curious = Telling::start(cluster.clone()).await;
    let _listener = Listener::open(&quiet, to(&quiet, &["chat"]).label("ann")).await;
    sleep(NEXT_TURN).await;
    assert_eq!(cluster.list("presence/page/").await, Ok(vec![]));
    assert_eq!((quiet.presence_list(), curious.hub.presence_list()), (vec![], vec![]));
    assert_eq!(curious.hub.subscribers_in_cluster().await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_hub_alone_needs_no_cluster_to_know_who_is_here() {
    let hub = Hub::builder().on_presence(|_| {}).start().await.expect("memory is always there");
    let listener = Listener::open(&hub, to(&hub, &["chat"]).label("ann")).await;
    sleep(NEXT_TURN).await;
    assert_eq!(hub.presence_list().len(), 1);
    assert_eq!(hub.cluster().list("").await, Ok(vec![]), "nobody would read it");
    drop(listener);
    assert_eq!(hub.presence_list(), []);
    hub.close();
    hub.closed().await;
}

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
    sleep(LEASE).await;
    assert_eq!(one.subscribers_in_cluster().await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn what_hubs_agreed_on_holds_while_one_of_them_lives() {
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
    Hub::builder().cluster(cluster.clone()).start().await.expect("memory is always there")
}

/// How long a hub may take to find that the cluster is there again.
const RETRY: Duration = Duration::from_secs(2);

/// A cluster that goes away and comes back. What was said before expires meanwhile.
#[derive(Clone, Debug, Default)]
struct Shaky {
    local: LocalCluster,
    is_away: watch::Sender<bool>,
    /// Bytes that were set, keys included.
    written: Arc<AtomicUsize>,
}

impl Shaky {
    fn check(&self) -> Result<(), ClusterError> {
        if *self.is_away.borrow() {
            return Err(ClusterError::Unavailable("it is away".to_owned()));
        }
        Ok(())
    }
}

struct ShakyWatch {
    watch: Box<dyn Watch>,
    is_away: watch::Receiver<bool>,
}

#[async_trait]
impl Watch for ShakyWatch {
    async fn next(&mut self) -> Result<Vec<Change>, ClusterError> {
        loop {
            self.is_away.wait_for(|is_away| !is_away).await.expect("the cluster is held");
            tokio::select! {
                biased;
                _ = self.is_away.changed() => {}
                changes = self.watch.next() => return changes,
            }
        }
    }
}

#[async_trait]
impl Cluster for Shaky {
    async fn acquire(&self, key: &str, time: Duration) -> Result<Option<Lease>, ClusterError> {
        self.check()?;
        self.local.acquire(key, time).await
    }

    async fn renew(&self, lease: &Lease, time: Duration) -> Result<bool, ClusterError> {
        self.check()?;
        self.local.renew(lease, time).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), ClusterError> {
        self.check()?;
        self.local.release(lease).await
    }

    async fn set(&self, key: &str, value: &[u8], time: Duration) -> Result<(), ClusterError> {
        self.check()?;
        self.written.fetch_add(key.len() + value.len(), Relaxed);
        self.local.set(key, value, time).await
    }

    async fn remove(&self, key: &str) -> Result<(), ClusterError> {
        self.check()?;
        self.local.remove(key).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ClusterError> {
        self.check()?;
        self.local.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, ClusterError> {
        self.check()?;
        self.local.list(prefix).await
    }

    async fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>, ClusterError> {
        self.check()?;
        Ok(Box::new(ShakyWatch { watch: self.local.watch(prefix).await?, is_away: self.is_away.subscribe() }))
    }

    async fn send(&self, channel: &str, message: &[u8]) -> Result<(), ClusterError> {
        self.check()?;
        self.local.send(channel, message).await
    }

    async fn listen(&self, channel: &str) -> Result<Box<dyn Messages>, ClusterError> {
        self.check()?;
        self.local.listen(channel).await
    }
}
