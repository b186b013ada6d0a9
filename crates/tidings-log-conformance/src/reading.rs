//! Reading, looking up and waiting.

use std::{sync::Arc, time::Duration};

use tidings_topic::{Filter, Grants, Matcher, NewEvent, Position};
use tokio::time::timeout;

use super::subject::{
    Make, PATIENCE, PLENTY, ROUNDS, append, append_each, assert_ordered, event, everything, exact, granted,
    id, limited, pattern, plain, private, public, publishers, read, read_all, texts, topic, valid,
};
use tidings_log::{Clock, Cursor, Log, LogStats, MemoryLimits, Timestamp};

/// However small the pages are, together they contain every accepted event.
pub async fn pages_join_without_gaps_or_duplicates(make: &impl Make) {
    let log = plain(make).await;
    let topics = ["/a/1", "/a/2", "/b/1"];
    let mut published = Vec::new();
    for number in 0..60_usize {
        let topic = topics[number * number % 7 % 3];
        let text = format!("{topic} {number}{}", "x".repeat(number * 37 % 500));
        append(&log, vec![event(topic, &text)]).await;
        published.push((topic, text));
    }
    let filters: [(Filter, &[&str]); 5] = [
        (everything(), &topics),
        (public(exact("/b/1")), &topics[2..]),
        (Filter { matchers: vec![exact("/b/1"), exact("/a/1")], ..Filter::default() }, &["/a/1", "/b/1"]),
        (public(pattern("/a/*")), &topics[..2]),
        (public(exact("/nothing")), &[]),
    ];
    for (filter, accepted) in filters {
        let expected: Vec<_> =
            published.iter().filter(|(topic, _)| accepted.contains(topic)).map(|(_, text)| text).collect();
        for bytes_max in [1, 700, 5_000, PLENTY] {
            let entries = read_all(&log, Position::BEFORE_ALL, &filter, bytes_max).await;
            assert_eq!(texts(&entries), expected, "{filter:?} by {bytes_max}");
        }
    }
}

/// A range without accepted events is read in bounded steps, each of which makes progress.
pub async fn a_page_is_bounded_and_makes_progress(make: &impl Make) {
    let log = plain(make).await;
    append(&log, (0..200).map(|_| event("/crowd", &"x".repeat(1_000))).collect()).await;
    append(&log, vec![event("/quiet", "found")]).await;
    for filter in [public(exact("/quiet")), public(pattern("/q*")), public(pattern("/none*"))] {
        let expected: &[&str] = if filter.matchers[0].as_str() == "/none*" { &[] } else { &["found"] };
        assert_eq!(texts(&read_all(&log, Position::BEFORE_ALL, &filter, 1).await), expected);
        assert_eq!(texts(&read_all(&log, Position::BEFORE_ALL, &filter, 10_000).await), expected);
    }
    let page = log.read(Position::BEFORE_ALL, &everything(), 0).await.expect("a page");
    assert_eq!((page.entries.len(), page.at_end), (1, false), "at least one entry");
}

/// An empty log is read to its end at once.
pub async fn an_empty_log_is_at_its_end(make: &impl Make) {
    let log = plain(make).await;
    let bounds = log.bounds().await.expect("bounds");
    let read = read(&log, Position::BEFORE_ALL, &everything()).await;
    let last = log.last(5, &everything(), PLENTY).await.expect("a page");
    for page in [read, last] {
        assert_eq!((page.entries.len(), page.at_end, page.floor), (0, true, None));
        assert_eq!((page.epoch, page.through), (bounds.epochs.current().epoch, bounds.newest));
    }
}

/// A position that does not exist yet is no error.
pub async fn a_position_beyond_the_end_yields_an_empty_page(make: &impl Make) {
    let log = plain(make).await;
    append(&log, vec![event("a", "one")]).await;
    let beyond = Position::from_bytes([0xff; 16]);
    for filter in [everything(), public(exact("a")), public(pattern("/x"))] {
        let page = read(&log, beyond, &filter).await;
        assert_eq!((page.entries.len(), page.through, page.at_end, page.floor), (0, beyond, true, None));
    }
}

/// An event is found by its alternate topics as by its canonical one, and only once by several of
/// them.
pub async fn an_event_of_several_topics_is_read_once(make: &impl Make) {
    let log = plain(make).await;
    let several = valid(NewEvent::new("/a", "both").also("/b").also("/a"));
    append(&log, vec![event("/a", "first"), several, event("/b", "last")]).await;
    let read = async |matchers: &[Matcher]| {
        found(&log, &Filter { matchers: matchers.to_vec(), grants: Grants::NONE }).await.join(" ")
    };
    assert_eq!(read(&[exact("/a")]).await, "first both");
    assert_eq!(read(&[exact("/b")]).await, "both last");
    assert_eq!(read(&[exact("/b"), exact("/a"), exact("/b")]).await, "first both last");
    assert_eq!(read(&[exact("/b"), pattern("/a")]).await, "first both last");
    assert_eq!(read(&[]).await, "");
}

/// What a filter accepts, which both ways of reading agree on.
async fn found(log: &Arc<dyn Log>, filter: &Filter) -> Vec<String> {
    let entries = read_all(log, Position::BEFORE_ALL, filter, PLENTY).await;
    let last = log.last(10, filter, PLENTY).await.expect("a page");
    assert_eq!(last.entries, entries);
    texts(&entries).into_iter().map(str::to_owned).collect()
}

/// A matching topic alone does not reveal a private event.
pub async fn a_private_event_needs_a_covering_grant(make: &impl Make) {
    let log = plain(make).await;
    let both = valid(NewEvent::new("/a", "both").also("/b").private());
    append(&log, vec![private("/a", "only a"), event("/a", "public"), both, private("/b", "only b")]).await;
    let read =
        async |matcher: Matcher, grants: &[Matcher]| found(&log, &granted(matcher, grants)).await.join(", ");
    assert_eq!(read(exact("/a"), &[]).await, "public");
    assert_eq!(read(exact("/a"), &[exact("/a")]).await, "only a, public, both");
    assert_eq!(read(exact("/a"), &[exact("/b")]).await, "public, both");
    assert_eq!(read(Matcher::Any, &[]).await, "public");
    assert_eq!(read(Matcher::Any, &[pattern("/b")]).await, "public, both, only b");
    assert_eq!(read(pattern("/b"), &[Matcher::Any]).await, "both, only b");
}

/// The newest events that the filter accepts, oldest first.
pub async fn the_last_events_are_in_log_order(make: &impl Make) {
    let log = plain(make).await;
    append_each(&log, "/a", &["1", "2", "3", "4"]).await;
    append_each(&log, "/b", &["5"]).await;
    let newest = append(&log, vec![private("/a", "6")]).await.1.position;
    let last = async |count, filter: &Filter| {
        let page = log.last(count, filter, PLENTY).await.expect("a page");
        assert_eq!((page.through, page.at_end, page.floor), (newest, true, None));
        assert_eq!(
            read(&log, page.after, filter).await.entries,
            page.entries,
            "reading after it yields the same"
        );
        texts(&page.entries).join("")
    };
    assert_eq!(last(2, &public(exact("/a"))).await, "34");
    assert_eq!(last(2, &public(pattern("/a*"))).await, "34");
    assert_eq!(last(2, &Filter::everything_public()).await, "45");
    assert_eq!(last(2, &everything()).await, "56");
    assert_eq!(last(100, &everything()).await, "123456");
    assert_eq!(last(0, &everything()).await, "");
    assert_eq!(last(3, &public(exact("/none"))).await, "");
}

/// The events that `last` finds within its limit are still the newest.
pub async fn the_search_for_the_last_events_is_bounded(make: &impl Make) {
    let log = plain(make).await;
    let published: Vec<_> = (0..50).map(|number| format!("{number}{}", "x".repeat(1_000))).collect();
    for text in &published {
        append(&log, vec![event("/a", text)]).await;
    }
    for filter in [everything(), public(exact("/a")), public(pattern("/a"))] {
        let page = log.last(50, &filter, 10_000).await.expect("a page");
        let found = page.entries.len();
        assert!((5..15).contains(&found), "{found} of about 1,300 bytes each in 10,000");
        assert_eq!(texts(&page.entries), published[50 - found..]);
        assert_eq!(
            read(&log, page.after, &filter).await.entries,
            page.entries,
            "events beyond the limit are not returned"
        );
    }
}

/// An id that was used twice resolves to its first use: repeating events is better than missing
/// some.
pub async fn an_id_resolves_to_its_oldest_event(make: &impl Make) {
    let log = plain(make).await;
    let own = |text: &str| valid(NewEvent::new("a", "").id(text));
    let (generated, _) = append(&log, vec![event("a", "")]).await;
    let first = append(&log, vec![own("one")]).await.1.position;
    let second = append(&log, vec![own("two")]).await.1.position;
    append(&log, vec![own("one")]).await;
    let resolve = async |id| log.resolve(&id, &Grants::NONE).await.expect("an answer");
    assert_eq!(resolve(id("one")).await, Some(first));
    assert_eq!(resolve(id("two")).await, Some(second));
    assert_eq!(resolve(id("On")).await, None);
    assert_eq!(resolve(id("ONE")).await, None);
    assert_eq!(resolve(generated[0].clone()).await, None, "generated ids are cursors already");
}

/// For a reader without grants, the id of a private event does not exist.
pub async fn an_id_that_the_reader_may_not_see_is_unknown(make: &impl Make) {
    let log = plain(make).await;
    let hidden = valid(NewEvent::new("secret", "").also("other").id("x").private());
    let first = append(&log, vec![hidden]).await.1.position;
    let resolve = async |grants: &[Matcher]| {
        log.resolve(&id("x"), &grants.iter().cloned().collect()).await.expect("an answer")
    };
    assert_eq!(resolve(&[]).await, None);
    assert_eq!(resolve(&[exact("different")]).await, None);
    assert_eq!(resolve(&[exact("other")]).await, Some(first));
    let second = append(&log, vec![valid(NewEvent::new("open", "").id("x"))]).await.1.position;
    assert_eq!(resolve(&[]).await, Some(second), "the oldest visible event");
    assert_eq!(resolve(&[Matcher::Any]).await, Some(first));
}

/// The bounds are the first and the last acknowledged event.
pub async fn the_bounds_are_the_first_and_last_event(make: &impl Make) {
    let log = plain(make).await;
    let empty = log.bounds().await.expect("bounds");
    assert_eq!((empty.oldest, empty.epochs.iter().count()), (None, 1));
    let positions = append_each(&log, "a", &["1", "2", "3"]).await;
    let bounds = log.bounds().await.expect("bounds");
    assert_eq!((bounds.oldest, bounds.newest), (Some(positions[0]), positions[2]));
    assert!(empty.newest < positions[0]);
    assert_eq!(bounds.epochs, empty.epochs);
    let cursor = Cursor { epoch: bounds.epochs.current().epoch, position: positions[2] };
    assert_eq!(bounds.newest_cursor(), cursor);
}

/// Reading after it yields everything that was appended since.
pub async fn a_time_resolves_to_the_last_position_before_it(make: &impl Make) {
    let clock = Clock::manual(Timestamp::from_millis(1_000_000));
    let Some(log) = make.make(MemoryLimits::default(), Some(clock.clone())).await else {
        return;
    };
    let ago = async |secs| log.position_ago(Duration::from_secs(secs)).await.expect("an answer");
    assert_eq!(ago(0).await, Position::BEFORE_ALL);
    let mut positions = Vec::new();
    for text in ["60", "50", "40"] {
        positions.extend(append_each(&log, "a", &[text, text]).await);
        clock.advance(Duration::from_secs(10));
    }
    clock.advance(Duration::from_secs(30));
    assert_eq!(ago(100).await, Position::BEFORE_ALL);
    assert_eq!(ago(60).await, Position::BEFORE_ALL, "exactly as long ago is not longer ago");
    assert_eq!(ago(55).await, positions[1]);
    assert_eq!(ago(50).await, positions[1]);
    assert_eq!(ago(41).await, positions[3]);
    assert_eq!(ago(0).await, positions[5]);
    let since = read(&log, ago(50).await, &everything()).await;
    assert_eq!(texts(&since.entries), ["50", "50", "40", "40"]);
}

/// A reader that reads page by page while others publish finds every event once, in order.
pub async fn a_reader_among_publishers_misses_no_event(make: &impl Make) {
    for _ in 0..ROUNDS {
        let log = plain(make).await;
        let mut busy = publishers(&log, 3, 10, 2);
        let mut entries = Vec::new();
        let mut after = Position::BEFORE_ALL;
        loop {
            let finished = busy.try_join_next().is_none() && busy.is_empty();
            let read = read_all(&log, after, &public(exact("busy")), 2_000).await;
            after = read.last().map_or(after, |entry| entry.cursor.position);
            entries.extend(read);
            if finished {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_ordered(&entries);
        let again = read_all(&log, Position::BEFORE_ALL, &everything(), PLENTY).await;
        assert_eq!((entries.len(), entries), (60, again));
    }
}

/// Readiness probes call this.
pub async fn a_healthy_log_reports_health(make: &impl Make) {
    assert_eq!(plain(make).await.health().await, Ok(()));
}

/// The statistics follow appends, retention and deletions; a log may take a moment.
pub async fn the_statistics_are_of_what_is_kept(make: &impl Make) {
    let log = limited(make, MemoryLimits { count_max: Some(3), ..MemoryLimits::default() }).await;
    let Some(empty) = log.stats() else { return };
    assert!(empty.is_up);
    assert_eq!((empty.events, empty.bytes, empty.oldest, empty.newest), (0, 0, None, None));

    append_each(&log, "kept", &["one", "two"]).await;
    let two = stats_with(&log, 2).await;
    assert!(two.bytes > 0 && two.bytes < two.bytes_max, "{two:?}");
    assert!(two.oldest.is_some() && two.oldest <= two.newest, "{two:?}");

    append_each(&log, "kept", &["three", "four", "five"]).await;
    let three = stats_with(&log, 3).await;
    assert!(three.bytes > 0 && three.bytes < three.bytes_max, "{three:?}");
    assert!(three.oldest >= two.oldest && three.newest >= two.newest, "{three:?}");

    log.delete(&topic("kept"), &Grants::all()).await.expect("deleted");
    // What has been deleted may count until the log is read.
    log.bounds().await.expect("bounds");
    let none = stats_with(&log, 0).await;
    assert_eq!((none.oldest, none.newest, none.bytes), (None, None, 0));
}

/// The statistics once so many events are kept.
async fn stats_with(log: &Arc<dyn Log>, events: u64) -> LogStats {
    let reached = async {
        loop {
            let stats = log.stats().expect("this log has statistics");
            if stats.events == events {
                return stats;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, reached).await.expect("the statistics follow")
}
