//! Which shards publishers wait for. `tests/wakeups.rs` tests the interleavings of threads.

use std::sync::Arc;

use futures_util::FutureExt;

use crate::lag::{Lag, PENDING_FEEDS_MAX};

#[test]
fn publishers_wait_for_the_slowest_shard() {
    let lag = Arc::new(Lag::default());
    let [first, second, idle] = [lag.add_shard(), lag.add_shard(), lag.add_shard()];
    lag.add_written(1_000);
    assert_eq!(lag.bytes(), 0, "no shard has anything to do");
    first.set_served(Some(900));
    second.set_served(Some(950));
    idle.set_served(None);
    assert_eq!(lag.bytes(), 100);
    assert!(lag.wait_until_below(100).now_or_never().is_some());
    let mut waiting = Box::pin(lag.wait_until_below(40));
    assert!((&mut waiting).now_or_never().is_none());
    first.set_served(Some(1_000));
    assert!((&mut waiting).now_or_never().is_none(), "the other one is still behind");
    drop(second);
    assert!(waiting.now_or_never().is_some(), "a shard that is gone is not waited for");
}

#[test]
fn publishers_wait_for_a_shard_with_many_pending_feeds() {
    let lag = Arc::new(Lag::default());
    let [takes, gone] = [lag.add_shard(), lag.add_shard()];
    for _ in 0..PENDING_FEEDS_MAX {
        takes.pending_feeds().add();
    }
    assert!(lag.wait_until_below(0).now_or_never().is_some(), "so many may wait");
    takes.pending_feeds().add();
    let mut waiting = Box::pin(lag.wait_until_below(0));
    assert!((&mut waiting).now_or_never().is_none());
    takes.take_feeds(1);
    assert!(waiting.now_or_never().is_some());

    for _ in 0..=PENDING_FEEDS_MAX {
        gone.pending_feeds().add();
    }
    let mut waiting = Box::pin(lag.wait_until_below(0));
    assert!((&mut waiting).now_or_never().is_none());
    drop(gone);
    assert!(waiting.now_or_never().is_some(), "a shard that is gone is not waited for");
}
