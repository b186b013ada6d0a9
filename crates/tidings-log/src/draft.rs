//! Reading in two steps, so that a filter never runs while the ledger is locked.
//!
//! A [`Plan`] states which parts of a filter can be looked up in an index. The ledger answers with
//! a [`Draft`], which holds everything that may belong to the page. Finishing the draft applies the
//! filter. Matching a URL Pattern takes microseconds and there may be a hundred thousand floors, so
//! finishing a draft yields to other tasks.

use std::sync::Arc;

use tidings_topic::{Matcher, Topic};

use crate::{Cursor, Entry, Epoch, Event, Filter, Grants, Page, Position, numbers::just_before, pace::Pace};

/// The parts of a filter that can be looked up in an index.
#[derive(Debug)]
pub struct Plan<'f> {
    /// Which entries to look at.
    pub reach: Reach<'f>,
    /// Which private events the filter may accept.
    pub private: Private,
}

/// Which entries can match a filter.
#[derive(Debug)]
pub enum Reach<'f> {
    /// The filter matches every topic.
    Everything,
    /// The filter matches only these topics. The flag: whether the grants cover the topic.
    Topics(Vec<(&'f Topic, bool)>),
    /// Every entry must be examined.
    Unknown,
}

/// Which private events the grants of a filter cover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Private {
    /// None.
    None,
    /// Depends on the topics.
    Some,
    /// All.
    All,
}

impl<'f> Plan<'f> {
    /// The plan of a filter.
    pub fn new(filter: &'f Filter) -> Self {
        let private = match &filter.grants {
            grants if grants.is_empty() => Private::None,
            grants if grants.is_all() => Private::All,
            _ => Private::Some,
        };
        Self { reach: Reach::of(filter), private }
    }

    /// Whether the filter certainly accepts an event that the plan found.
    pub fn surely_accepts(&self, private: bool) -> bool {
        !matches!(self.reach, Reach::Unknown) && (!private || self.private == Private::All)
    }
}

impl<'f> Reach<'f> {
    fn of(filter: &'f Filter) -> Self {
        if filter.matchers.contains(&Matcher::Any) {
            return Self::Everything;
        }
        let exact = |matcher: &'f Matcher| match matcher {
            Matcher::Exact(topic) => Some((topic, filter.grants.covers(topic))),
            Matcher::Any | Matcher::Pattern(_) => None,
        };
        filter.matchers.iter().map(exact).collect::<Option<_>>().map_or(Self::Unknown, Self::Topics)
    }
}

/// Everything that may belong to a page.
pub(crate) struct Draft {
    pub(crate) epoch: Epoch,
    pub(crate) after: Position,
    /// Entries that may be accepted, in order.
    pub(crate) entries: Vec<Arc<Entry>>,
    /// The entries are in reverse order; keep only this many accepted ones, and `after` is right
    /// before the oldest of them.
    pub(crate) last_count: Option<usize>,
    pub(crate) through: Position,
    pub(crate) at_end: bool,
    pub(crate) floor: FloorDraft,
}

impl Draft {
    /// The newest entries, given newest first, at the end of a log: the filter accepts `count` of
    /// them at most.
    pub(crate) fn last(count: usize, newest_first: Gathered, end: Cursor, floor: FloorDraft) -> Self {
        let (epoch, through, entries) = (end.epoch, end.position, newest_first.entries);
        let after = Position::BEFORE_ALL;
        Self { epoch, after, entries, last_count: Some(count), through, at_end: true, floor }
    }

    /// Applies the filter.
    pub(crate) async fn finish(self, filter: &Filter) -> Page {
        let floor = self.floor.finish(filter).await;
        let pace = Pace::of(filter);
        let count_max = self.last_count.unwrap_or(usize::MAX);
        let mut candidates = self.entries.into_iter();
        let mut entries = Vec::new();
        while entries.len() < count_max
            && let Some(entry) = candidates.next()
        {
            pace.step().await;
            if filter.accepts(&entry.event) {
                entries.push(entry);
            }
        }
        let mut after = self.after;
        if self.last_count.is_some() {
            entries.reverse();
            after = entries.first().map_or(self.through, |first| just_before(first.cursor.position));
        }
        Page { epoch: self.epoch, after, entries, through: self.through, at_end: self.at_end, floor }
    }
}

/// Entries of about so many bytes.
pub(crate) struct Gathered {
    pub(crate) entries: Vec<Arc<Entry>>,
    bytes: usize,
    bytes_max: usize,
}

impl Gathered {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { entries: Vec::new(), bytes: 0, bytes_max }
    }

    /// Whether they have so many bytes, where there has to be one at least.
    pub(crate) fn is_full(&self) -> bool {
        !self.entries.is_empty() && self.has_bytes_max()
    }

    /// Whether they have so many bytes.
    pub(crate) fn has_bytes_max(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    pub(crate) fn add(&mut self, entry: Arc<Entry>) {
        self.bytes += entry.memory_bytes();
        self.entries.push(entry);
    }
}

/// Candidates for the floor of a page.
#[derive(Debug, Default)]
pub struct FloorDraft {
    /// A floor that applies to every filter.
    pub sure: Option<Position>,
    /// Newer floors, newest first, that apply only if the filter accepts their audience.
    pub unsure: Vec<(Position, Arc<Audience>)>,
}

impl FloorDraft {
    /// Adds a floor that applies to every reader of this page.
    pub fn raise(&mut self, position: Option<Position>) {
        self.sure = self.sure.max(position);
        let sure = self.sure;
        self.unsure.retain(|(unsure, _)| Some(*unsure) > sure);
    }

    /// The newest floor that this filter accepts.
    pub async fn finish(self, filter: &Filter) -> Option<Position> {
        let pace = Pace::of(filter);
        for (position, audience) in self.unsure {
            pace.step().await;
            if filter.accepts_topics(&audience.topics, audience.private) {
                return Some(position);
            }
        }
        self.sure
    }
}

/// The topics and privacy of an event, which decide which subscribers could receive it. The log
/// remembers these of dropped events.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Audience {
    /// Sorted, without duplicates.
    pub topics: Vec<Topic>,
    /// Only subscribers with a grant for one of the topics could receive it.
    pub private: bool,
}

impl Audience {
    /// The audience of this event.
    pub fn of(event: &Event) -> Self {
        let mut topics = event.topics.clone();
        topics.sort_unstable();
        topics.dedup();
        Self { topics, private: event.private }
    }
}

/// Of events, those all of whose topics these grants cover, and the number of others.
pub(crate) async fn covered(events: Vec<Arc<Entry>>, grants: &Grants) -> (Vec<Arc<Entry>>, u64) {
    let count = events.len();
    let mut covered = Vec::with_capacity(count);
    let pace = Pace::of_grants(grants);
    for entry in events {
        pace.step().await;
        if grants.cover_all(&entry.event.topics) {
            covered.push(entry);
        }
    }
    let kept = (count - covered.len()) as u64;
    (covered, kept)
}

/// The position of the first of these events that is public or covered by these grants.
pub(crate) async fn first_visible(events: Vec<Arc<Entry>>, grants: &Grants) -> Option<Position> {
    let pace = Pace::of_grants(grants);
    for entry in events {
        pace.step().await;
        if !entry.event.private || grants.cover_any(&entry.event.topics) {
            return Some(entry.cursor.position);
        }
    }
    None
}
