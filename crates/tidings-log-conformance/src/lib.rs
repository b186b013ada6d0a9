//! The conformance suite that every [`Log`](tidings_log::Log) passes, and in [`cluster`] the one
//! that every [`Cluster`](tidings_log::cluster::Cluster) passes.
//!
//! Each check verifies one guarantee with fresh logs from a factory. [`conformance!`] makes a test
//! of each; [`check_all`] runs them one after the other. A check that needs a clock or a limit that
//! the log cannot be given ([`Make::make`]) passes without checking anything.
//!
//! ```
//! use std::sync::Arc;
//!
//! use tidings_log::{Clock, Log, MemoryLimits, MemoryLog};
//!
//! async fn make(limits: MemoryLimits, clock: Option<Clock>) -> Option<Arc<dyn Log>> {
//!     Some(Arc::new(MemoryLog::with_clock(limits, clock.unwrap_or_default())))
//! }
//!
//! tidings_log_conformance::conformance!(memory, make);
//! # fn main() {}
//! ```

pub mod appending;
pub mod cluster;
pub mod deleting;
pub mod reading;
pub mod retaining;
mod subject;
pub mod tailing;

pub use self::subject::{Make, ROUNDS};

/// Runs every check, one after the other. Panics if one fails.
pub async fn check_all(make: impl Make) {
    crate::for_every_conformance_check!(conformance_run, &make);
}

/// Makes a module of tests, one for each check: `conformance!(memory, make)`, where `make` is an
/// [`Make`]. It needs Tokio with the features `macros` and `rt-multi-thread`.
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
            reading::the_statistics_are_of_what_is_kept
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
                $crate::$group::$check($make).await;
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_run {
    ($make:expr; $($group:ident::$check:ident)*) => {
        $( $crate::$group::$check($make).await; )*
    };
}
