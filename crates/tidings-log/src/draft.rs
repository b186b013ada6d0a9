//! Reading in two steps, so that a filter never runs while the ledger is locked.
//!
//! A [`Plan`] says what of a filter can be looked up; the ledger answers it with a [`Draft`], which holds everything that may belong
//! to the page; finishing the draft applies the filter. Matching a URL Pattern takes microseconds and there may be a hundred
//! thousand floors, so finishing also gives other tasks their turn.

use std::sync::Arc;

use tidings_topic::{Matcher, Topic};

use crate::{Entry, Epoch, Event, Filter, Grants, Page, Position, ledger::just_before, pace::Pace};

/// What of a filter can be looked up.
#[derive(Debug)]
pub struct Plan<'f> {
    /// Where to look.
    pub reach: Reach<'f>,
    /// Which private events may be received.
    pub private: Private,
}

/// Where what a filter asks for can be found.
#[derive(Debug)]
pub enum Reach<'f> {
    /// Everything is asked for.
    Everything,
    /// Only these topics are asked for; whether the grants cover each.
    Topics(Vec<(&'f Topic, bool)>),
    /// Only looking at each event tells.
    Unknown,
}

/// What the grants of a filter say about private events on the whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Private {
    /// None may be received.
    None,
    /// It depends on the topics.
    Some,
    /// All may be received.
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

    /// Whether an event that was found where the plan looks is accepted for sure.
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
    /// Entries that may be accepted.
    pub(crate) entries: Vec<Arc<Entry>>,
    /// Only so many of the last accepted entries are wanted, and `after` is right before the first of them.
    pub(crate) last_count: Option<usize>,
    pub(crate) through: Position,
    pub(crate) at_end: bool,
    pub(crate) floor: FloorDraft,
}

impl Draft {
    /// Applies the filter.
    pub(crate) async fn finish(self, filter: &Filter) -> Page {
        let floor = self.floor.finish(filter).await;
        let pace = Pace::of(filter);
        let mut entries = Vec::new();
        let mut after = self.after;
        match self.last_count {
            None => {
                for entry in self.entries {
                    pace.step().await;
                    if filter.accepts(&entry.event) {
                        entries.push(entry);
                    }
                }
            }
            Some(count) => {
                let mut newest_first = self.entries.into_iter().rev();
                while entries.len() < count
                    && let Some(entry) = newest_first.next()
                {
                    pace.step().await;
                    if filter.accepts(&entry.event) {
                        entries.push(entry);
                    }
                }
                entries.reverse();
                after = entries.first().map_or(self.through, |first| just_before(first.cursor.position));
            }
        }
        Page { epoch: self.epoch, after, entries, through: self.through, at_end: self.at_end, floor }
    }
}

/// What may be the floor of a page.
#[derive(Debug, Default)]
pub struct FloorDraft {
    /// A floor that holds whatever the filter says about the others.
    pub sure: Option<Position>,
    /// Newer ones that the filter has to be asked about, newest first.
    pub unsure: Vec<(Position, Arc<Audience>)>,
}

impl FloorDraft {
    /// Adds a floor that holds for everybody who reads this page.
    pub fn raise(&mut self, position: Option<Position>) {
        self.sure = self.sure.max(position);
        let sure = self.sure;
        self.unsure.retain(|(unsure, _)| Some(*unsure) > sure);
    }

    /// The newest of them that this filter accepts.
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

/// Who could have received an event: what is remembered of those that were dropped.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Audience {
    /// Sorted, each once.
    pub topics: Vec<Topic>,
    /// Only those with a grant could.
    pub private: bool,
}

impl Audience {
    /// Who can receive this event.
    pub fn of(event: &Event) -> Self {
        let mut topics = event.topics.clone();
        topics.sort_unstable();
        topics.dedup();
        Self { topics, private: event.private }
    }
}

/// The events that bear a topic, in order.
pub(crate) struct Bearing(pub(crate) Vec<Arc<Entry>>);

impl Bearing {
    /// Those of which these grants cover all topics, and how many others there are.
    pub(crate) async fn covered(self, grants: &Grants) -> (Vec<Arc<Entry>>, u64) {
        let count = self.0.len();
        let mut covered = Vec::with_capacity(count);
        let pace = Pace::of_grants(grants);
        for entry in self.0 {
            pace.step().await;
            if grants.cover_all(&entry.event.topics) {
                covered.push(entry);
            }
        }
        let kept = (count - covered.len()) as u64;
        (covered, kept)
    }
}

/// The events that bear one publisher's id, in order, up to the first that everybody may see.
pub(crate) struct Named(pub(crate) Vec<Arc<Entry>>);

impl Named {
    /// The place of the first that these grants may see.
    pub(crate) async fn resolve(self, grants: &Grants) -> Option<Position> {
        let pace = Pace::of_grants(grants);
        for entry in self.0 {
            pace.step().await;
            if !entry.event.private || grants.cover_any(&entry.event.topics) {
                return Some(entry.cursor.position);
            }
        }
        None
    }
}
