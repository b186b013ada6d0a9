//! The presence lists of hubs in one cluster.

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
    ConnectionId, Hub, HubBuilder, Presence, Subscribe, Subscription,
    log::cluster::{Change, Cluster, ClusterError, Lease, LocalCluster, Messages, Watch},
};
use tidings_presence::PresenceList;
use tokio::{sync::watch, time::sleep};

/// Within this time every hub knows who connected and disconnected.
const SOON: Duration = Duration::from_secs(1);
/// Longer than hubs take to publish their number of subscribers.
const NEXT_RENEWAL: Duration = Duration::from_secs(6);
/// By then the other hubs know that a hub is dead.
const LEASE: Duration = Duration::from_secs(16);

/// A hub with a presence list.
struct HubWithList {
    hub: Hub,
    presence: PresenceList,
    reported: Arc<Mutex<Vec<Presence>>>,
    listeners: HashMap<String, Subscription>,
}

impl HubWithList {
    async fn start(cluster: impl Into<Arc<dyn Cluster>>) -> Self {
        let reported = Arc::<Mutex<Vec<Presence>>>::default();
        let calls = Arc::clone(&reported);
        let hook = move |who: &Presence| calls.lock().expect("no thread panicked").push(who.clone());
        let (hub, presence) = start(Hub::builder().cluster(cluster), hook).await;
        Self { hub, presence, reported, listeners: HashMap::new() }
    }

    async fn connect(&mut self, name: &str) {
        let listener = connect(&self.hub, name).await;
        self.listeners.insert(name.to_owned(), listener);
    }

    fn disconnect(&mut self, name: &str) {
        self.listeners.remove(name).expect("it is connected");
    }

    /// The hook's calls since the last look: `+ann` for a connect, `-ann` for a disconnect, `(…)`
    /// for subscribers of other hubs.
    fn reported(&self) -> Vec<String> {
        let reported = std::mem::take(&mut *self.reported.lock().expect("no thread panicked"));
        let spelled = reported.iter().map(|presence| {
            assert_eq!(presence.matchers.iter().map(|matcher| &*matcher.text).collect::<Vec<_>>(), ["chat"]);
            let sign = if presence.here { '+' } else { '-' };
            let name = presence.label.as_deref().expect("every subscriber has a label");
            if presence.is_local { format!("{sign}{name}") } else { format!("({sign}{name})") }
        });
        spelled.collect()
    }

    /// The names in the presence list.
    fn present(&self) -> Vec<String> {
        let present = self.presence.subscribers();
        let names = present.iter().map(|presence| {
            assert!(presence.here);
            presence.label.as_deref().expect("every subscriber has a label").to_owned()
        });
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

#[tokio::test(start_paused = true)]
async fn every_hub_reports_connects_and_disconnects_at_all_hubs() {
    let cluster = LocalCluster::default();
    let mut one = HubWithList::start(cluster.clone()).await;
    one.connect("ann").await;
    assert_eq!(one.reported(), ["+ann"], "at once");
    sleep(SOON).await;

    let mut other = HubWithList::start(cluster).await;
    sleep(SOON).await;
    assert_eq!(other.reported(), ["(+ann)"], "a subscriber from before");
    other.connect("bob").await;
    sleep(SOON).await;
    assert_eq!((one.reported(), other.reported()), (vec!["(+bob)".to_owned()], vec!["+bob".to_owned()]));
    assert_eq!((one.present(), other.present()), (vec!["ann".into(), "bob".into()], one.present()));
    let connection =
        |list: &PresenceList| list.subscribers().iter().map(|who| who.connection).collect::<HashSet<_>>();
    assert_eq!(connection(&one.presence), connection(&other.presence));

    one.disconnect("ann");
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
    let mut one = HubWithList::start(cluster.clone()).await;
    let mut other = HubWithList::start(cluster.clone()).await;
    for number in 0..3 {
        one.connect("ann").await;
        other.connect("bob").await;
        sleep(SOON).await;
        assert_eq!((one.reported().len(), other.reported().len()), (2, 2), "{number}");
        // The hub cannot withdraw its state.
        let dead = std::mem::replace(&mut other, HubWithList::start(cluster.clone()).await);
        drop((dead.listeners, dead.hub, dead.presence));
        sleep(LEASE / 2).await;
        assert_eq!(one.reported(), [""; 0], "its marks may only be late");
        sleep(LEASE / 2).await;
        assert_eq!((one.reported(), one.present()), (vec!["(-bob)".to_owned()], vec!["ann".to_owned()]));
        one.disconnect("ann");
        sleep(SOON).await;
        one.reported();
        other.reported();
    }
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_closes_withdraws_its_subscribers_at_once() {
    let cluster = LocalCluster::default();
    let (mut one, mut other) =
        (HubWithList::start(cluster.clone()).await, HubWithList::start(cluster.clone()).await);
    one.connect("ann").await;
    other.connect("bob").await;
    sleep(SOON).await;
    one.reported();
    other.hub.close();
    other.presence.withdrawn().await;
    assert_eq!(other.listeners.len(), 1, "however long its streams take to end");
    sleep(SOON).await;
    assert_eq!(one.reported(), ["(-bob)"]);
    let left = cluster.list("presence/").await.expect("it can be reached");
    assert_eq!(left.len(), 2, "the mark and the page of the other one: {left:?}");

    one.hub.close_over(Duration::from_secs(30));
    sleep(Duration::from_secs(29)).await;
    assert_eq!(cluster.list("presence/").await.expect("it can be reached").len(), 2, "it is not over");
    one.hub.closed().await;
    one.presence.withdrawn().await;
    assert_eq!(cluster.list("presence/").await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn each_of_many_subscribers_is_reported_once() {
    const MEMBERS: usize = 500;
    let cluster = LocalCluster::default();
    let (mut one, other) = (HubWithList::start(cluster.clone()).await, HubWithList::start(cluster).await);
    let names: Vec<_> = (0..MEMBERS).map(|number| number.to_string()).collect();
    for name in &names {
        one.connect(name).await;
    }
    sleep(SOON).await;
    assert_eq!(other.presence.subscribers().len(), MEMBERS);
    for name in names.iter().step_by(3) {
        one.disconnect(name);
    }
    for name in names.iter().step_by(6) {
        one.connect(name).await;
    }
    sleep(SOON).await;
    assert_eq!(other.present(), one.present());
    let mut here = HashMap::<ConnectionId, bool>::new();
    for reported in other.reported.lock().expect("no thread panicked").iter() {
        let before = here.insert(reported.connection, reported.here);
        assert_eq!(before, (!reported.here).then_some(true), "{reported:?}");
    }
    assert_eq!(here.len(), MEMBERS + names.iter().step_by(6).count());
    assert_eq!(here.values().filter(|here| **here).count(), one.listeners.len());
}

#[tokio::test(start_paused = true)]
async fn a_short_visit_is_reported_here_and_never_or_twice_elsewhere() {
    let cluster = LocalCluster::default();
    let (mut one, other) = (HubWithList::start(cluster.clone()).await, HubWithList::start(cluster).await);
    sleep(SOON).await;
    for pause in [0, 1, 50, 100, 250, 500] {
        for _ in 0..10 {
            one.connect("ann").await;
            sleep(Duration::from_millis(pause)).await;
            one.disconnect("ann");
        }
        sleep(SOON).await;
        assert_eq!(one.reported(), ["+ann", "-ann"].repeat(10));
        let reported = other.reported();
        assert_eq!(reported, ["(+ann)", "(-ann)"].repeat(reported.len() / 2), "{pause}");
        assert_eq!(other.present(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_cluster_reports_nothing_until_it_ends() {
    for away_secs in [1, 8, 12, 20, 60, 600] {
        let cluster = Shaky::default();
        let (mut one, mut other) =
            (HubWithList::start(cluster.clone()).await, HubWithList::start(cluster.clone()).await);
        one.connect("ann").await;
        other.connect("bob").await;
        sleep(NEXT_RENEWAL).await;
        one.reported();
        other.reported();
        cluster.is_away.send_replace(true);
        other.disconnect("bob");
        other.connect("cid").await;
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
async fn a_hub_that_dies_during_an_outage_is_found_dead_afterwards() {
    let cluster = Shaky::default();
    let (one, mut other) =
        (HubWithList::start(cluster.clone()).await, HubWithList::start(cluster.clone()).await);
    other.connect("bob").await;
    sleep(SOON).await;
    assert_eq!(one.reported(), ["(+bob)"]);
    cluster.is_away.send_replace(true);
    drop((other.listeners, other.hub, other.presence));
    sleep(Duration::from_secs(60)).await;
    assert_eq!((one.reported(), one.present()), (vec![], vec!["bob".into()]));
    cluster.is_away.send_replace(false);
    sleep(LEASE + RETRY).await;
    assert_eq!((one.reported(), one.present()), (vec!["(-bob)".to_owned()], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_forgets_everything_is_filled_again_without_a_report() {
    let cluster = Shaky::default();
    let (mut one, mut other) =
        (HubWithList::start(cluster.clone()).await, HubWithList::start(cluster.clone()).await);
    one.connect("ann").await;
    other.connect("bob").await;
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
    other.disconnect("bob");
    sleep(SOON).await;
    assert_eq!(one.reported(), ["(-bob)"]);
}

#[tokio::test(start_paused = true)]
async fn the_cost_of_presence_in_the_cluster_is_bounded() {
    const MEMBERS: usize = 15_000;
    let cluster = Shaky::default();
    let written = || cluster.written.swap(0, Relaxed);
    let mut one = HubWithList::start(cluster.clone()).await;
    sleep(SOON).await;
    written();
    sleep(Duration::from_secs(100)).await;
    assert!(written() < 100 * 20, "a hub without subscribers");
    for number in 0..MEMBERS {
        one.connect(&format!("{number:010}")).await;
    }
    sleep(SOON).await;
    let all = cluster.local.list("presence/page/").await.expect("it can be reached");
    let all: usize = all.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert!((MEMBERS * 35..MEMBERS * 60).contains(&all), "{all} bytes");
    let came = written();
    assert!(came <= 2 * all, "{came} bytes while all of them connected");
    sleep(Duration::from_secs(450)).await;
    let rest = written() / 450;
    assert!((all / 50..all / 38).contains(&rest), "{rest} bytes a second while nothing happens");
    sleep(Duration::from_secs(1)).await;
    one.disconnect("0000007777");
    sleep(SOON).await;
    let one_page = written();
    assert!((1_000..4_000).contains(&one_page), "{one_page} bytes because one disconnected");
    println!(
        "{MEMBERS} subscribers: {all} bytes, {came} while they connected, {rest} a second at rest, {one_page} for one"
    );
}

#[tokio::test(start_paused = true)]
async fn a_single_hub_has_a_presence_list_without_a_cluster() {
    let (hub, presence) = start(Hub::builder(), |_| {}).await;
    let listener = connect(&hub, "ann").await;
    sleep(NEXT_RENEWAL).await;
    assert_eq!(presence.subscribers().len(), 1);
    assert_eq!(hub.cluster().list("").await, Ok(vec![]), "no hub would read it");
    drop(listener);
    assert_eq!(presence.subscribers(), []);
    hub.close();
    presence.withdrawn().await;
}

#[tokio::test(start_paused = true)]
async fn subscribers_of_all_live_hubs_are_counted() {
    let cluster = LocalCluster::default();
    let in_cluster = async || start(Hub::builder().cluster(cluster.clone()), |_| {}).await;
    let ((one, one_list), (other, other_list)) = (in_cluster().await, in_cluster().await);
    let (_alone, alone_list) = start(Hub::builder(), |_| {}).await;
    let _first = connect(&one, "ann").await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(connect(&other, "bob").await);
    }
    sleep(NEXT_RENEWAL).await;
    for list in [&one_list, &other_list] {
        assert_eq!(list.count().await, Ok(4));
    }
    assert_eq!(alone_list.count().await, Ok(0));
    others.pop();
    assert_eq!(other_list.count().await, Ok(3), "here it is exact");
    sleep(NEXT_RENEWAL).await;
    assert_eq!(one_list.count().await, Ok(3));

    drop((others, other, other_list));
    assert_eq!(one_list.count().await, Ok(3), "its marks may only be late");
    sleep(LEASE).await;
    assert_eq!(one_list.count().await, Ok(1));
}

async fn start(hub: HubBuilder, hook: impl Fn(&Presence) + Send + Sync + 'static) -> (Hub, PresenceList) {
    PresenceList::start(hub, hook).await.expect("the memory log is always available")
}

async fn connect(hub: &Hub, name: &str) -> Subscription {
    let chat = hub.validator().exact("chat").expect("a valid topic");
    let request = Subscribe::new([chat]).label(name);
    hub.subscribe(request).await.expect("the memory log is always available")
}

/// How long a hub may take to find that the cluster is reachable again.
const RETRY: Duration = Duration::from_secs(2);

/// A cluster that becomes unreachable and reachable again. Entries expire meanwhile.
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
            return Err(ClusterError::Unavailable("it is unreachable".to_owned()));
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
            self.is_away.wait_for(|is_away| !is_away).await.expect("the cluster still exists");
            tokio::select! {
                biased;
                _ = self.is_away.changed() => {}
                changes = self.watch.next() => return changes,
            }
        }
    }
}

impl From<Shaky> for Arc<dyn Cluster> {
    fn from(cluster: Shaky) -> Self {
        Arc::new(cluster)
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
