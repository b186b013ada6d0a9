//! Acknowledged batches and idempotency keys.

use std::{collections::HashMap, sync::Arc};

use tidings_topic::{ConnectionId, Cursor, Event, NewEvent, Position};
use tokio::task::JoinSet;

use super::subject::{
    Make, PLENTY, ROUNDS, append, append_with_key, event, everything, id, limited, plain, publishers, read,
    read_all, texts, valid,
};
use tidings_log::{AppendError, Appended, Batch, IdempotencyKey, MemoryLimits};

/// Positions grow with each append.
pub async fn events_come_back_in_the_order_they_were_appended(make: &impl Make) {
    let log = plain(make).await;
    let published: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    let mut last = log.bounds().await.expect("bounds").newest_cursor();
    for text in &published {
        let (_, cursor) = append(&log, vec![event("a", text)]).await;
        assert!(cursor.position > last.position && cursor.epoch == last.epoch);
        last = cursor;
    }
    assert_eq!(texts(&read_all(&log, Position::BEFORE_ALL, &everything(), PLENTY).await), published);
}

/// Every field of an event is stored unchanged.
pub async fn an_event_comes_back_as_it_was_published(make: &impl Make) {
    let log = plain(make).await;
    let full = NewEvent::new("https://example.com/ä?b=%20#c", "one\r\ntwo\r\rthree\n\u{1F98A}\u{0}")
        .also("alternate")
        .id("my id: ü")
        .event_type("greeting")
        .retry_millis(0)
        .private()
        .except(ConnectionId::from_random([7; 16]));
    let bare = NewEvent::new("a", "");
    let events: Vec<_> = [full, bare].map(valid).into();
    append(&log, events.clone()).await;
    let entries = read(&log, Position::BEFORE_ALL, &everything()).await.entries;
    let read: Vec<_> = entries.iter().map(|entry| entry.event.clone()).collect();
    assert_eq!(read, events);
}

/// The next call of any kind finds what `append` acknowledged.
pub async fn an_acknowledged_event_is_in_the_log(make: &impl Make) {
    let log = plain(make).await;
    for round in 0..20 {
        let text = round.to_string();
        let named = valid(NewEvent::new("a", &text).id(format!("id-{text}")));
        let (ids, last) = append(&log, vec![event("b", "other"), named]).await;
        assert_eq!(log.bounds().await.expect("bounds").newest_cursor(), last);
        let page = log.last(1, &everything(), PLENTY).await.expect("a page");
        assert_eq!(texts(&page.entries), [text.as_str()]);
        assert_eq!((page.entries[0].cursor, page.through), (last, last.position));
        let resolved = log.resolve(&ids[1], &everything().grants).await.expect("an answer");
        assert_eq!(resolved, Some(last.position));
    }
}

/// A batch is appended completely, and no other event is in between.
pub async fn a_batch_has_consecutive_positions(make: &impl Make) {
    for _ in 0..ROUNDS {
        let log = plain(make).await;
        publishers(&log, 4, 5, 3).join_all().await;
        let entries = read_all(&log, Position::BEFORE_ALL, &everything(), PLENTY).await;
        assert_eq!(entries.len(), 4 * 5 * 3);
        for batch in texts(&entries).chunks(3) {
            let (first, _) = batch[0].rsplit_once('/').expect("a name with slashes");
            assert_eq!(batch, (0..3).map(|number| format!("{first}/{number}")).collect::<Vec<_>>());
        }
    }
}

/// Batches that are appended with one call are as whole as those of several calls, and each is
/// answered with its own positions. Concurrent calls do not come between the events of a batch.
pub async fn batches_of_one_call_stay_whole_and_in_order(make: &impl Make) {
    for _ in 0..ROUNDS {
        let log = plain(make).await;
        let mut tasks = JoinSet::new();
        for caller in 0..3 {
            let log = Arc::clone(&log);
            tasks.spawn(async move {
                let say = |batch: usize| (0..3).map(move |number| format!("{caller}/{batch}/{number}"));
                let batches: Vec<_> =
                    (0..5).map(|batch| events_of(say(batch).map(|text| event("busy", &text)))).collect();
                let outcomes = log.append_all(batches.clone()).await;
                assert_eq!(outcomes.len(), batches.len());
                outcomes
                    .into_iter()
                    .zip(batches)
                    .map(|(outcome, batch)| (outcome.expect("it fits"), batch))
                    .collect()
            });
        }
        let answers: Vec<Vec<(Appended, Batch)>> = tasks.join_all().await;
        let entries = read_all(&log, Position::BEFORE_ALL, &everything(), PLENTY).await;
        assert_eq!(entries.len(), 3 * 5 * 3);
        for (appended, batch) in answers.into_iter().flatten() {
            let Appended::New { ids, last } = appended else { panic!("it has no key") };
            let end = entries.iter().position(|entry| entry.cursor == last).expect("it is in the log");
            let found = &entries[end + 1 - batch.events.len()..=end];
            assert!(found.iter().map(|entry| &entry.event).eq(&batch.events));
            assert!(found.iter().map(|entry| &entry.id).eq(&ids));
        }
    }
}

/// One batch is refused, one is a repeat of another in the same call, one of an earlier call: the
/// others are appended all the same.
pub async fn batches_of_one_call_have_outcomes_of_their_own(make: &impl Make) {
    let log = limited(make, MemoryLimits { bytes_max: 20_000, ..MemoryLimits::default() }).await;
    let keyed = |text: &str, key| Batch { key: IdempotencyKey::new(key), ..events_of([event("a", text)]) };
    let earlier = append_with_key(&log, vec![event("a", "earlier")], Some("e")).await;
    let Ok(Appended::New { ids: earlier, .. }) = earlier else { panic!("{earlier:?}") };
    let outcomes = log
        .append_all(vec![
            events_of([event("a", "one")]),
            keyed("two", "k"),
            events_of([event("a", &"x".repeat(30_000))]),
            keyed("again", "k"),
            keyed("later", "e"),
            events_of([event("a", "three")]),
        ])
        .await;
    let [
        Ok(Appended::New { .. }),
        Ok(Appended::New { ids, .. }),
        large,
        again,
        later,
        Ok(Appended::New { .. }),
    ] = &outcomes[..]
    else {
        panic!("{outcomes:?}")
    };
    assert!(matches!(large, Err(AppendError::Full(_))), "{large:?}");
    assert_eq!(again, &Ok(Appended::Duplicate { first_id: ids[0].clone() }));
    assert_eq!(later, &Ok(Appended::Duplicate { first_id: earlier[0].clone() }));
    let entries = read_all(&log, Position::BEFORE_ALL, &everything(), PLENTY).await;
    let mut texts = texts(&entries);
    texts.sort_unstable();
    assert_eq!(texts, ["earlier", "one", "three", "two"]);
}

/// There is nothing to append.
pub async fn a_call_without_batches_has_no_outcomes(make: &impl Make) {
    let log = plain(make).await;
    let before = log.bounds().await.expect("bounds");
    assert_eq!(log.append_all(Vec::new()).await, []);
    assert_eq!(log.bounds().await.expect("bounds"), before);
}

fn events_of(events: impl IntoIterator<Item = Event>) -> Batch {
    Batch { events: events.into_iter().collect(), key: None }
}

/// A batch that would drop its own first events is not appended at all.
pub async fn a_batch_that_cannot_fit_is_refused_completely(make: &impl Make) {
    for limits in [
        MemoryLimits { bytes_max: 20_000, ..MemoryLimits::default() },
        MemoryLimits { count_max: Some(2), ..MemoryLimits::default() },
    ] {
        let log = limited(make, limits).await;
        append(&log, vec![event("a", "kept")]).await;
        let before = log.bounds().await.expect("bounds");
        let large = "x".repeat(7_000);
        let refused = append_with_key(&log, vec![event("a", &large); 3], None).await;
        assert!(matches!(refused, Err(AppendError::Full(_))), "{refused:?}");
        assert_eq!(log.bounds().await.expect("bounds"), before);
        append(&log, vec![event("a", "next")]).await;
        let page = read(&log, Position::BEFORE_ALL, &everything()).await;
        assert_eq!((texts(&page.entries), page.floor), (vec!["kept", "next"], None));
    }
}

/// The log neither changes nor deduplicates ids of publishers.
pub async fn a_publishers_id_is_echoed_even_if_used_twice(make: &impl Make) {
    let log = plain(make).await;
    let own = || valid(NewEvent::new("a", "").id("urn:own"));
    let (ids, _) = append(&log, vec![own(), own()]).await;
    assert_eq!(ids, [id("urn:own"), id("urn:own")]);
    let (ids, _) = append(&log, vec![own()]).await;
    assert_eq!(ids, [id("urn:own")]);
    let entries = read(&log, Position::BEFORE_ALL, &everything()).await.entries;
    assert_eq!(entries.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["urn:own"; 3]);
}

/// A generated id is the cursor of its event, so that a reader can continue after it.
pub async fn a_generated_id_is_the_cursor_of_its_event(make: &impl Make) {
    let log = plain(make).await;
    let (ids, last) = append(&log, vec![event("a", "one"), event("a", "two"), event("a", "three")]).await;
    let cursors: Vec<_> = ids.iter().map(|id| Cursor::parse(id.as_str()).expect("a cursor")).collect();
    assert_eq!(cursors[2], last);
    let entries = read(&log, Position::BEFORE_ALL, &everything()).await.entries;
    assert_eq!(entries.iter().map(|entry| entry.cursor).collect::<Vec<_>>(), cursors);
    assert!(entries.iter().map(|entry| &entry.id).eq(&ids));
    let rest = read(&log, cursors[0].position, &everything()).await.entries;
    assert_eq!(texts(&rest), ["two", "three"]);
}

/// Events of a publisher that waits for each acknowledgement stay in order, whatever other
/// publishers append.
pub async fn events_of_each_publisher_stay_in_order(make: &impl Make) {
    for _ in 0..ROUNDS {
        let log = plain(make).await;
        publishers(&log, 4, 10, 1).join_all().await;
        let entries = read_all(&log, Position::BEFORE_ALL, &everything(), PLENTY).await;
        let mut next_of = HashMap::new();
        for text in texts(&entries) {
            let (publisher, rest) = text.split_once('/').expect("a name with slashes");
            let next: &mut usize = next_of.entry(publisher).or_default();
            assert_eq!(rest, format!("{next}/0"));
            *next += 1;
        }
        assert_eq!(next_of.into_values().collect::<Vec<_>>(), [10; 4]);
    }
}

/// A batch that is sent again with its key is answered with the first id and not appended, whatever
/// it contains now.
pub async fn a_repeated_key_appends_nothing(make: &impl Make) {
    let log = plain(make).await;
    let batch = vec![event("a", "one"), event("a", "two")];
    let first = append_with_key(&log, batch.clone(), Some("k")).await;
    let Ok(Appended::New { ids, last }) = first else { panic!("expected a new batch, got {first:?}") };
    append(&log, vec![event("a", "other")]).await;
    for again in [batch, vec![event("b", "changed")]] {
        let repeated = append_with_key(&log, again, Some("k")).await;
        assert_eq!(repeated, Ok(Appended::Duplicate { first_id: ids[0].clone() }));
    }
    let other = append_with_key(&log, vec![event("a", "three")], Some("K")).await;
    assert!(matches!(other, Ok(Appended::New { .. })), "another key is another batch: {other:?}");
    let rest = read(&log, last.position, &everything()).await;
    assert_eq!(texts(&rest.entries), ["other", "three"]);
}

/// Of several concurrent batches with one key, one is appended and the others are answered with its
/// id.
pub async fn concurrent_batches_with_one_key_are_appended_once(make: &impl Make) {
    for round in 0..ROUNDS {
        let log = plain(make).await;
        let mut tasks = JoinSet::new();
        for sender in 0..4 {
            let log = Arc::clone(&log);
            let key = format!("k{round}");
            let events = vec![event("a", &sender.to_string()), event("a", "second")];
            tasks.spawn(async move { append_with_key(&log, events, Some(&key)).await.expect("an answer") });
        }
        let answers = tasks.join_all().await;
        let (new, duplicates): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|answer| matches!(answer, Appended::New { .. }));
        let [Appended::New { ids, .. }] = &new[..] else { panic!("appended {} times", new.len()) };
        assert_eq!(duplicates, vec![Appended::Duplicate { first_id: ids[0].clone() }; 3]);
        let page = read(&log, Position::BEFORE_ALL, &everything()).await;
        assert!(page.entries.iter().map(|entry| &entry.id).eq(ids));
    }
}

/// A batch that was not appended can be sent again.
pub async fn a_refused_batch_does_not_use_up_its_key(make: &impl Make) {
    let log = limited(make, MemoryLimits { bytes_max: 20_000, ..MemoryLimits::default() }).await;
    let refused = append_with_key(&log, vec![event("a", &"x".repeat(30_000))], Some("k")).await;
    assert!(matches!(refused, Err(AppendError::Full(_))), "{refused:?}");
    let smaller = append_with_key(&log, vec![event("a", "x")], Some("k")).await;
    assert!(matches!(smaller, Ok(Appended::New { .. })), "{smaller:?}");
}

/// The window of keys is bounded: the oldest is forgotten first.
pub async fn a_key_is_forgotten_beyond_its_window(make: &impl Make) {
    let Some(log) = make.make(MemoryLimits { keys_max: 2, ..MemoryLimits::default() }, None).await else {
        return;
    };
    for name in ["one", "two", "three"] {
        let appended = append_with_key(&log, vec![event("a", name)], Some(name)).await;
        assert!(matches!(appended, Ok(Appended::New { .. })), "{appended:?}");
    }
    for name in ["two", "three"] {
        let repeated = append_with_key(&log, vec![event("a", name)], Some(name)).await;
        assert!(matches!(repeated, Ok(Appended::Duplicate { .. })), "{name}: {repeated:?}");
    }
    let forgotten = append_with_key(&log, vec![event("a", "one")], Some("one")).await;
    assert!(matches!(forgotten, Ok(Appended::New { .. })), "{forgotten:?}");
}
