//! Retention, and which readers it is reported to.

use std::time::Duration;

use tidings_topic::{Filter, Grants, Matcher, NewEvent, Position};

use super::subject::{
    Make, PLENTY, append, append_each, append_with_key, event, everything, exact, granted, id, limited,
    pattern, private, public, read, read_all, texts, valid,
};
use tidings_log::{Appended, Clock, MemoryLimits, Timestamp};

fn count(count_max: u64) -> MemoryLimits {
    MemoryLimits { count_max: Some(count_max), ..MemoryLimits::default() }
}

/// The newest events are kept.
pub async fn the_event_limit_drops_the_oldest(make: &impl Make) {
    let log = limited(make, count(3)).await;
    let positions = append_each(&log, "a", &["1", "2", "3", "4", "5"]).await;
    let page = read(&log, Position::BEFORE_ALL, &everything()).await;
    assert_eq!((texts(&page.entries), page.floor), (vec!["3", "4", "5"], Some(positions[1])));
    assert_eq!(log.bounds().await.expect("bounds").oldest, Some(positions[2]));
    append(&log, vec![event("a", "6"), event("a", "7")]).await;
    assert_eq!(texts(&read_all(&log, Position::BEFORE_ALL, &everything(), 1).await), ["5", "6", "7"]);
    let last = log.last(10, &public(exact("a")), PLENTY).await.expect("a page");
    assert_eq!(texts(&last.entries), ["5", "6", "7"]);
}

/// The newest events are kept, as many as fit.
pub async fn the_byte_limit_drops_the_oldest(make: &impl Make) {
    let log = limited(make, MemoryLimits { bytes_max: 20_000, ..MemoryLimits::default() }).await;
    let published: Vec<_> = (0..60).map(|number| format!("{number}{}", "x".repeat(1_000))).collect();
    for text in &published {
        append(&log, vec![event("a", text)]).await;
        let page = read(&log, Position::BEFORE_ALL, &everything()).await;
        let bytes: usize = page.entries.iter().map(|entry| entry.event.data.len()).sum();
        assert!(bytes <= 20_000, "{bytes} bytes");
    }
    let kept = read(&log, Position::BEFORE_ALL, &everything()).await.entries;
    assert!(kept.len() >= 8, "the limit allows more than {}", kept.len());
    assert_eq!(texts(&kept), published[60 - kept.len()..]);
}

/// Expired events are not found, even without any call since.
pub async fn an_expired_event_is_no_longer_read(make: &impl Make) {
    let clock = Clock::manual(Timestamp::from_millis(1_000_000));
    let limits = MemoryLimits { age_max: Some(Duration::from_secs(10)), ..MemoryLimits::default() };
    let Some(log) = make.make(limits, Some(clock.clone())).await else { return };
    let first = append(&log, vec![valid(NewEvent::new("a", "old").id("old"))]).await.1.position;
    clock.advance(Duration::from_secs(10));
    let second = append(&log, vec![event("b", "young")]).await.1.position;
    let before = read(&log, Position::BEFORE_ALL, &everything()).await;
    assert_eq!((texts(&before.entries), before.floor), (vec!["old", "young"], None), "not yet too old");

    clock.advance(Duration::from_millis(1));
    for filter in [everything(), public(Matcher::Any)] {
        let page = read(&log, Position::BEFORE_ALL, &filter).await;
        assert_eq!((texts(&page.entries), page.floor), (vec!["young"], Some(first)));
    }
    let last = log.last(5, &everything(), PLENTY).await.expect("a page");
    assert_eq!((texts(&last.entries), last.floor), (vec!["young"], Some(first)));
    assert_eq!(log.resolve(&id("old"), &Grants::all()).await, Ok(None));
    assert_eq!(log.bounds().await.expect("bounds").oldest, Some(second));

    clock.advance(Duration::from_secs(3_600));
    let bounds = log.bounds().await.expect("bounds");
    assert_eq!((bounds.oldest, bounds.newest), (None, second), "the end stays where it was");
    assert_eq!(read(&log, second, &everything()).await.floor, None);
    assert_eq!(read(&log, first, &everything()).await.floor, Some(second));
}

/// A clock that is set back neither changes the order nor lets an event expire before older ones.
pub async fn the_order_does_not_depend_on_the_clock(make: &impl Make) {
    let start = Timestamp::from_millis(10_000_000);
    let clock = Clock::manual(start);
    let limits = MemoryLimits { age_max: Some(Duration::from_secs(60)), ..MemoryLimits::default() };
    let Some(log) = make.make(limits, Some(clock.clone())).await else { return };
    append_each(&log, "a", &["1"]).await;
    clock.set(start.earlier_by(Duration::from_secs(3_600)));
    append_each(&log, "a", &["2"]).await;
    clock.set(start);
    append_each(&log, "a", &["3"]).await;
    let page = read(&log, Position::BEFORE_ALL, &everything()).await;
    assert_eq!((texts(&page.entries), page.floor), (vec!["1", "2", "3"], None));
    clock.advance(Duration::from_secs(61));
    assert_eq!(read(&log, Position::BEFORE_ALL, &everything()).await.entries, []);
}

/// No gap is missed, and none is reported without cause.
pub async fn a_floor_applies_only_to_readers_that_missed_events(make: &impl Make) {
    let log = limited(make, count(2)).await;
    let first = append_each(&log, "/a", &["1", "2"]).await;
    let second = append_each(&log, "/b", &["3"]).await;
    append_each(&log, "/c", &["4", "5"]).await;
    let floor = async |after, filter: &Filter| read(&log, after, filter).await.floor;
    for (matcher, newest) in [
        (exact("/a"), Some(first[1])),
        (exact("/b"), Some(second[0])),
        (exact("/c"), None),
        (exact("/none"), None),
        (pattern("/a*"), Some(first[1])),
        (pattern("/c*"), None),
        (Matcher::Any, Some(second[0])),
    ] {
        let filter = public(matcher);
        assert_eq!(floor(Position::BEFORE_ALL, &filter).await, newest, "{filter:?}");
        assert_eq!(log.last(1, &filter, PLENTY).await.expect("a page").floor, newest, "{filter:?}");
        if let Some(newest) = newest {
            assert_eq!(floor(newest, &filter).await, None, "{filter:?} has seen it");
        }
    }
    assert_eq!(floor(first[0], &public(exact("/a"))).await, Some(first[1]));
    assert_eq!(floor(first[1], &public(Matcher::Any)).await, Some(second[0]));
    let both = Filter { matchers: vec![exact("/a"), exact("/b")], grants: Grants::NONE };
    assert_eq!(floor(first[0], &both).await, Some(second[0]));
}

/// A reader of an alternate topic has missed the event too.
pub async fn a_floor_is_found_by_each_of_its_topics(make: &impl Make) {
    let log = limited(make, count(1)).await;
    let dropped = append(&log, vec![valid(NewEvent::new("/a", "").also("/b"))]).await.1.position;
    let later = append(&log, vec![event("/a", "")]).await.1.position;
    append(&log, vec![event("/c", "")]).await;
    let floor = async |matcher| read(&log, Position::BEFORE_ALL, &public(matcher)).await.floor;
    assert_eq!(floor(exact("/a")).await, Some(later));
    assert_eq!(floor(exact("/b")).await, Some(dropped));
    assert_eq!(floor(pattern("/b")).await, Some(dropped));
    assert_eq!(floor(exact("/c")).await, None);
}

/// The loss of a private event is not reported to readers that could not have received it.
pub async fn a_private_floor_needs_a_covering_grant(make: &impl Make) {
    let log = limited(make, count(1)).await;
    let public = append(&log, vec![event("/a", "")]).await.1.position;
    let both = valid(NewEvent::new("/a", "").also("/b").private());
    let both = append(&log, vec![both]).await.1.position;
    let only = append(&log, vec![private("/a", "")]).await.1.position;
    append(&log, vec![event("/c", "")]).await;
    let floor = async |matcher, grants: &[Matcher]| {
        read(&log, Position::BEFORE_ALL, &granted(matcher, grants)).await.floor
    };
    for matcher in [exact("/a"), pattern("/a"), Matcher::Any] {
        assert_eq!(floor(matcher.clone(), &[]).await, Some(public));
        assert_eq!(floor(matcher.clone(), &[exact("/c")]).await, Some(public));
        assert_eq!(floor(matcher.clone(), &[exact("/b")]).await, Some(both));
        assert_eq!(floor(matcher.clone(), &[pattern("/b*")]).await, Some(both));
        assert_eq!(floor(matcher.clone(), &[exact("/a")]).await, Some(only));
        assert_eq!(floor(matcher, &[Matcher::Any]).await, Some(only));
    }
    assert_eq!(floor(exact("/b"), &[]).await, None);
    assert_eq!(floor(exact("/b"), &[exact("/a")]).await, Some(both));
}

/// A repeated batch is not appended again, even after its events were dropped.
pub async fn a_key_outlives_its_events(make: &impl Make) {
    let log = limited(make, count(1)).await;
    let batch = || vec![event("a", "once")];
    let first = append_with_key(&log, batch(), Some("k")).await;
    let Ok(Appended::New { ids, .. }) = first else { panic!("expected a new batch, got {first:?}") };
    append(&log, vec![event("a", "other")]).await;
    let repeated = append_with_key(&log, batch(), Some("k")).await;
    assert_eq!(repeated, Ok(Appended::Duplicate { first_id: ids[0].clone() }));
    assert_eq!(texts(&read(&log, Position::BEFORE_ALL, &everything()).await.entries), ["other"]);
}
