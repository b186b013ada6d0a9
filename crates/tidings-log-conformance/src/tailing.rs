//! The live end of a log.

use std::{pin::pin, sync::Arc, task::Poll};

use tidings_topic::Position;

use super::subject::{
    Make, PLENTY, ROUNDS, append, append_each, assert_ordered, event, everything, limited, next,
    next_entries, plain, publishers, read_all, texts,
};
use tidings_log::{MemoryLimits, TailItem};

/// A tail yields everything after its cursor, and nothing else.
pub async fn a_tail_starts_after_its_cursor(make: &impl Make) {
    let log = plain(make).await;
    let before = append(&log, vec![event("a", "before")]).await.1;
    let (from, mut tail) = log.tail().await.expect("a tail");
    assert_eq!(from, before);
    append(&log, vec![event("a", "one"), event("b", "two")]).await;
    append(&log, vec![event("a", "three")]).await;
    let mut entries = Vec::new();
    while entries.len() < 3 {
        entries.extend(next_entries(&mut tail, PLENTY).await);
    }
    assert_eq!(texts(&entries), ["one", "two", "three"]);
    assert_eq!(entries, read_all(&log, from.position, &everything(), PLENTY).await);
}

/// A pending call returns as soon as an event is appended.
pub async fn a_waiting_tail_is_woken(make: &impl Make) {
    for round in 0..ROUNDS {
        let log = plain(make).await;
        let (_, mut tail) = log.tail().await.expect("a tail");
        let waiting = tokio::spawn(async move { next_entries(&mut tail, PLENTY).await });
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        append(&log, vec![event("a", "wake")]).await;
        assert_eq!(texts(&waiting.await.expect("the tail yields it")), ["wake"]);
    }
}

/// An item has at least one entry and at most about the requested size.
pub async fn a_tail_item_is_bounded(make: &impl Make) {
    let log = plain(make).await;
    let (_, mut tail) = log.tail().await.expect("a tail");
    let published: Vec<_> = (0..40).map(|number| format!("{number}{}", "x".repeat(500))).collect();
    append(&log, published.iter().map(|text| event("a", text)).collect()).await;
    let mut entries = Vec::new();
    for bytes_max in [0, 1, 2_000, 5_000, PLENTY] {
        entries.extend(next_entries(&mut tail, bytes_max).await);
    }
    while entries.len() < published.len() {
        entries.extend(next_entries(&mut tail, PLENTY).await);
    }
    assert_eq!(texts(&entries), published);
}

/// Reads and every tail yield the same order.
pub async fn a_tail_agrees_with_read_while_many_publish(make: &impl Make) {
    for _ in 0..ROUNDS {
        let log = plain(make).await;
        let mut busy = publishers(&log, 4, 10, 2);
        let mut tails = Vec::new();
        for bytes_max in [1, 1_500, PLENTY] {
            let (from, mut tail) = log.tail().await.expect("a tail");
            let log = Arc::clone(&log);
            tails.push(tokio::spawn(async move {
                let mut entries = Vec::new();
                let is_last = |text: &str| text == "end";
                while !texts(&entries).last().is_some_and(|text| is_last(text)) {
                    entries.extend(next_entries(&mut tail, bytes_max).await);
                }
                assert_ordered(&entries);
                assert_eq!(entries, read_all(&log, from.position, &everything(), PLENTY).await);
            }));
        }
        while let Some(joined) = busy.join_next().await {
            joined.expect("a publisher publishes");
        }
        append(&log, vec![event("a", "end")]).await;
        for tail in tails {
            tail.await.expect("a tail agrees");
        }
        assert_eq!(read_all(&log, Position::BEFORE_ALL, &everything(), PLENTY).await.len(), 81);
    }
}

/// An item that was not returned is returned by the next call.
pub async fn a_cancelled_wait_loses_nothing(make: &impl Make) {
    let log = plain(make).await;
    let (_, mut tail) = log.tail().await.expect("a tail");
    let mut received = Vec::new();
    for text in ["1", "2", "3", "4", "5"] {
        // Poll once and drop, before and after an item has arrived.
        for publish in [false, true] {
            if publish {
                append(&log, vec![event("a", text)]).await;
            }
            let mut waiting = pin!(tail.next(PLENTY));
            let polled = std::future::poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await;
            if let Poll::Ready(Some(TailItem::Entries(entries))) = polled {
                received.extend(entries);
            }
        }
    }
    while received.len() < 5 {
        received.extend(next_entries(&mut tail, PLENTY).await);
    }
    assert_eq!(texts(&received), ["1", "2", "3", "4", "5"]);
}

/// A tail has no queue, so retention may overtake it: the tail reports that and continues with the
/// remaining entries.
pub async fn a_tail_reports_retention_that_overtook_it(make: &impl Make) {
    let log = limited(make, MemoryLimits { count_max: Some(3), ..MemoryLimits::default() }).await;
    let (_, mut tail) = log.tail().await.expect("a tail");
    let positions = append_each(&log, "a", &["1", "2", "3", "4", "5"]).await;
    assert_eq!(next(&mut tail, PLENTY).await, TailItem::Skipped { through: positions[1] });
    let mut entries = Vec::new();
    while entries.len() < 3 {
        entries.extend(next_entries(&mut tail, PLENTY).await);
    }
    assert_eq!(texts(&entries), ["3", "4", "5"]);
}
