//! The conformance suite that every [`Cluster`] passes.
//!
//! Each check verifies one guarantee with two nodes of a fresh cluster.
//! [`cluster_conformance!`](crate::cluster_conformance!) makes a test of each; [`check_all`] runs
//! them one after the other. Time passes on Tokio's clock: a cluster that uses that clock may pause
//! it, others wait in real time.

use std::{sync::Arc, time::Duration};

use tidings_log::cluster::{Change, Cluster, Messages, Watch, agree};

/// Two nodes of one cluster that has no other nodes.
#[derive(Clone, Debug)]
pub struct Nodes {
    /// The first node.
    pub one: Arc<dyn Cluster>,
    /// The second node.
    pub other: Arc<dyn Cluster>,
}

/// Makes two nodes of a fresh cluster for each check. Implemented for every `async fn() -> Nodes`.
pub trait Make {
    /// Makes a cluster.
    fn make(&self) -> impl Future<Output = Nodes>;
}

impl<F, Fut> Make for F
where
    F: Fn() -> Fut,
    Fut: Future<Output = Nodes>,
{
    fn make(&self) -> impl Future<Output = Nodes> {
        self()
    }
}

/// Runs every check, one after the other. Panics if one fails.
pub async fn check_all(make: impl Make) {
    crate::for_every_cluster_check!(cluster_conformance_run, &make);
}

/// Makes a module of tests, one for each check: `cluster_conformance!(local, make)`, where `make`
/// is a [`Make`]. It needs Tokio with the feature `macros`.
#[macro_export]
macro_rules! cluster_conformance {
    ($module:ident, $make:expr) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $crate::for_every_cluster_check!(cluster_conformance_test, &$make);
        }
    };
}

/// The list of all checks.
#[doc(hidden)]
#[macro_export]
macro_rules! for_every_cluster_check {
    ($callback:ident, $make:expr) => {
        $crate::$callback! {
            $make;
            a_lease_has_one_holder_until_it_is_released
            a_lease_can_be_acquired_after_it_expires
            a_renewed_lease_is_kept
            a_lost_lease_does_not_affect_the_next_holder
            each_acquisition_has_a_larger_fence
            of_concurrent_acquisitions_one_succeeds
            a_value_is_shared_until_it_is_removed
            a_value_that_is_not_renewed_expires
            a_list_has_the_keys_of_its_prefix_in_order
            a_watch_begins_with_the_current_state_and_yields_changes
            a_watch_is_woken_when_a_value_expires
            a_slow_watch_yields_the_current_values
            renewing_a_value_is_no_change
            all_nodes_agree_on_the_first_value
            a_message_reaches_all_listeners_in_order
            a_message_is_not_kept_for_later
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! cluster_conformance_test {
    ($make:expr; $($check:ident)*) => {
        $(
            #[tokio::test]
            async fn $check() {
                let make = $make;
                let nodes = $crate::cluster::Make::make(make).await;
                $crate::cluster::$check(nodes).await;
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! cluster_conformance_run {
    ($make:expr; $($check:ident)*) => {
        $( $crate::cluster::$check($make.make().await).await; )*
    };
}

/// Half of it is enough for the steps of a check, even on a busy machine.
const SHORT: Duration = Duration::from_secs(4);
/// Longer than any check takes.
const LONG: Duration = Duration::from_secs(600);
/// How long one step may take. It only ends a check that would wait forever.
const PATIENCE: Duration = Duration::from_secs(60);

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

async fn set(node: &Arc<dyn Cluster>, key: &str, value: &str, time: Duration) {
    node.set(key, value.as_bytes(), time).await.expect("the cluster answers");
}

async fn get(node: &Arc<dyn Cluster>, key: &str) -> Option<String> {
    let value = node.get(key).await.expect("the cluster answers");
    value.map(|value| String::from_utf8(value).expect("text"))
}

async fn changes(watch: &mut Box<dyn Watch>) -> Vec<String> {
    let waited = tokio::time::timeout(PATIENCE, watch.next()).await.expect("something changes");
    let reported = waited.expect("the cluster answers").into_iter().map(|change| match change {
        Change::Set { key, value } => format!("{key}={}", String::from_utf8(value).expect("text")),
        Change::Gone { key } => format!("{key} gone"),
    });
    reported.collect()
}

async fn message(messages: &mut Box<dyn Messages>) -> String {
    let waited = tokio::time::timeout(PATIENCE, messages.next()).await.expect("a message arrives");
    String::from_utf8(waited.expect("the cluster answers")).expect("text")
}

/// Until then no acquisition succeeds, not even by the holder.
pub async fn a_lease_has_one_holder_until_it_is_released(nodes: Nodes) {
    let lease = nodes.one.acquire("bridge", LONG).await.expect("an answer").expect("it is free");
    assert_eq!(nodes.other.acquire("bridge", LONG).await, Ok(None));
    assert_eq!(nodes.one.acquire("bridge", LONG).await, Ok(None));
    assert!(nodes.other.acquire("another", LONG).await.expect("an answer").is_some());
    nodes.one.release(&lease).await.expect("an answer");
    assert!(nodes.other.acquire("bridge", LONG).await.expect("an answer").is_some());
}

/// A dead holder blocks no other node.
pub async fn a_lease_can_be_acquired_after_it_expires(nodes: Nodes) {
    let lost = nodes.one.acquire("bridge", SHORT).await.expect("an answer").expect("it is free");
    assert_eq!(nodes.other.acquire("bridge", LONG).await, Ok(None));
    pass(SHORT).await;
    assert!(nodes.other.acquire("bridge", LONG).await.expect("an answer").is_some());
    assert_eq!(nodes.one.renew(&lost, LONG).await, Ok(false));
}

/// For as long as the holder renews it.
pub async fn a_renewed_lease_is_kept(nodes: Nodes) {
    let lease = nodes.one.acquire("bridge", SHORT).await.expect("an answer").expect("it is free");
    for _ in 0..3 {
        pass(SHORT / 2).await;
        assert_eq!(nodes.one.renew(&lease, SHORT).await, Ok(true));
        assert_eq!(nodes.other.acquire("bridge", LONG).await, Ok(None));
    }
}

/// A holder that was suspended too long neither keeps nor releases the lease of another holder.
pub async fn a_lost_lease_does_not_affect_the_next_holder(nodes: Nodes) {
    let lost = nodes.one.acquire("bridge", SHORT).await.expect("an answer").expect("it is free");
    pass(SHORT).await;
    let held = nodes.other.acquire("bridge", LONG).await.expect("an answer").expect("it has expired");
    nodes.one.release(&lost).await.expect("an answer");
    assert_eq!(nodes.one.renew(&lost, LONG).await, Ok(false));
    assert_eq!(nodes.one.acquire("bridge", LONG).await, Ok(None));
    assert_eq!(nodes.other.renew(&held, LONG).await, Ok(true));
}

/// The guarded resource can distinguish the current holder from earlier ones.
pub async fn each_acquisition_has_a_larger_fence(nodes: Nodes) {
    let mut last = 0;
    for node in [&nodes.one, &nodes.other, &nodes.one] {
        let lease = node.acquire("bridge", LONG).await.expect("an answer").expect("it is free");
        assert!(lease.fence > last, "{lease:?} after {last}");
        last = lease.fence;
        node.release(&lease).await.expect("an answer");
    }
}

/// Also when the nodes ask at the same time.
pub async fn of_concurrent_acquisitions_one_succeeds(nodes: Nodes) {
    for round in 0..20 {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..8 {
            let node = Arc::clone(if number % 2 == 0 { &nodes.one } else { &nodes.other });
            let key = format!("round {round}");
            tasks.spawn(async move { node.acquire(&key, LONG).await.expect("an answer").is_some() });
        }
        let holders = tasks.join_all().await.into_iter().filter(|holds| *holds).count();
        assert_eq!(holders, 1);
    }
}

/// Values are shared between nodes, and separate from leases.
pub async fn a_value_is_shared_until_it_is_removed(nodes: Nodes) {
    nodes.one.acquire("a", LONG).await.expect("an answer");
    assert_eq!(get(&nodes.other, "a").await, None);
    set(&nodes.one, "a", "1", LONG).await;
    assert_eq!(get(&nodes.other, "a").await.as_deref(), Some("1"));
    set(&nodes.other, "a", "", LONG).await;
    assert_eq!(get(&nodes.one, "a").await.as_deref(), Some(""));
    for _ in 0..2 {
        nodes.one.remove("a").await.expect("an answer");
        assert_eq!(get(&nodes.other, "a").await, None);
    }
}

/// The state of a dead node disappears.
pub async fn a_value_that_is_not_renewed_expires(nodes: Nodes) {
    set(&nodes.one, "expiring", "1", SHORT).await;
    set(&nodes.one, "renewed", "1", SHORT).await;
    pass(SHORT / 2).await;
    set(&nodes.one, "renewed", "1", LONG).await;
    pass(SHORT / 2).await;
    assert_eq!(get(&nodes.other, "expiring").await, None);
    assert_eq!(get(&nodes.other, "renewed").await.as_deref(), Some("1"));
    assert_eq!(nodes.other.list("").await.expect("an answer").len(), 1);
}

/// And no other keys.
pub async fn a_list_has_the_keys_of_its_prefix_in_order(nodes: Nodes) {
    for key in ["b/2", "a", "b/10", "b", "b0", "ä/1", "b/*"] {
        set(&nodes.one, key, key, LONG).await;
    }
    let keys = async |prefix: &str| -> Vec<String> {
        let listed = nodes.other.list(prefix).await.expect("an answer");
        assert!(listed.iter().all(|(key, value)| key.as_bytes() == value));
        listed.into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(keys("b/").await, ["b/*", "b/10", "b/2"]);
    assert_eq!(keys("b/*").await, ["b/*"]);
    assert_eq!(keys("ä").await, ["ä/1"]);
    assert_eq!(keys("c").await, [""; 0]);
    assert_eq!(keys("").await.len(), 7);
}

/// Without a hole between the current state and the changes.
pub async fn a_watch_begins_with_the_current_state_and_yields_changes(nodes: Nodes) {
    set(&nodes.one, "p/1", "a", LONG).await;
    set(&nodes.one, "q/1", "x", LONG).await;
    let mut watch = nodes.other.watch("p/").await.expect("an answer");
    assert_eq!(changes(&mut watch).await, ["p/1=a"]);
    set(&nodes.one, "q/1", "y", LONG).await;
    set(&nodes.one, "p/2", "b", LONG).await;
    assert_eq!(changes(&mut watch).await, ["p/2=b"]);
    nodes.one.remove("p/1").await.expect("an answer");
    assert_eq!(changes(&mut watch).await, ["p/1 gone"]);
    let mut again = nodes.one.watch("p/").await.expect("an answer");
    assert_eq!(changes(&mut again).await, ["p/2=b"]);
}

/// Without any other call to the cluster.
pub async fn a_watch_is_woken_when_a_value_expires(nodes: Nodes) {
    set(&nodes.one, "p/1", "a", SHORT).await;
    let mut watch = nodes.other.watch("p/").await.expect("an answer");
    assert_eq!(changes(&mut watch).await, ["p/1=a"]);
    assert_eq!(changes(&mut watch).await, ["p/1 gone"]);
}

/// It skips intermediate values.
pub async fn a_slow_watch_yields_the_current_values(nodes: Nodes) {
    let mut watch = nodes.other.watch("p/").await.expect("an answer");
    for number in 0..1_000 {
        set(&nodes.one, "p/1", &number.to_string(), LONG).await;
    }
    set(&nodes.one, "p/2", "short", LONG).await;
    nodes.one.remove("p/2").await.expect("an answer");
    let mut reported = Vec::new();
    // The same item may contain later changes.
    while !reported.iter().any(|change| change == "p/1=999") {
        reported.extend(changes(&mut watch).await);
    }
    set(&nodes.one, "p/3", "end", LONG).await;
    while !reported.iter().any(|change| change == "p/3=end") {
        reported.extend(changes(&mut watch).await);
    }
    let named = |key: &str| reported.iter().rfind(|change| change.starts_with(key)).cloned();
    assert!(named("p/2").is_none_or(|change| change == "p/2 gone"));
}

/// A node renews its values again and again, which must not wake the watch.
pub async fn renewing_a_value_is_no_change(nodes: Nodes) {
    let mut watch = nodes.other.watch("p/").await.expect("an answer");
    set(&nodes.one, "p/1", "a", SHORT).await;
    assert_eq!(changes(&mut watch).await, ["p/1=a"]);
    for _ in 0..4 {
        pass(SHORT / 2).await;
        set(&nodes.one, "p/1", "a", SHORT).await;
    }
    set(&nodes.one, "p/2", "b", LONG).await;
    assert_eq!(changes(&mut watch).await, ["p/2=b"]);
}

/// Also when the nodes propose at the same time, and for as long as one of them renews the value.
pub async fn all_nodes_agree_on_the_first_value(nodes: Nodes) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8_u8 {
        let node = Arc::clone(if number % 2 == 0 { &nodes.one } else { &nodes.other });
        tasks.spawn(async move { agree(&*node, "key", &[number], SHORT).await.expect("an answer") });
    }
    let values = tasks.join_all().await;
    assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
    pass(SHORT / 2).await;
    assert_eq!(agree(&*nodes.one, "key", b"another", SHORT).await.as_ref(), Ok(&values[0]));
    pass(SHORT / 2).await;
    assert_eq!(agree(&*nodes.other, "key", b"another", SHORT).await.as_ref(), Ok(&values[0]));
}

/// Including listeners on the sender's node.
pub async fn a_message_reaches_all_listeners_in_order(nodes: Nodes) {
    let mut here = nodes.one.listen("c").await.expect("an answer");
    let mut there = nodes.other.listen("c").await.expect("an answer");
    let mut elsewhere = nodes.other.listen("d").await.expect("an answer");
    for number in 0..100 {
        nodes.one.send("c", number.to_string().as_bytes()).await.expect("an answer");
    }
    nodes.one.send("d", b"else").await.expect("an answer");
    for listener in [&mut here, &mut there] {
        for number in 0..100 {
            assert_eq!(message(listener).await, number.to_string());
        }
    }
    assert_eq!(message(&mut elsewhere).await, "else");
}

/// A listener that subscribes later does not receive it.
pub async fn a_message_is_not_kept_for_later(nodes: Nodes) {
    let mut witness = nodes.other.listen("c").await.expect("an answer");
    nodes.one.send("c", b"before").await.expect("an answer");
    // A message in transit may reach a listener that subscribes before it arrives; so wait until
    // the witness has received it.
    assert_eq!(message(&mut witness).await, "before");
    let mut listener = nodes.other.listen("c").await.expect("an answer");
    nodes.one.send("c", b"after").await.expect("an answer");
    assert_eq!(message(&mut listener).await, "after");
}
