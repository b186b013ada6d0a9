//! The conformance suite, and behaviour that only a remote log has.

use tidings_log::{Entry, IdempotencyKey, Located, MemoryLog};
use tidings_log_conformance::check_all;
use tidings_topic::{NewEvent, Validator};

use super::*;

async fn without_faults(limits: MemoryLimits, clock: Option<Clock>) -> Option<Arc<dyn Log>> {
    Some(Arc::new(DelayedLog::with_clock(1, Faults::default(), limits, clock.unwrap_or_default())))
}

tidings_log_conformance::conformance!(conformance, without_faults);

#[tokio::test(start_paused = true)]
async fn a_slow_log_keeps_every_promise() {
    check_all(async |limits, clock: Option<Clock>| {
        let log = DelayedLog::with_clock(2, slow(), limits, clock.unwrap_or_default());
        Some(Arc::new(log) as Arc<dyn Log>)
    })
    .await;
}

fn slow() -> Faults {
    Faults { latency_max: Duration::from_millis(20), ..Faults::default() }
}

fn fresh() -> DelayedLog {
    DelayedLog::new(3, Faults::default(), MemoryLimits::default())
}

fn keeping(count_max: u64) -> DelayedLog {
    let limits = MemoryLimits { count_max: Some(count_max), ..MemoryLimits::default() };
    DelayedLog::new(4, Faults::default(), limits)
}

fn event(text: &str) -> Event {
    Validator::default().event(NewEvent::new("a", text)).expect("a valid event")
}

fn batch(text: &str, key: Option<&str>) -> Batch {
    let key = key.map(|key| IdempotencyKey::new(key).expect("a valid key"));
    Batch { events: vec![event(text)], key }
}

async fn append(log: &DelayedLog, texts: &[&str]) -> Vec<Cursor> {
    let mut cursors = Vec::new();
    for text in texts {
        match log.append(batch(text, None)).await {
            Ok(Appended::New { last, .. }) => cursors.push(last),
            other => panic!("expected a new batch, got {other:?}"),
        }
    }
    cursors
}

async fn texts(log: &DelayedLog) -> Vec<String> {
    let page = log.read(Position::BEFORE_ALL, &Filter::everything_public(), usize::MAX).await;
    page.expect("a page").entries.iter().map(|entry| entry.event.data.clone()).collect()
}

/// The next item in short: texts of entries, `skipped`, or `epoch`.
async fn received(tail: &mut Box<dyn Tail>) -> String {
    match tail.next(usize::MAX).await.expect("the log is open") {
        TailItem::Entries(entries) => {
            entries.iter().map(|entry| entry.event.data.as_str()).collect::<Vec<_>>().join(" ")
        }
        TailItem::Skipped { through } => format!("skipped {through:?}"),
        TailItem::Deleted { serial } => format!("deleted {serial}"),
        TailItem::NewEpoch(start) => format!("epoch {:?} after {:?}", start.epoch, start.after),
    }
}

fn skipped(through: Position) -> String {
    format!("skipped {through:?}")
}

fn epoch(start: EpochStart) -> String {
    format!("epoch {:?} after {:?}", start.epoch, start.after)
}

#[tokio::test]
async fn a_lost_end_starts_an_epoch_that_reuses_its_positions() {
    let log = fresh();
    let before = append(&log, &["1", "2", "3"]).await;
    let start = log.lose_end(2);
    assert_eq!(start.after, before[0].position);
    let after = append(&log, &["other 2"]).await;
    assert_eq!(after[0].position, before[1].position);
    assert_ne!(after[0].to_event_id(), before[1].to_event_id());
    assert_eq!(texts(&log).await, ["1", "other 2"]);
    let bounds = log.bounds().await.expect("bounds");
    assert_eq!(bounds.epochs.current(), start);
    assert_eq!(bounds.epochs.locate(before[2], bounds.newest), Located::Earlier(before[0].position));
    assert_eq!(bounds.epochs.locate(after[0], bounds.newest), Located::Here(after[0].position));
}

#[tokio::test]
async fn events_of_a_lost_end_are_no_longer_found() {
    let log = fresh();
    let own = |id: &str| {
        let new = NewEvent::new("a", id).id(id);
        Validator::default().event(new).expect("a valid event")
    };
    log.append_foreign(vec![own("kept"), own("lost"), own("lost")]).expect("it fits");
    log.lose_end(2);
    let resolve =
        async |id| log.resolve(&own(id).id.expect("an id"), &Grants::NONE).await.expect("an answer");
    assert!(resolve("kept").await.is_some());
    assert_eq!(resolve("lost").await, None);
    let filter =
        Filter { matchers: vec![Validator::default().exact("a").expect("a topic")], grants: Grants::NONE };
    let page = log.read(Position::BEFORE_ALL, &filter, usize::MAX).await.expect("a page");
    assert_eq!((page.entries.len(), page.floor), (1, None), "the epoch reports the loss, not a floor");
}

#[tokio::test]
async fn the_key_of_a_lost_batch_appends_it_again() {
    let log = fresh();
    for key in ["kept", "lost"] {
        log.append(batch(key, Some(key))).await.expect("it fits");
    }
    log.lose_end(1);
    assert!(matches!(log.append(batch("kept", Some("kept"))).await, Ok(Appended::Duplicate { .. })));
    assert!(matches!(log.append(batch("again", Some("lost"))).await, Ok(Appended::New { .. })));
    assert_eq!(texts(&log).await, ["kept", "again"]);
}

#[tokio::test]
async fn a_tail_reports_a_lost_end() {
    let log = fresh();
    let (_, mut tail) = log.tail().await.expect("a tail");
    append(&log, &["1", "2"]).await;
    assert_eq!(received(&mut tail).await, "1 2");
    let waiting = tokio::spawn(async move { (received(&mut tail).await, tail) });
    tokio::task::yield_now().await;
    let start = log.lose_end(1);
    let (item, mut tail) = waiting.await.expect("the tail is woken");
    assert_eq!(item, epoch(start));
    append(&log, &["other 2"]).await;
    assert_eq!(received(&mut tail).await, "other 2");
}

#[tokio::test]
async fn a_lagging_tail_first_yields_what_was_kept() {
    let log = fresh();
    let (_, mut tail) = log.tail().await.expect("a tail");
    append(&log, &["1", "2", "3"]).await;
    let start = log.lose_end(1);
    append(&log, &["other 3"]).await;
    assert_eq!(received(&mut tail).await, "1 2");
    assert_eq!(received(&mut tail).await, epoch(start));
    assert_eq!(received(&mut tail).await, "other 3");
}

#[tokio::test]
async fn a_lagging_tail_yields_each_epoch_that_kept_events() {
    let log = fresh();
    let (_, mut tail) = log.tail().await.expect("a tail");
    append(&log, &["1", "2", "3"]).await;
    assert_eq!(received(&mut tail).await, "1 2 3");
    log.lose_end(1);
    append(&log, &["lost again"]).await;
    let second = log.lose_end(2);
    append(&log, &["2b", "3b", "4b"]).await;
    let third = log.lose_end(1);
    append(&log, &["4c"]).await;
    assert_eq!(received(&mut tail).await, epoch(second));
    assert_eq!(received(&mut tail).await, "2b 3b");
    assert_eq!(received(&mut tail).await, epoch(third));
    assert_eq!(received(&mut tail).await, "4c");
}

#[tokio::test]
async fn an_epoch_that_kept_no_event_is_skipped() {
    let log = fresh();
    let (_, mut tail) = log.tail().await.expect("a tail");
    append(&log, &["1", "2"]).await;
    log.lose_end(1);
    append(&log, &["lost again"]).await;
    let second = log.lose_end(1);
    assert_eq!(received(&mut tail).await, "1");
    assert_eq!(received(&mut tail).await, epoch(second));
    append(&log, &["2c"]).await;
    assert_eq!(received(&mut tail).await, "2c");
}

#[tokio::test]
async fn a_lagging_tail_reports_retention_in_each_epoch() {
    let log = keeping(2);
    let (_, mut tail) = log.tail().await.expect("a tail");
    let first = append(&log, &["1", "2", "3"]).await;
    let start = log.lose_end(1);
    let second = append(&log, &["3b", "4b", "5b", "6b"]).await;
    assert_eq!(received(&mut tail).await, skipped(first[1].position));
    assert_eq!(received(&mut tail).await, epoch(start));
    assert_eq!(received(&mut tail).await, skipped(second[1].position));
    assert_eq!(received(&mut tail).await, "5b 6b");
}

#[tokio::test]
async fn a_replaced_log_is_another_log() {
    let log = fresh();
    let (_, mut tail) = log.tail().await.expect("a tail");
    let before = append(&log, &["1", "2"]).await;
    assert_eq!(received(&mut tail).await, "1 2");
    let new = log.replace();
    let bounds = log.bounds().await.expect("bounds");
    assert_eq!((bounds.epochs.current().epoch, bounds.epochs.iter().count()), (new, 1));
    assert_eq!((bounds.oldest, bounds.newest), (None, Position::BEFORE_ALL));
    append(&log, &["new 1", "new 2", "new 3"]).await;
    let newest = log.bounds().await.expect("bounds").newest;
    assert_eq!(bounds.epochs.locate(before[0], newest), Located::Unknown);
    assert_eq!(received(&mut tail).await, epoch(bounds.epochs.current()));
    assert_eq!(received(&mut tail).await, "new 1 new 2 new 3");
}

#[tokio::test]
async fn a_tail_of_a_replaced_log_starts_from_its_beginning() {
    let log = fresh();
    let (_, mut tail) = log.tail().await.expect("a tail");
    append(&log, &["old"]).await;
    log.replace();
    let first = log.bounds().await.expect("bounds").epochs.current();
    append(&log, &["1", "2"]).await;
    let second = log.lose_end(1);
    append(&log, &["2b"]).await;
    assert_eq!(received(&mut tail).await, epoch(first));
    assert_eq!(received(&mut tail).await, "1");
    assert_eq!(received(&mut tail).await, epoch(second));
    assert_eq!(received(&mut tail).await, "2b");
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_log_refuses_appends_and_its_tails_wait() {
    let log = DelayedLog::new(5, slow(), MemoryLimits::default());
    let (_, mut tail) = log.tail().await.expect("a tail");
    append(&log, &["before"]).await;
    log.go_down();
    let refused = log.append(batch("refused", None)).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    assert!(log.bounds().await.is_err());
    assert!(log.health().await.is_err());
    assert!(log.tail().await.is_err());
    assert!(log.read(Position::BEFORE_ALL, &Filter::everything_public(), 1).await.is_err());
    log.append_foreign(vec![event("foreign")]).expect("it fits");
    let patience = Duration::from_secs(3_600);
    assert!(
        tokio::time::timeout(patience, tail.next(1)).await.is_err(),
        "a tail waits until the log is reachable"
    );
    log.come_back();
    assert_eq!(received(&mut tail).await, "before foreign");
    assert_eq!(texts(&log).await, ["before", "foreign"]);
}

#[tokio::test]
async fn an_unavailable_append_appends_nothing() {
    let faults = Faults { append_unavailable_per_mille: 500, ..Faults::default() };
    let log = DelayedLog::new(6, faults, MemoryLimits::default());
    let mut acknowledged = Vec::new();
    for number in 0..100 {
        let text = number.to_string();
        match log.append(batch(&text, None)).await {
            Ok(_) => acknowledged.push(text),
            Err(error) => assert!(matches!(error, AppendError::Unavailable(_)), "{error:?}"),
        }
    }
    assert!((10..90).contains(&acknowledged.len()));
    assert_eq!(texts(&log).await, acknowledged);
}

#[tokio::test]
async fn repeating_the_key_resolves_an_unknown_outcome() {
    let faults = Faults { outcome_unknown_per_mille: 700, ..Faults::default() };
    let log = DelayedLog::new(7, faults, MemoryLimits::default());
    let (mut was_appended, mut was_not) = (0, 0);
    for number in 0..100 {
        let text = number.to_string();
        let mut unknown = false;
        loop {
            match log.append(batch(&text, Some(&text))).await {
                Err(AppendError::OutcomeUnknown(_)) => unknown = true,
                Ok(Appended::Duplicate { .. }) => break was_appended += 1,
                Ok(Appended::New { .. }) => break was_not += usize::from(unknown),
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
    assert!(was_appended > 10 && was_not > 10, "{was_appended} and {was_not}: either outcome");
    assert_eq!(texts(&log).await, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn appends_of_other_hubs_are_in_the_same_order() {
    let log = fresh();
    let (_, mut tail) = log.tail().await.expect("a tail");
    append(&log, &["1"]).await;
    log.append_foreign(vec![event("2"), event("3")]).expect("it fits");
    append(&log, &["4"]).await;
    assert_eq!(received(&mut tail).await, "1 2 3 4");
    assert_eq!(texts(&log).await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_seed_determines_the_epochs() {
    let epochs = async |seed| {
        let log = DelayedLog::new(seed, Faults::default(), MemoryLimits::default());
        (log.lose_end(0).epoch, log.replace(), log.bounds().await.expect("bounds").epochs)
    };
    assert_eq!(epochs(8).await, epochs(8).await);
    assert_ne!(epochs(8).await, epochs(9).await);
}

/// A reader that applies every item of a tail ends with what the log holds, whatever faults
/// occurred.
#[tokio::test(start_paused = true)]
async fn a_tail_survives_every_fault() {
    for seed in 0..50 {
        let log = Arc::new(DelayedLog::new(seed, slow(), MemoryLimits::default()));
        let (_, tail) = log.tail().await.expect("a tail");
        let listening = tokio::spawn(listen(tail));
        let mut publishers = tokio::task::JoinSet::new();
        for publisher in 0..3 {
            let log = Arc::clone(&log);
            publishers.spawn(async move {
                for number in 0..30 {
                    let _ = log.append(batch(&format!("{publisher}/{number}"), None)).await;
                }
            });
        }
        let mut random = Random::new(seed);
        for _ in 0..20 {
            sleep(Duration::from_millis(random.next() % 50)).await;
            match random.next() % 5 {
                0 => drop(log.lose_end(random.next() % 6)),
                1 => log.go_down(),
                2 => log.come_back(),
                3 => drop(log.append_foreign(vec![event("foreign"), event("foreign")])),
                _ if random.happens(200) => drop(log.replace()),
                _ => {}
            }
        }
        log.come_back();
        publishers.join_all().await;
        append(&log, &["end"]).await;
        let received = listening.await.expect("the tail reaches the end");
        let page = log.read(Position::BEFORE_ALL, &Filter::everything_public(), usize::MAX).await;
        assert_eq!(received, page.expect("a page").entries, "seed {seed}");
    }
}

async fn listen(mut tail: Box<dyn Tail>) -> Vec<Arc<Entry>> {
    let mut received: Vec<Arc<Entry>> = Vec::new();
    while received.last().is_none_or(|entry| entry.event.data != "end") {
        match tail.next(1_000).await.expect("the log is open") {
            TailItem::Entries(entries) => received.extend(entries),
            TailItem::NewEpoch(start) => received.retain(|entry| entry.cursor.position <= start.after),
            other => panic!("nothing was dropped or deleted: {other:?}"),
        }
    }
    received
}

/// The list of entries and the ledger of a log in memory give the same answers, whatever happens.
#[tokio::test]
async fn it_answers_as_a_log_in_memory_does() {
    for seed in 0..100 {
        let clock = Clock::manual(Timestamp::from_millis(1_000_000));
        let limits = MemoryLimits {
            count_max: Some(12),
            age_max: Some(Duration::from_millis(200)),
            keys_max: 3,
            ..MemoryLimits::default()
        };
        let delayed = DelayedLog::with_clock(seed, Faults::default(), limits.clone(), clock.clone());
        let memory = MemoryLog::with_clock(limits, clock.clone());
        let mut random = Random::new(seed);
        for _ in 0..60 {
            let topic = |number: u64| ["a", "/b/1", "/b/2"][(number % 3) as usize];
            match random.next() % 3 {
                0 => {
                    let events = (0..=random.next() % 3).map(|_| {
                        let mut new =
                            NewEvent::new(topic(random.next()), "x".repeat(20)).also(topic(random.next()));
                        new.private = random.happens(300);
                        new.id = random.happens(300).then(|| "own".to_owned());
                        Validator::default().event(new).expect("a valid event")
                    });
                    let events = events.collect();
                    let key = IdempotencyKey::new(&format!("key-{}", random.next() % 5))
                        .filter(|_| random.happens(500));
                    let batch = Batch { events, key };
                    let one = delayed.append(batch.clone()).await.expect("it fits");
                    let other = memory.append(batch).await.expect("it fits");
                    assert_eq!(is_new(&one), is_new(&other), "seed {seed}");
                }
                1 if random.happens(300) => {
                    let topic = Validator::default().topic(topic(random.next())).expect("a topic");
                    let grants = grants(&mut random);
                    assert_eq!(
                        delayed.delete(&topic, &grants).await,
                        memory.delete(&topic, &grants).await,
                        "seed {seed}"
                    );
                }
                1 => clock.advance(Duration::from_millis(random.next() % 40)),
                _ => {
                    let validator = Validator::default();
                    let matchers =
                        [validator.exact("a"), validator.pattern("/b/:number"), validator.exact("*")];
                    let matchers = matchers.into_iter().flatten().filter(|_| random.happens(400)).collect();
                    let filter = Filter { matchers, grants: grants(&mut random) };
                    let after = tidings_log::parts::position(random.next() % 80);
                    let bytes_max = [1, 1_000, usize::MAX][(random.next() % 3) as usize];
                    let one = delayed.read(after, &filter, bytes_max).await.expect("a page");
                    let other = memory.read(after, &filter, bytes_max).await.expect("a page");
                    assert_eq!(in_short(&one), in_short(&other), "seed {seed}");
                    let count = usize::try_from(random.next() % 5).expect("it is small");
                    let one = delayed.last(count, &filter, usize::MAX).await.expect("a page");
                    let other = memory.last(count, &filter, usize::MAX).await.expect("a page");
                    assert_eq!(in_short(&one), in_short(&other), "seed {seed}");
                    let id = validator.event_id("own").expect("an id");
                    assert_eq!(
                        delayed.resolve(&id, &filter.grants).await,
                        memory.resolve(&id, &filter.grants).await
                    );
                    let ago = Duration::from_millis(random.next() % 300);
                    assert_eq!(
                        delayed.position_ago(ago).await,
                        memory.position_ago(ago).await,
                        "seed {seed}"
                    );
                }
            }
        }
    }
}

fn grants(random: &mut Random) -> Grants {
    let validator = Validator::default();
    let granted = [validator.exact("a"), validator.pattern("/b/*"), validator.exact("*")];
    granted.into_iter().flatten().filter(|_| random.happens(500)).collect()
}

fn is_new(appended: &Appended) -> bool {
    matches!(appended, Appended::New { .. })
}

/// A page without what differs from log to log: the epoch, and generated ids.
fn in_short(page: &Page) -> (Position, Vec<(Position, Event)>, Position, bool, Option<Position>) {
    let entries = page.entries.iter().map(|entry| (entry.cursor.position, entry.event.clone())).collect();
    (page.after, entries, page.through, page.at_end, page.floor)
}
