//! Deletions, and which readers they are reported to.

use tidings_topic::{Grants, Matcher, NewEvent, Position};

use super::subject::{
    Make, PLENTY, append, append_each, append_with_key, event, everything, exact, granted, id, next, pattern,
    plain, private, public, read, read_all, texts, topic, valid,
};
use tidings_log::{Appended, TailItem};

/// No call finds deleted events by any of their topics, and all other events keep their positions.
pub async fn a_deleted_topic_is_no_longer_read(make: &impl Make) {
    let log = plain(make).await;
    let named = |data: &str, id: &str| valid(NewEvent::new("/a", data).id(id));
    append(&log, vec![named("1", "first"), event("/b", "2")]).await;
    append(&log, vec![valid(NewEvent::new("/b", "3").also("/a")), private("/a", "4")]).await;
    let last = append(&log, vec![named("5", "both"), valid(NewEvent::new("/b", "6").id("both"))]).await.1;
    let before = log.bounds().await.expect("bounds");
    let deleted = log.delete(&topic("/a"), &Grants::all()).await.expect("it can be deleted");
    assert_eq!(deleted.count, 4);
    for filter in [everything(), public(Matcher::Any), public(exact("/b")), public(pattern("/*"))] {
        assert_eq!(texts(&read(&log, Position::BEFORE_ALL, &filter).await.entries), ["2", "6"]);
        assert_eq!(texts(&read_all(&log, Position::BEFORE_ALL, &filter, 1).await), ["2", "6"]);
        assert_eq!(texts(&log.last(9, &filter, PLENTY).await.expect("a page").entries), ["2", "6"]);
    }
    let page = read(&log, Position::BEFORE_ALL, &public(exact("/a"))).await;
    assert_eq!((page.entries.len(), page.at_end, page.through), (0, true, last.position));
    assert_eq!(log.resolve(&id("first"), &Grants::all()).await, Ok(None));
    assert_eq!(log.resolve(&id("both"), &Grants::all()).await, Ok(Some(last.position)));
    let after = log.bounds().await.expect("bounds");
    assert_eq!((after.newest, &after.epochs), (before.newest, &before.epochs), "the end stays where it was");
    assert!(after.oldest > before.oldest);
}

/// No gap is missed, and none is reported without cause.
pub async fn a_deletion_raises_the_floor_of_readers_that_missed_events(make: &impl Make) {
    let log = plain(make).await;
    let first = append_each(&log, "/a", &["1"]).await[0];
    let both = append(&log, vec![valid(NewEvent::new("/b", "2").also("/a"))]).await.1.position;
    let hidden = append(&log, vec![private("/a", "3")]).await.1.position;
    append_each(&log, "/b", &["4"]).await;
    log.delete(&topic("/a"), &Grants::all()).await.expect("it can be deleted");
    let floor =
        async |after, matcher, grants: &[Matcher]| read(&log, after, &granted(matcher, grants)).await.floor;
    for matcher in [exact("/a"), Matcher::Any, pattern("/a*")] {
        assert_eq!(floor(Position::BEFORE_ALL, matcher.clone(), &[]).await, Some(both));
        assert_eq!(floor(first, matcher.clone(), &[]).await, Some(both));
        assert_eq!(floor(both, matcher.clone(), &[]).await, None);
        assert_eq!(floor(both, matcher.clone(), &[exact("/a")]).await, Some(hidden));
        assert_eq!(floor(hidden, matcher, &[Matcher::Any]).await, None);
    }
    assert_eq!(floor(first, exact("/b"), &[]).await, Some(both), "it had this topic, too");
    assert_eq!(floor(both, exact("/b"), &[]).await, None);
    assert_eq!(floor(Position::BEFORE_ALL, exact("/c"), &[]).await, None);
}

/// Deleting an event needs grants for all of its topics, as publishing does.
pub async fn a_deletion_needs_grants_for_all_topics_of_an_event(make: &impl Make) {
    let log = plain(make).await;
    let (_, mut tail) = log.tail().await.expect("a tail");
    let first = append_each(&log, "/a", &["1"]).await[0];
    append(&log, vec![valid(NewEvent::new("/a", "2").also("/orders"))]).await;
    append(&log, vec![valid(NewEvent::new("/orders/7", "3").also("/a").id("own").private())]).await;
    append_each(&log, "/orders", &["4"]).await;
    let batch = vec![event("/a", "5"), valid(NewEvent::new("/b", "6").also("/a").also("/orders"))];
    append(&log, batch).await;
    let taken = append_each(&log, "/a", &["7"]).await[0];
    let delete = async |grants: &[Matcher]| {
        let grants: Grants = grants.iter().cloned().collect();
        let deleted = log.delete(&topic("/a"), &grants).await.expect("it can be deleted");
        (deleted.count, deleted.kept)
    };
    let all = async || {
        let entries = read_all(&log, Position::BEFORE_ALL, &everything(), 1).await;
        entries.iter().map(|entry| entry.event.data.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(delete(&[exact("/b")]).await, (0, 6));
    assert_eq!(delete(&[exact("/a"), exact("/b")]).await, (3, 3));
    assert_eq!(all().await, "2 3 4 6");
    let page = read(&log, Position::BEFORE_ALL, &public(exact("/a"))).await;
    assert_eq!((texts(&page.entries), page.floor), (vec!["2", "6"], Some(taken)));
    assert_eq!(
        read(&log, first, &public(exact("/orders"))).await.floor,
        None,
        "no event of this topic was deleted"
    );
    assert!(log.resolve(&id("own"), &Grants::all()).await.expect("an answer").is_some());
    let mut received = Vec::new();
    while received.last().is_none_or(|text| text != "6") {
        if let TailItem::Entries(entries) = next(&mut tail, PLENTY).await {
            received.extend(texts(&entries).into_iter().map(str::to_owned));
        }
    }
    assert_eq!(received, ["2", "3", "4", "6"]);

    // Later events are read, and kept events stay until another deletion covers them.
    append_each(&log, "/a", &["8"]).await;
    append(&log, vec![valid(NewEvent::new("/a", "9").also("/other"))]).await;
    assert_eq!(delete(&[exact("/a")]).await, (1, 4));
    assert_eq!(all().await, "2 3 4 6 9");
    assert_eq!(delete(&[exact("/a"), pattern("/orders{/*}?")]).await, (2, 2));
    assert_eq!(all().await, "4 6 9");
    assert_eq!(delete(&[Matcher::Any]).await, (2, 0));
    assert_eq!(all().await, "4");
    assert_eq!(delete(&[Matcher::Any]).await, (0, 0));
}

/// Deleting a topic without events succeeds and has no effect.
pub async fn a_deletion_of_nothing_changes_nothing(make: &impl Make) {
    let log = plain(make).await;
    append_each(&log, "/a", &["1"]).await;
    log.delete(&topic("/a"), &Grants::all()).await.expect("it can be deleted");
    append_each(&log, "/b", &["2"]).await;
    let before = (log.bounds().await, read(&log, Position::BEFORE_ALL, &everything()).await);
    for name in ["/a", "/never"] {
        assert_eq!(log.delete(&topic(name), &Grants::all()).await.expect("it can be deleted").count, 0);
    }
    assert_eq!((log.bounds().await, read(&log, Position::BEFORE_ALL, &everything()).await), before);
}

/// Events that are published to the topic after the deletion are read.
pub async fn a_deleted_topic_can_be_published_to_again(make: &impl Make) {
    let log = plain(make).await;
    let key = || append_with_key(&log, vec![event("/a", "once")], Some("k"));
    let Ok(Appended::New { ids, .. }) = key().await else { panic!("expected a new batch") };
    let mut serial = 0;
    for round in 0..3 {
        let deleted = log.delete(&topic("/a"), &Grants::all()).await.expect("it can be deleted");
        assert_eq!(deleted.count, 1, "run {round}");
        assert!(deleted.serial > serial);
        serial = deleted.serial;
        let position = append_each(&log, "/a", &["again"]).await[0];
        let page = read(&log, Position::BEFORE_ALL, &public(exact("/a"))).await;
        assert_eq!(texts(&page.entries), ["again"]);
        assert!(page.floor < Some(position));
    }
    assert_eq!(key().await, Ok(Appended::Duplicate { first_id: ids[0].clone() }), "a repeat stays one");
}

/// A tail skips events that were deleted before it reached them, reports that, and reports the
/// deletion of events that it has yielded.
pub async fn a_tail_reports_a_deletion_that_overtook_it(make: &impl Make) {
    let log = plain(make).await;
    let (_, mut tail) = log.tail().await.expect("a tail");
    let mut positions = Vec::new();
    for (name, text) in [("/a", "1"), ("/b", "2"), ("/b", "3"), ("/a", "4"), ("/b", "5")] {
        positions.push(append(&log, vec![event(name, text)]).await.1.position);
    }
    let deleted = log.delete(&topic("/b"), &Grants::all()).await.expect("it can be deleted");
    append_each(&log, "/b", &["6"]).await;
    assert_eq!(next(&mut tail, PLENTY).await, TailItem::Deleted { serial: deleted.serial });
    let mut received = Vec::new();
    while received.last().is_none_or(|text| text != "6") {
        match next(&mut tail, PLENTY).await {
            TailItem::Entries(entries) => received.extend(texts(&entries).into_iter().map(str::to_owned)),
            TailItem::Skipped { through } => {
                let number =
                    positions.iter().position(|position| *position == through).expect("a known position") + 1;
                received.push(format!("skipped to {number}"));
            }
            other => panic!("expected entries or a skip, got {other:?}"),
        }
    }
    assert_eq!(received, ["1", "skipped to 3", "4", "skipped to 5", "6"]);
    let (_, mut new) = log.tail().await.expect("a tail");
    append_each(&log, "/a", &["7"]).await;
    assert!(matches!(next(&mut new, PLENTY).await, TailItem::Entries(_)), "it never yielded a deleted event");
}
