//! What every log must do: one suite for all of them.
//!
//! Each check is a promise, and asks a factory for fresh logs. [`conformance!`](crate::conformance!) makes a test of each;
//! [`check_all`] runs them one after the other. A check that needs something of which a log is not capable in a test (see [`Abilities`])
//! passes without having looked.

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

/// How often a check repeats what runs concurrently.
pub const ROUNDS: usize = 50;

/// What a check wants of a log. `None` is whatever the log does by itself, which has to be enough for a few hundred events.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Keeps at most so many bytes.
    pub bytes_max: Option<u64>,
    /// Keeps at most so many events.
    pub count_max: Option<u64>,
    /// Keeps no events that are older.
    pub age_max: Option<Duration>,
    /// Knows at most so many idempotency keys.
    pub keys_max: Option<usize>,
    /// Tells the time by this clock.
    pub clock: Clock,
}

impl Wanted {
    /// The same wish in words of a log in memory.
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

/// Which wishes a log can fulfil. Everything else has to work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abilities {
    /// It keeps exactly as much as wanted, down to a few events.
    pub bounds: bool,
    /// It tells the time by the clock that it is given.
    pub clock: bool,
    /// It knows as few idempotency keys as wanted.
    pub keys: bool,
}

impl Abilities {
    /// Every wish can be fulfilled.
    pub const ALL: Self = Self { bounds: true, clock: true, keys: true };
}

/// A fresh, empty log.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Which wishes it fulfils.
    pub abilities: Abilities,
}

/// Makes a fresh, empty log for each check. An `async fn(Wanted) -> Subject` does.
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

/// Runs every check, one after the other. Panics where a promise is broken.
pub async fn check_all(make: impl Make) {
    crate::for_every_conformance_check!(conformance_run, &make);
}

/// Makes a module of tests, one for each check, named after the promise: `conformance!(memory, make)`, where `make` is an
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
            appending::a_batch_stands_at_consecutive_places
            appending::a_batch_that_cannot_fit_is_refused_whole
            appending::a_publishers_own_id_is_echoed_even_if_used_twice
            appending::a_generated_id_names_the_place_of_its_event
            appending::each_publisher_is_kept_in_order
            appending::a_repeated_key_appends_nothing
            appending::a_key_used_at_the_same_time_is_appended_once
            appending::a_refused_batch_leaves_its_key_free
            appending::a_key_is_forgotten_beyond_its_window
            deleting::a_deleted_topic_is_hidden_at_once
            deleting::a_deletion_is_reported_to_who_missed_something_and_to_nobody_else
            deleting::a_deletion_takes_only_events_whose_topics_are_all_covered
            deleting::a_deletion_of_nothing_changes_nothing
            deleting::a_topic_goes_on_after_its_deletion
            deleting::a_tail_that_a_deletion_overtook_is_reported
            reading::pages_join_without_hole_or_double
            reading::a_page_is_bounded_and_gets_on
            reading::an_empty_log_is_at_its_end
            reading::beyond_the_end_is_an_empty_page
            reading::an_event_of_several_topics_is_read_once
            reading::a_private_event_needs_a_covering_grant
            reading::the_last_events_come_in_log_order
            reading::the_last_events_are_looked_for_in_bounds
            reading::an_id_resolves_to_its_oldest_event
            reading::an_id_that_the_reader_may_not_see_is_unknown
            reading::the_bounds_tell_where_the_log_begins_and_ends
            reading::a_time_ago_is_the_last_position_before_it
            reading::a_reader_among_publishers_misses_nothing
            reading::a_healthy_log_says_so
            retaining::more_events_than_the_bound_drop_the_oldest
            retaining::more_bytes_than_the_bound_drop_the_oldest
            retaining::an_expired_event_is_hidden_at_once
            retaining::the_order_does_not_depend_on_the_clock
            retaining::a_floor_is_reported_to_who_missed_something_and_to_nobody_else
            retaining::a_floor_is_found_by_each_of_its_topics
            retaining::a_private_floor_needs_a_covering_grant
            retaining::a_key_outlives_its_events
            tailing::a_tail_starts_with_what_comes_next
            tailing::a_waiting_tail_is_woken
            tailing::a_tail_item_is_bounded
            tailing::a_tail_agrees_with_read_while_many_publish
            tailing::a_cancelled_wait_loses_nothing
            tailing::a_tail_that_retention_overtook_is_reported
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

/// A limit of one page that nothing in this suite reaches.
const PLENTY: usize = 16 * 1024 * 1024;

/// How long to wait for what has to come. Far more than any log needs; it only ends a test that would hang.
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

/// Everything, private or not.
fn everything() -> Filter {
    Filter { matchers: vec![Matcher::Any], grants: Grants::all() }
}

fn id(text: &str) -> EventId {
    Validator::default().event_id(text).expect("a valid id")
}

/// Appends and expects that it is new.
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

/// Reads page by page up to the end, and checks what has to hold for each.
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
        assert!(page.entries.iter().all(|entry| entry.cursor.position > after), "nothing comes again");
        assert!(
            page.entries.iter().all(|entry| entry.cursor.position <= page.through),
            "`through` covers all"
        );
        assert!(page.entries.iter().all(|entry| filter.accepts(&entry.event)), "the filter is obeyed");
        assert!(page.through > after || page.at_end, "a page that is not the last gets on");
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

/// The limit is reached with the last entry at the earliest.
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
    let item = tokio::time::timeout(PATIENCE, tail.next(bytes_max)).await.expect("the tail brings something");
    item.expect("the log is open")
}

async fn next_entries(tail: &mut Box<dyn Tail>, bytes_max: usize) -> Vec<Arc<Entry>> {
    match next(tail, bytes_max).await {
        TailItem::Entries(entries) => {
            assert!(!entries.is_empty(), "entries are at least one");
            assert_bounded(&entries, bytes_max);
            entries
        }
        other => panic!("expected entries, got {other:?}"),
    }
}

/// Publishers that append batches at the same time, each in its own task: event `b` of batch `n` of publisher `p` says `p/n/b`.
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
