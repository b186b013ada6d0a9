//! The conformance suite that every [`Log`] passes.
//!
//! Each check verifies one guarantee with fresh logs from a factory.
//! [`conformance!`](crate::conformance!) makes a test of each; [`check_all`] runs them one after
//! the other. A check that needs an ability that the log lacks in tests (see [`Abilities`]) passes
//! without checking anything.

pub mod appending;
pub mod deleting;
pub mod reading;
pub mod retaining;
pub mod tailing;

use std::{sync::Arc, time::Duration};

use tidings_topic::{Event, Filter, Grants, Matcher, NewEvent, Validator};

use crate::{
    AppendError, Appended, Batch, Clock, Cursor, Entry, EventId, IdempotencyKey, Log, MemoryLimits, Page,
    Position, Tail, TailItem,
};

/// How often a check repeats concurrent operations.
pub const ROUNDS: usize = 50;

/// The limits and the clock that a check needs. `None` is the default of the log, which must be
/// enough for a few hundred events.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Keeps at most this many bytes.
    pub bytes_max: Option<u64>,
    /// Keeps at most this many events.
    pub count_max: Option<u64>,
    /// Keeps no event that is older.
    pub age_max: Option<Duration>,
    /// Remembers at most this many idempotency keys.
    pub keys_max: Option<usize>,
    /// Uses this clock.
    pub clock: Clock,
}

impl Wanted {
    /// The same limits for a log in memory.
    pub fn memory_limits(&self) -> MemoryLimits {
        let default = MemoryLimits::default();
        MemoryLimits {
            bytes_max: self.bytes_max.unwrap_or(default.bytes_max),
            count_max: self.count_max,
            age_max: self.age_max,
            keys_max: self.keys_max.unwrap_or(default.keys_max),
            ..default
        }
    }
}

/// Which parts of [`Wanted`] a log can apply. Everything else must work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abilities {
    /// It applies retention limits exactly, down to a few events.
    pub bounds: bool,
    /// It uses the clock that it is given.
    pub clock: bool,
    /// It applies the limit of idempotency keys exactly.
    pub keys: bool,
}

impl Abilities {
    /// All abilities.
    pub const ALL: Self = Self { bounds: true, clock: true, keys: true };
}

/// A fresh, empty log.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Its abilities.
    pub abilities: Abilities,
}

/// Makes a fresh, empty log for each check. Implemented for every `async fn(Wanted) -> Subject`.
pub trait Make {
    /// Makes a log.
    fn make(&self, wanted: Wanted) -> impl Future<Output = Subject>;
}

impl<F, Fut> Make for F
where
    F: Fn(Wanted) -> Fut,
    Fut: Future<Output = Subject>,
{
    fn make(&self, wanted: Wanted) -> impl Future<Output = Subject> {
        self(wanted)
    }
}

/// Runs every check, one after the other. Panics if one fails.
pub async fn check_all(make: impl Make) {
    crate::for_every_conformance_check!(conformance_run, &make);
}

/// Makes a module of tests, one for each check: `conformance!(memory, make)`, where `make` is an
/// `async fn(Wanted) -> Subject`. It needs Tokio with the features `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! conformance {
    ($module:ident, $make:expr) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $crate::for_every_conformance_check!(conformance_test, &$make);
        }
    };
}

/// The list of all checks.
#[doc(hidden)]
#[macro_export]
macro_rules! for_every_conformance_check {
    ($callback:ident, $make:expr) => {
        $crate::$callback! {
            $make;
            appending::events_come_back_in_the_order_they_were_appended
            appending::an_event_comes_back_as_it_was_published
            appending::an_acknowledged_event_is_in_the_log
            appending::a_batch_has_consecutive_positions
            appending::batches_of_one_call_stay_whole_and_in_order
            appending::batches_of_one_call_have_outcomes_of_their_own
            appending::a_call_without_batches_has_no_outcomes
            appending::a_batch_that_cannot_fit_is_refused_completely
            appending::a_publishers_id_is_echoed_even_if_used_twice
            appending::a_generated_id_is_the_cursor_of_its_event
            appending::events_of_each_publisher_stay_in_order
            appending::a_repeated_key_appends_nothing
            appending::concurrent_batches_with_one_key_are_appended_once
            appending::a_refused_batch_does_not_use_up_its_key
            appending::a_key_is_forgotten_beyond_its_window
            deleting::a_deleted_topic_is_no_longer_read
            deleting::a_deletion_raises_the_floor_of_readers_that_missed_events
            deleting::a_deletion_needs_grants_for_all_topics_of_an_event
            deleting::a_deletion_of_nothing_changes_nothing
            deleting::a_deleted_topic_can_be_published_to_again
            deleting::a_tail_reports_a_deletion_that_overtook_it
            reading::pages_join_without_gaps_or_duplicates
            reading::a_page_is_bounded_and_makes_progress
            reading::an_empty_log_is_at_its_end
            reading::a_position_beyond_the_end_yields_an_empty_page
            reading::an_event_of_several_topics_is_read_once
            reading::a_private_event_needs_a_covering_grant
            reading::the_last_events_are_in_log_order
            reading::the_search_for_the_last_events_is_bounded
            reading::an_id_resolves_to_its_oldest_event
            reading::an_id_that_the_reader_may_not_see_is_unknown
            reading::the_bounds_are_the_first_and_last_event
            reading::a_time_resolves_to_the_last_position_before_it
            reading::a_reader_among_publishers_misses_no_event
            reading::a_healthy_log_reports_health
            retaining::the_event_limit_drops_the_oldest
            retaining::the_byte_limit_drops_the_oldest
            retaining::an_expired_event_is_no_longer_read
            retaining::the_order_does_not_depend_on_the_clock
            retaining::a_floor_applies_only_to_readers_that_missed_events
            retaining::a_floor_is_found_by_each_of_its_topics
            retaining::a_private_floor_needs_a_covering_grant
            retaining::a_key_outlives_its_events
            tailing::a_tail_starts_after_its_cursor
            tailing::a_waiting_tail_is_woken
            tailing::a_tail_item_is_bounded
            tailing::a_tail_agrees_with_read_while_many_publish
            tailing::a_cancelled_wait_loses_nothing
            tailing::a_tail_reports_retention_that_overtook_it
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_test {
    ($make:expr; $($group:ident::$check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                $crate::conformance::$group::$check($make).await;
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_run {
    ($make:expr; $($group:ident::$check:ident)*) => {
        $( $crate::conformance::$group::$check($make).await; )*
    };
}

/// A page limit that no check in this suite reaches.
const PLENTY: usize = 16 * 1024 * 1024;

/// How long to wait for an expected item. Far more than any log needs; it only ends a test that
/// would hang.
const PATIENCE: Duration = Duration::from_secs(60);

async fn plain(make: &impl Make) -> Arc<dyn Log> {
    make.make(Wanted::default()).await.log
}

fn valid(new: NewEvent) -> Event {
    Validator::default().event(new).expect("a valid event")
}

fn event(topic: &str, data: &str) -> Event {
    valid(NewEvent::new(topic, data))
}

fn private(topic: &str, data: &str) -> Event {
    valid(NewEvent::new(topic, data).private())
}

fn exact(topic: &str) -> Matcher {
    Validator::default().exact(topic).expect("a topic")
}

fn pattern(text: &str) -> Matcher {
    Validator::default().pattern(text).expect("a pattern")
}

fn public(matcher: Matcher) -> Filter {
    Filter { matchers: vec![matcher], grants: Grants::NONE }
}

/// A filter that accepts every event, private or not.
fn everything() -> Filter {
    Filter { matchers: vec![Matcher::Any], grants: Grants::all() }
}

fn id(text: &str) -> EventId {
    Validator::default().event_id(text).expect("a valid id")
}

/// Appends and expects a new batch.
async fn append(log: &Arc<dyn Log>, events: Vec<Event>) -> (Vec<EventId>, Cursor) {
    match append_with_key(log, events, None).await {
        Ok(Appended::New { ids, last }) => (ids, last),
        other => panic!("expected a new batch, got {other:?}"),
    }
}

async fn append_with_key(
    log: &Arc<dyn Log>,
    events: Vec<Event>,
    key: Option<&str>,
) -> Result<Appended, AppendError> {
    let key = key.map(|key| IdempotencyKey::new(key).expect("a valid key"));
    log.append(Batch { events, key }).await
}

/// Appends an event for each text and returns the positions.
async fn append_each(log: &Arc<dyn Log>, topic: &str, texts: &[&str]) -> Vec<Position> {
    let mut positions = Vec::new();
    for text in texts {
        positions.push(append(log, vec![event(topic, text)]).await.1.position);
    }
    positions
}

async fn read(log: &Arc<dyn Log>, after: Position, filter: &Filter) -> Page {
    log.read(after, filter, PLENTY).await.expect("the log answers")
}

/// Reads page by page up to the end, and checks the invariants of each page.
async fn read_all(
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

fn assert_ordered(entries: &[Arc<Entry>]) {
    assert!(entries.is_sorted_by(|one, next| one.cursor.position < next.cursor.position), "one order");
}

/// Without its last entry, the item is below the limit.
fn assert_bounded(entries: &[Arc<Entry>], bytes_max: usize) {
    if let Some((_, head)) = entries.split_last() {
        let bytes: usize = head.iter().map(|entry| entry.memory_bytes()).sum();
        assert!(head.is_empty() || bytes < bytes_max, "{} entries for {bytes_max} bytes", entries.len());
    }
}

fn texts(entries: &[Arc<Entry>]) -> Vec<&str> {
    entries.iter().map(|entry| entry.event.data.as_str()).collect()
}

async fn next(tail: &mut Box<dyn Tail>, bytes_max: usize) -> TailItem {
    let item = tokio::time::timeout(PATIENCE, tail.next(bytes_max)).await.expect("the tail yields an item");
    item.expect("the log is open")
}

async fn next_entries(tail: &mut Box<dyn Tail>, bytes_max: usize) -> Vec<Arc<Entry>> {
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
fn publishers(log: &Arc<dyn Log>, count: usize, batches: usize, size: usize) -> tokio::task::JoinSet<()> {
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
