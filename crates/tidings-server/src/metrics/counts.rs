//! What the HTTP APIs count. Each counter is found when a hub starts: to count is one addition, and
//! takes no lock.

use std::{
    fmt,
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::labels::LabelValue;

/// Counters of the HTTP APIs, since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) streams_opened: Counter,
    pub(crate) streams_closed: Counter,
    pub(crate) streams_shed: Counter,
    pub(crate) refused: Counters<RefusedClass>,
    pub(crate) authorizations: Counters<Authorization>,
    pub(crate) upstream_requests: Counters<UpstreamOutcome>,
}

labels! {
    /// The class of the status of a refusal.
    RefusedClass "class" {
        Client = "4xx",
        Server = "5xx",
    }
}

labels! {
    /// What an application has answered that was asked about a stream.
    Authorization "outcome" {
        Subscribed = "subscribed",
        Other = "other",
        Failed = "failed",
        Abandoned = "abandoned",
    }
}

labels! {
    /// What became of a request for the application behind the hub.
    UpstreamOutcome "outcome" {
        Answered = "answered",
        Subscribed = "subscribed",
        Upgraded = "upgraded",
        Failed = "failed",
        Abandoned = "abandoned",
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One counter for each value of a label.
pub(crate) struct Counters<L> {
    counters: Box<[Counter]>,
    label: PhantomData<fn(L)>,
}

impl<L: LabelValue> Counters<L> {
    pub(crate) fn count(&self, value: L) {
        self.counters[value.index()].count();
    }

    /// All of them, in the order of the label's values.
    pub(super) fn values(&self) -> impl Iterator<Item = u64> {
        self.counters.iter().map(Counter::value)
    }
}

impl<L: LabelValue> Default for Counters<L> {
    fn default() -> Self {
        let counters = L::LABEL.values.iter().map(|_| Counter::default()).collect();
        Self { counters, label: PhantomData }
    }
}

impl<L> fmt::Debug for Counters<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.counters).finish()
    }
}
