//! What the HTTP APIs count. Each counter is found when a hub starts: to count is one addition, and
//! takes no lock.

use std::{
    fmt,
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use tidings::log::histogram::Histogram;

use super::{
    labels::LabelValue,
    requests::{RequestMethod, Route, StatusClass},
};

/// Counters of the HTTP APIs, since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: Counters<(Route, RequestMethod, StatusClass)>,
    pub(crate) events_published: Counters<(PublishApi, PublishOutcome)>,
    pub(crate) publish_durations: [Histogram; PublishApi::LABEL.values.len()],
    pub(crate) streams_opened: Counters<Transport>,
    pub(crate) streams_ended: Counters<Transport>,
    pub(crate) streams_rejected: Counters<StreamRejection>,
    pub(crate) authentication_failures: Counters<CredentialFailure>,
    pub(crate) authorizations: Counters<Authorization>,
    pub(crate) upstream_requests: Counters<UpstreamOutcome>,
    pub(crate) upstream_duration: Histogram,
}

labels! {
    /// The API of a publication.
    PublishApi "api" {
        Native = "native",
        Mercure = "mercure",
    }
}

labels! {
    /// What became of an event.
    PublishOutcome "outcome" {
        Stored = "stored",
        /// It was published before, with the same idempotency key.
        Duplicate = "duplicate",
        Ephemeral = "ephemeral",
        /// The request was answered 4xx.
        Refused = "refused",
        /// The request was answered 5xx.
        Unavailable = "unavailable",
    }
}

labels! {
    /// The version of HTTP of a stream.
    Transport "transport" {
        Http1 = "http1",
        Http2 = "http2",
    }
}

impl From<http::Version> for Transport {
    fn from(version: http::Version) -> Self {
        if version == http::Version::HTTP_2 { Self::Http2 } else { Self::Http1 }
    }
}

labels! {
    /// Why a stream is rejected for now.
    StreamRejection "reason" {
        /// `streams_max`.
        Full = "full",
        /// `streams_per_address_max`.
        Address = "address",
        /// The limit of a key or of a ticket.
        Credential = "credential",
        /// `streams_per_subject_max`.
        Subject = "subject",
        /// A limit on patterns.
        Patterns = "patterns",
        /// The application that decides about it has failed, or is asked about too many streams.
        Application = "application",
        /// The store cannot be reached.
        Store = "store",
        /// It was revoked while it was being opened, or it is not known yet what was revoked.
        Revocation = "revocation",
        Other = "other",
    }
}

labels! {
    /// Why a credential was not accepted.
    CredentialFailure "reason" {
        Missing = "missing",
        InvalidRequest = "invalid_request",
        InvalidToken = "invalid_token",
        Expired = "expired",
        Revoked = "revoked",
        InsufficientScope = "insufficient_scope",
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

/// One counter for each value of a label, or for each combination of the values of several.
pub(crate) struct Counters<L> {
    counters: Box<[AtomicU64]>,
    label: PhantomData<fn(L)>,
}

impl<L: LabelValues> Counters<L> {
    pub(crate) fn count(&self, values: L) {
        self.counters[values.index()].fetch_add(1, Relaxed);
    }

    /// All of them, in the order of the labels' values, the last label varying fastest.
    pub(super) fn values(&self) -> impl Iterator<Item = u64> {
        self.counters.iter().map(|counter| counter.load(Relaxed))
    }
}

impl<L: LabelValues> Default for Counters<L> {
    fn default() -> Self {
        Self { counters: (0..L::COUNT).map(|_| AtomicU64::default()).collect(), label: PhantomData }
    }
}

impl<L> fmt::Debug for Counters<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.counters).finish()
    }
}

/// The values of the labels of one counter.
pub(crate) trait LabelValues: Copy {
    const COUNT: usize;

    /// The place among all combinations.
    fn index(self) -> usize;
}

impl<A: LabelValue> LabelValues for A {
    const COUNT: usize = A::LABEL.values.len();

    fn index(self) -> usize {
        self.place()
    }
}

impl<A: LabelValue, B: LabelValue> LabelValues for (A, B) {
    const COUNT: usize = A::COUNT * B::COUNT;

    fn index(self) -> usize {
        self.0.index() * B::COUNT + self.1.index()
    }
}

impl<A: LabelValue, B: LabelValue, C: LabelValue> LabelValues for (A, B, C) {
    const COUNT: usize = A::COUNT * B::COUNT * C::COUNT;

    fn index(self) -> usize {
        (self.0.index() * B::COUNT + self.1.index()) * C::COUNT + self.2.index()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_label_of_a_counter_varies_fastest() {
        let counters = Counters::<(PublishApi, PublishOutcome)>::default();
        counters.count((PublishApi::Mercure, PublishOutcome::Duplicate));
        assert_eq!(counters.values().collect::<Vec<_>>(), [0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    }
}
