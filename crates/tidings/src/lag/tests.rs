//! Which shards publishers wait for. `tests/wakeups.rs` tests the interleavings of threads.

use std::sync::Arc;

use futures_util::FutureExt;

use crate::lag::{Lag, NEWS_MAX};

#[test]
fn publishers_wait_for_the_slowest_shard() {
    let lag = Arc::new(Lag::default());
    let [first, second, idle] = [lag.add_shard(), lag.add_shard(), lag.add_shard()];
    lag.add_written(1_000);
    assert_eq!(lag.bytes(), 0, "no shard has anything to do");
    first.set(Some(900));
    second.set(Some(950));
    idle.set(None);
    assert_eq!(lag.bytes(), 100);
    assert!(lag.wait_until_below(100).now_or_never().is_some());
    let mut waiting = Box::pin(lag.wait_until_below(40));
    assert!((&mut waiting).now_or_never().is_none());
    first.set(Some(1_000));
    assert!((&mut waiting).now_or_never().is_none(), "the other one is still behind");
    drop(second);
    assert!(waiting.now_or_never().is_some(), "a shard that is gone is not waited for");
}

#[test]
fn publishers_wait_for_a_shard_that_has_not_looked_at_the_news() {
    let lag = Arc::new(Lag::default());
    let [looks, gone] = [lag.add_shard(), lag.add_shard()];
    for _ in 0..NEWS_MAX {
        looks.news().add();
    }
    assert!(lag.wait_until_below(0).now_or_never().is_some(), "so many may wait");
    looks.news().add();
    let mut waiting = Box::pin(lag.wait_until_below(0));
    assert!((&mut waiting).now_or_never().is_none());
    looks.looked(1);
    assert!(waiting.now_or_never().is_some());

    for _ in 0..=NEWS_MAX {
        gone.news().add();
    }
    let mut waiting = Box::pin(lag.wait_until_below(0));
    assert!((&mut waiting).now_or_never().is_none());
    drop(gone);
    assert!(waiting.now_or_never().is_some(), "a shard that is gone is not waited for");
}
