//! The logs that the checks are made with, and what the checks have in common.

use std::{sync::Arc, time::Duration};

use tidings_topic::{Event, Filter, Grants, Matcher, NewEvent, Topic, Validator};

use tidings_log::{
    AppendError, Appended, Batch, Clock, Cursor, Entry, EventId, IdempotencyKey, Log, MemoryLimits, Page,
    Position, Tail, TailItem,
};

/// How often a check repeats concurrent operations.
pub const ROUNDS: usize = 50;

/// Makes a fresh, empty log for each check. Implemented for every
/// `async fn(MemoryLimits, Option<Clock>) -> Option<Arc<dyn Log>>`.
pub trait Make {
    /// Makes a log with these limits of events, bytes, age and keys, exactly, down to a few events.
    /// `None` if it cannot use the clock that it is given, or cannot limit its keys. Larger limits
    /// must be enough for a few hundred events.
    fn make(&self, limits: MemoryLimits, clock: Option<Clock>) -> impl Future<Output = Option<Arc<dyn Log>>>;
}

impl<F, Fut> Make for F
where
    F: Fn(MemoryLimits, Option<Clock>) -> Fut,
    Fut: Future<Output = Option<Arc<dyn Log>>>,
{
    fn make(&self, limits: MemoryLimits, clock: Option<Clock>) -> impl Future<Output = Option<Arc<dyn Log>>> {
        self(limits, clock)
    }
}

/// A page limit that no check in this suite reaches.
pub(super) const PLENTY: usize = 16 * 1024 * 1024;

/// How long to wait for an expected item. Far more than any log needs; it only ends a test that
/// would hang.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn plain(make: &impl Make) -> Arc<dyn Log> {
    limited(make, MemoryLimits::default()).await
}

/// A log with limits that every log has.
pub(super) async fn limited(make: &impl Make, limits: MemoryLimits) -> Arc<dyn Log> {
    make.make(limits, None).await.expect("every log has these limits")
}

pub(super) fn valid(new: NewEvent) -> Event {
    Validator::default().event(new).expect("a valid event")
}

pub(super) fn event(topic: &str, data: &str) -> Event {
    valid(NewEvent::new(topic, data))
}

pub(super) fn private(topic: &str, data: &str) -> Event {
    valid(NewEvent::new(topic, data).private())
}

pub(super) fn exact(topic: &str) -> Matcher {
    Validator::default().exact(topic).expect("a topic")
}

pub(super) fn topic(text: &str) -> Topic {
    Validator::default().topic(text).expect("a topic")
}

pub(super) fn pattern(text: &str) -> Matcher {
    Validator::default().pattern(text).expect("a pattern")
}

pub(super) fn public(matcher: Matcher) -> Filter {
    granted(matcher, &[])
}

/// A filter of a reader with these grants.
pub(super) fn granted(matcher: Matcher, grants: &[Matcher]) -> Filter {
    Filter { matchers: vec![matcher], grants: grants.iter().cloned().collect() }
}

/// A filter that accepts every event, private or not.
pub(super) fn everything() -> Filter {
    Filter { matchers: vec![Matcher::Any], grants: Grants::all() }
}

pub(super) fn id(text: &str) -> EventId {
    Validator::default().event_id(text).expect("a valid id")
}

/// Appends and expects a new batch.
pub(super) async fn append(log: &Arc<dyn Log>, events: Vec<Event>) -> (Vec<EventId>, Cursor) {
    match append_with_key(log, events, None).await {
        Ok(Appended::New { ids, last }) => (ids, last),
        other => panic!("expected a new batch, got {other:?}"),
    }
}

pub(super) async fn append_with_key(
    log: &Arc<dyn Log>,
    events: Vec<Event>,
    key: Option<&str>,
) -> Result<Appended, AppendError> {
    let key = key.map(|key| IdempotencyKey::new(key).expect("a valid key"));
    log.append(Batch { events, key }).await
}

/// Appends an event for each text and returns the positions.
pub(super) async fn append_each(log: &Arc<dyn Log>, topic: &str, texts: &[&str]) -> Vec<Position> {
    let mut positions = Vec::new();
    for text in texts {
        positions.push(append(log, vec![event(topic, text)]).await.1.position);
    }
    positions
}

pub(super) async fn read(log: &Arc<dyn Log>, after: Position, filter: &Filter) -> Page {
    log.read(after, filter, PLENTY).await.expect("the log answers")
}

/// Reads page by page up to the end, and checks the invariants of each page.
pub(super) async fn read_all(
    log: &Arc<dyn Log>,
    mut after: Position,
    filter: &Filter,
    bytes_max: usize,
) -> Vec<Arc<Entry>> {
    let mut entries = Vec::new();
    loop {
        let page = log.read(after, filter, bytes_max).await.expect("the log answers");
        assert_bounded(&page.entries, bytes_max);
        assert!(page.entries.iter().all(|entry| entry.cursor.position > after), "no entry is repeated");
        assert!(
            page.entries.iter().all(|entry| entry.cursor.position <= page.through),
            "`through` covers every entry"
        );
        assert!(page.entries.iter().all(|entry| filter.accepts(&entry.event)), "the filter is obeyed");
        assert!(page.through > after || page.at_end, "a page that is not the last makes progress");
        entries.extend(page.entries);
        after = page.through;
        if page.at_end {
            assert_ordered(&entries);
            return entries;
        }
    }
}

pub(super) fn assert_ordered(entries: &[Arc<Entry>]) {
    assert!(entries.is_sorted_by(|one, next| one.cursor.position < next.cursor.position), "one order");
}

/// Without its last entry, the item is below the limit.
fn assert_bounded(entries: &[Arc<Entry>], bytes_max: usize) {
    if let Some((_, head)) = entries.split_last() {
        let bytes: usize = head.iter().map(|entry| entry.memory_bytes()).sum();
        assert!(head.is_empty() || bytes < bytes_max, "{} entries for {bytes_max} bytes", entries.len());
    }
}

pub(super) fn texts(entries: &[Arc<Entry>]) -> Vec<&str> {
    entries.iter().map(|entry| entry.event.data.as_str()).collect()
}

pub(super) async fn next(tail: &mut Box<dyn Tail>, bytes_max: usize) -> TailItem {
    let item = tokio::time::timeout(PATIENCE, tail.next(bytes_max)).await.expect("the tail yields an item");
    item.expect("the log is open")
}

pub(super) async fn next_entries(tail: &mut Box<dyn Tail>, bytes_max: usize) -> Vec<Arc<Entry>> {
    match next(tail, bytes_max).await {
        TailItem::Entries(entries) => {
            assert!(!entries.is_empty(), "at least one entry");
            assert_bounded(&entries, bytes_max);
            entries
        }
        other => panic!("expected entries, got {other:?}"),
    }
}

/// Publishers that append batches concurrently, each in its own task: the data of event `b` of
/// batch `n` of publisher `p` is `p/n/b`.
pub(super) fn publishers(
    log: &Arc<dyn Log>,
    count: usize,
    batches: usize,
    size: usize,
) -> tokio::task::JoinSet<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for publisher in 0..count {
        let log = Arc::clone(log);
        tasks.spawn(async move {
            for batch in 0..batches {
                let say = |number| event("busy", &format!("{publisher}/{batch}/{number}"));
                append(&log, (0..size).map(say).collect()).await;
            }
        });
    }
    tasks
}
