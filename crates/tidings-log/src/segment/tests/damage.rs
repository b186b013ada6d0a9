//! Flipped bits: no corrupt event is delivered, no event is missing without a report, nothing
//! panics.
//!
//! `TIDINGS_FLIP_STEP=1` flips every byte of a segment, not only some.

use std::env;

use super::*;
use crate::{Located, segment::tests::simulated::SimulatedDisk};

/// How far the bytes are apart that are flipped when nobody asks for more; no divisor of what a
/// record is made of.
const STEP_DEFAULT: usize = 11;

fn settings() -> SegmentSettings {
    SegmentSettings { segment_bytes: Some(900), ..small() }
}

fn open(disk: &SimulatedDisk) -> Result<SegmentLog, OpenFailure> {
    SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), settings(), Clock::system())
}

/// A closed log of several segments.
async fn filled() -> (SimulatedDisk, Vec<(Cursor, String)>) {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk).expect("a fresh log");
    let mut said = Vec::new();
    for number in 0..30 {
        let text = format!("{number} {}", "x".repeat(number * 3));
        let batch = Batch { events: vec![event(["a", "b"][number % 2], &text)], key: None };
        let Ok(Appended::New { last, .. }) = log.append(batch).await else { panic!("no room") };
        said.push((last, text));
    }
    (disk, said)
}

/// The same with a third topic between them that was deleted and taken out.
async fn compacted() -> (SimulatedDisk, Vec<(Cursor, String)>) {
    let (disk, clock) = (SimulatedDisk::new(1), Clock::manual(crate::Timestamp::from_millis(1_000)));
    let settings = SegmentSettings { keys_age_max: Duration::ZERO, ..settings() };
    let log = SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), settings, clock.clone())
        .expect("a fresh log");
    let mut said = Vec::new();
    for number in 0..45 {
        let text = format!("{number} {}", "x".repeat(number * 2));
        let batch = Batch { events: vec![event(["a", "b", "deleted"][number % 3], &text)], key: None };
        let Ok(Appended::New { last, .. }) = log.append(batch).await else { panic!("no room") };
        if number % 3 < 2 {
            said.push((last, text));
        }
    }
    log.delete(&Topic::from_stored("deleted").expect("a topic"), &Grants::all()).await.expect("deleted");
    clock.advance(Duration::from_millis(1));
    assert!(log.compact().expect("compacted") > 2);
    log.close().await;
    (disk, said)
}

/// The same, but deleted in the middle of the log, and not compacted.
async fn deleted() -> (SimulatedDisk, Vec<(Cursor, String)>) {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk).expect("a fresh log");
    let mut said = Vec::new();
    for number in 0..45 {
        let text = format!("{number} {}", "x".repeat(number * 2));
        let topic = ["a", "b", "deleted"][number % 3];
        if topic == "deleted" && number > 24 {
            continue;
        }
        if number == 24 {
            let topic = Topic::from_stored("deleted").expect("a topic");
            log.delete(&topic, &Grants::all()).await.expect("deleted");
        }
        let batch = Batch { events: vec![event(topic, &text)], key: None };
        let Ok(Appended::New { last, .. }) = log.append(batch).await else { panic!("no room") };
        if topic != "deleted" {
            said.push((last, text));
        }
    }
    log.delete(&Topic::from_stored("deleted").expect("a topic"), &Grants::all()).await.expect("deleted");
    (disk, said)
}

#[tokio::test]
async fn no_flipped_byte_is_delivered_or_hidden() {
    flip_each(filled().await, &[everything(), exact("a"), exact("b")]).await;
}

#[tokio::test]
async fn no_flipped_byte_of_a_compacted_log_is_delivered_or_hidden() {
    // The one that reads everything is reported of the deletion anyway.
    flip_each(compacted().await, &[exact("a"), exact("b")]).await;
}

#[tokio::test]
async fn no_flipped_byte_brings_a_deleted_event_back_silently() {
    flip_each(deleted().await, &[exact("a"), exact("b")]).await;
}

async fn flip_each((disk, said): (SimulatedDisk, Vec<(Cursor, String)>), filters: &[Filter]) {
    let step =
        env::var("TIDINGS_FLIP_STEP").ok().map_or(STEP_DEFAULT, |text| text.parse().expect("a number"));
    let names = disk.list().expect("names");
    assert!(names.iter().filter(|name| is_segment(name)).count() > 2, "{names:?}");
    for name in &names {
        let mut bytes = 0;
        disk.change(name, |content| bytes = content.len());
        // Of an index, which is derived and mostly empty, fewer are enough.
        let step = if is_index(name) { 31 * step } else { step };
        for byte in (0..bytes).step_by(step) {
            let damaged = disk.copy();
            damaged.change(name, |content| content[byte] ^= 1 << (byte % 8));
            check(&damaged, &said, filters, &format!("{name} at {byte}"), true).await;
        }
    }
}

#[tokio::test]
async fn a_missing_file_is_reported() {
    for (disk, said) in [filled().await, compacted().await] {
        for name in disk.list().expect("names") {
            let damaged = disk.copy();
            damaged.remove(&name).expect("it is there");
            check(&damaged, &said, &[exact("a"), exact("b")], &format!("{name} is missing"), false).await;
        }
    }
}

/// What a later group says of the sync before it proves that the others had been acknowledged.
#[tokio::test]
async fn damage_in_a_log_that_was_not_closed_loses_no_event_behind_it() {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk).expect("a fresh log");
    for text in ["first", "rotten", "third", "fourth"] {
        log.append(Batch { events: vec![event("a", text)], key: None }).await.expect("room");
    }
    let killed = disk.copy();
    flip(&killed, "00000000000000000001.log", "rotten");
    let log = open(&killed).expect("it opens");
    let page = log.read(Position::BEFORE_ALL, &everything(), usize::MAX).await.expect("a page");
    let texts: Vec<_> = page.entries.iter().map(|entry| &*entry.event.data).collect();
    assert_eq!(texts, ["first", "third", "fourth"]);
    assert_eq!(page.floor, Some(crate::numbers::position(2)));
}

/// After a failed sync the file is cut off where its acknowledged events end. Where that fails too,
/// the next segment says where they end.
#[tokio::test]
async fn what_a_file_that_was_given_up_holds_beyond_its_end_does_not_come_back() {
    const GIVEN_UP: &str = "00000000000000000001.log";
    let disk = SimulatedDisk::new(1);
    let log = open(&disk).expect("a fresh log");
    let append = async |log: &SegmentLog, text: &str| {
        log.append(Batch { events: vec![event("a", text)], key: None }).await
    };
    append(&log, "kept").await.expect("room");
    let not_cut = disk.copy();
    append(&open(&not_cut).expect("it opens"), "not acknowledged").await.expect("room");
    disk.set_syncs_fail(true);
    assert!(matches!(append(&log, "not acknowledged").await, Err(AppendError::OutcomeUnknown(_))));
    disk.set_syncs_fail(false);
    append(&log, "next").await.expect("another segment");
    let killed = disk.copy();
    not_cut.change(GIVEN_UP, |longer| killed.change(GIVEN_UP, |content| content.clone_from(longer)));
    for index in killed.list().expect("names").iter().filter(|name| is_index(name)) {
        killed.remove(index).expect("it is there");
    }
    let log = open(&killed).expect("it opens");
    let page = log.read(Position::BEFORE_ALL, &everything(), usize::MAX).await.expect("a page");
    let texts: Vec<_> = page.entries.iter().map(|entry| &*entry.event.data).collect();
    assert_eq!(texts, ["kept", "next"]);
}

/// Readers that passed damaged events beyond those that are remembered were not notified.
#[tokio::test]
async fn a_gap_is_reported_however_many_events_are_damaged() {
    const COUNT: usize = 10_002;
    let disk = SimulatedDisk::new(1);
    let settings = SegmentSettings { segment_bytes: None, recent_bytes_max: 0, ..small() };
    let log = SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), settings, Clock::system())
        .expect("a fresh log");
    let batch = Batch { events: vec![event("a", "rotten"); COUNT], key: None };
    log.append(batch).await.expect("room");
    disk.change("00000000000000000001.log", |content| {
        let places: Vec<_> = (0..content.len()).filter(|at| content[*at..].starts_with(b"rotten")).collect();
        assert_eq!(places.len(), COUNT);
        for place in places {
            content[place] ^= 1;
        }
    });
    let newest = crate::numbers::position(COUNT as u64);
    for after in [Position::BEFORE_ALL, crate::numbers::just_before(newest)] {
        let page = log.read(after, &everything(), usize::MAX).await.expect("a page");
        assert_eq!((page.entries.len(), page.floor), (0, Some(newest)));
    }
}

/// Readers of a pattern look for the newest floor that applies to them, and this one applies to all.
#[tokio::test]
async fn a_damaged_event_is_reported_to_readers_of_a_pattern_after_older_gaps() {
    let disk = SimulatedDisk::new(1);
    let settings = SegmentSettings { count_max: Some(2), recent_bytes_max: 0, ..small() };
    let log = SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), settings, Clock::system())
        .expect("a fresh log");
    for text in ["expired", "kept", "rotten"] {
        log.append(Batch { events: vec![event("/a", text)], key: None }).await.expect("room");
    }
    flip(&disk, "00000000000000000001.log", "rotten");
    let matchers = vec![Validator::default().pattern("/a*").expect("a pattern")];
    let filter = Filter { matchers, grants: Grants::NONE };
    let page = log.read(Position::BEFORE_ALL, &filter, usize::MAX).await.expect("a page");
    assert_eq!(page.floor, Some(crate::numbers::position(3)));
}

/// Every page is whole, but it is another page, or one of another segment.
#[tokio::test]
async fn an_index_with_pages_of_another_place_is_made_anew() {
    const PAGE_BYTES: usize = 4096;
    let disk = SimulatedDisk::new(1);
    let open = |disk: &SimulatedDisk| {
        SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), small(), Clock::system())
    };
    let log = open(&disk).expect("a fresh log");
    for _ in 0..3 {
        let events = (0..800).map(|number| event(["a", "b"][number % 2], "text")).collect();
        log.append(Batch { events, key: None }).await.expect("room");
    }
    log.close().await;
    let mut names = disk.list().expect("names");
    names.retain(|name| is_index(name));
    let [first, second] = &*names else { panic!("{names:?}") };
    let (swapped, exchanged) = (disk.copy(), disk.copy());
    swapped.change(first, |content| {
        let (one, other) = content.split_at_mut(2 * PAGE_BYTES);
        one[PAGE_BYTES..].swap_with_slice(&mut other[..PAGE_BYTES]);
    });
    exchanged.change(first, |content| disk.change(second, |other| content.clone_from(other)));
    for disk in [swapped, exchanged] {
        let log = open(&disk).expect("it opens");
        for topic in ["a", "b"] {
            let page = log.read(Position::BEFORE_ALL, &exact(topic), usize::MAX).await.expect("a page");
            assert_eq!((page.entries.len(), page.floor), (1_200, None));
        }
        assert_eq!(log.health().await, Ok(()));
    }
}

/// The first topic of the segment is not in its index any more, so that all others have other places.
#[tokio::test]
async fn a_rule_keeps_what_it_kept_after_an_index_was_made_anew() {
    const FIRST: &str = "00000000000000000001";
    let disk = SimulatedDisk::new(1);
    let matcher = Validator::default().exact("short").expect("a topic");
    let rule = RetentionRule { matcher, age_max: None, bytes_max: None, count_max: Some(2) };
    let settings = SegmentSettings { retention: vec![rule], ..small() };
    let log = SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), settings, Clock::system())
        .expect("a fresh log");
    let append = async |topic: &str, text: &str| {
        log.append(Batch { events: vec![event(topic, text)], key: None }).await.expect("room");
    };
    let large = "x".repeat(5_000);
    for (topic, text) in [("first", "rotten"), ("short", ""), ("long", ""), ("first", &*large), ("short", "")]
    {
        append(topic, text).await;
    }
    flip(&disk, &format!("{FIRST}.log"), "rotten");
    let sealed = async {
        while !log.0.log.store.segments().0[0].is_sealed() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), sealed).await.expect("it is written");
    disk.change(&format!("{FIRST}.index"), |content| content.fill(0));
    let after = crate::numbers::position(1);
    let read_long = async || log.read(after, &exact("long"), usize::MAX).await.expect("a page");
    assert_eq!((read_long().await.entries.len(), read_long().await.floor), (1, None));
    for _ in 0..2 {
        append("short", &large).await;
    }
    assert_eq!((read_long().await.entries.len(), read_long().await.floor), (1, None));
    let short = log.read(after, &exact("short"), usize::MAX).await.expect("a page");
    assert_eq!(short.entries.len(), 2);
}

/// The first page has what is needed to open it, the last one has the topics, and what is damaged is
/// one between them.
#[tokio::test]
async fn a_rule_keeps_what_it_kept_while_an_index_is_made_anew() {
    const PAGE_BYTES: usize = 4096;
    let disk = SimulatedDisk::new(1);
    let matcher = Validator::default().exact("short").expect("a topic");
    let rule = RetentionRule { matcher, age_max: None, bytes_max: None, count_max: Some(2) };
    let settings = SegmentSettings { retention: vec![rule], segment_bytes: Some(100_000), ..small() };
    let open = || {
        SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), settings.clone(), Clock::system())
            .expect("it opens")
    };
    let log = open();
    let mut events = vec![event("first", "rotten"), event("short", ""), event("short", "")];
    events.resize(800, event("long", ""));
    log.append(Batch { events, key: None }).await.expect("room");
    log.append(Batch { events: vec![event("long", &"x".repeat(100_000))], key: None }).await.expect("room");
    log.append(Batch { events: vec![event("long", "")], key: None }).await.expect("room");
    log.close().await;
    let mut names = disk.list().expect("names");
    names.retain(|name| is_index(name));
    flip(&disk, &names[0].replace(".index", ".log"), "rotten");
    disk.change(&names[0], |content| {
        assert!(content.len() > 3 * PAGE_BYTES && !contains(&content[..2 * PAGE_BYTES], "short"));
        content[PAGE_BYTES] ^= 1;
    });
    let log = open();
    log.append(Batch { events: vec![event("long", "")], key: None }).await.expect("room");
    let short = log.read(Position::BEFORE_ALL, &exact("short"), usize::MAX).await.expect("a page");
    assert_eq!(short.entries.len(), 2);
}

async fn check(disk: &SimulatedDisk, said: &[(Cursor, String)], filters: &[Filter], what: &str, red: bool) {
    let log = match open(disk) {
        Ok(log) => log,
        // A version that was damaged has a wrong checksum: only a real one is refused.
        Err(error) => panic!("{what}: {error}"),
    };
    for filter in filters {
        let page = log.read(Position::BEFORE_ALL, filter, usize::MAX).await.expect("a page");
        let bounds = log.bounds().await.expect("bounds");
        let mut missing = None;
        for (number, (cursor, text)) in said.iter().enumerate() {
            let found = page.entries.iter().find(|entry| entry.cursor == *cursor);
            if let Some(found) = found {
                assert_eq!(found.event.data, *text, "{what}");
            } else if filter.accepts_topics(&event(["a", "b"][number % 2], "").topics, false) {
                missing = Some(*cursor);
            }
        }
        assert!(
            page.entries.iter().all(|entry| said.iter().any(|(cursor, _)| *cursor == entry.cursor)),
            "{what}"
        );
        if let Some(missing) = missing {
            // A reader who had come as far as the event before it is reported.
            let reported_by_floor = page.floor.is_some_and(|floor| floor >= missing.position);
            let reported_by_epoch = matches!(
                bounds.epochs.locate(missing, bounds.newest),
                Located::Earlier(_) | Located::Unknown
            );
            assert!(
                reported_by_floor || reported_by_epoch,
                "{what}: {missing:?} is missing and nobody is reported"
            );
        }
        let last = log.last(usize::MAX, filter, usize::MAX).await.expect("a page");
        assert_eq!(last.entries, page.entries, "{what}");
        // That the log begins later is not by itself a sign of damage.
        if red && page.floor.is_some() {
            assert!(log.health().await.is_err(), "{what}: health is red");
        }
    }
    let deleted = log.read(Position::BEFORE_ALL, &exact("deleted"), usize::MAX).await.expect("a page");
    if red && !deleted.entries.is_empty() {
        assert!(log.health().await.is_err(), "{what}: health is red");
    }
    let appended = log.append(Batch { events: vec![event("a", "next")], key: None }).await;
    assert!(matches!(appended, Ok(Appended::New { .. })), "{what}: {appended:?}");
}
