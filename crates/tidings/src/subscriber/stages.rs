//! A history in which some matchers start later than others, or which ends.
//!
//! Where the starts of two matchers are apart, the log is read from the first start to the second
//! for the first matcher alone, and from there for both. So nothing is read that is not sent, and
//! the order is that of the log. When the last matcher has started, the subscription is like any
//! other; a client that resumes earlier, by the id of an event of its history, continues all
//! matchers there.
//!
//! A finite read has a last stage, up to its end. When that has been read, nothing follows.

use std::sync::Arc;

use tidings_log::{Cursor, Epoch, Position};
use tidings_topic::Filter;

use crate::edits::TopicEdit;

/// The rest of such a history: at least one stage.
#[derive(Clone, Debug)]
pub(crate) struct Stages {
    /// The epoch of the positions.
    pub(crate) epoch: Epoch,
    /// The last one first.
    rest: Vec<Stage>,
    /// Where a finite read ends.
    end: Option<Position>,
}

/// What is read up to the start of the next matchers.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) filter: Arc<Filter>,
    /// Through here.
    pub(crate) until: Position,
}

impl Stages {
    /// From starts in the order of the log, and the end of a finite read. `None` where all start at
    /// one position and none ends, or all start at the end or after it.
    pub(crate) fn new<'a>(
        epoch: Epoch,
        starts: impl Iterator<Item = (Position, &'a Arc<Filter>)>,
        end: Option<Position>,
    ) -> Option<Box<Self>> {
        let starts = starts.take_while(|(start, _)| end.is_none_or(|end| *start < end));
        let mut stages: Vec<Stage> = Vec::new();
        let mut begun: Option<(Position, Filter)> = None;
        for (start, filter) in starts {
            match &mut begun {
                None => begun = Some((start, Filter::clone(filter))),
                Some((since, begun)) => {
                    if *since < start {
                        stages.push(Stage { filter: Arc::new(begun.clone()), until: start });
                        *since = start;
                    }
                    begun.matchers.extend_from_slice(&filter.matchers);
                }
            }
        }
        if let (Some(end), Some((_, filter))) = (end, begun) {
            stages.push(Stage { filter: Arc::new(filter), until: end });
        }
        stages.reverse();
        (!stages.is_empty()).then(|| Box::new(Self { epoch, rest: stages, end }))
    }

    /// The stage that is being read.
    pub(crate) fn current(&self) -> &Stage {
        self.rest.last().expect("there is at least one")
    }

    /// Where a finite read ends.
    pub(crate) fn end(&self) -> Option<Cursor> {
        self.end.map(|position| Cursor { epoch: self.epoch, position })
    }

    /// The matchers change from the place on that has been read: in every stage that is left.
    pub(crate) fn edit(&mut self, edit: &TopicEdit) {
        for stage in &mut self.rest {
            let matchers = edit.apply_to(&stage.filter.matchers);
            stage.filter = Arc::new(Filter { matchers, grants: stage.filter.grants.clone() });
        }
    }

    /// What is left when the current stage has been read.
    pub(crate) fn next(mut self: Box<Self>) -> Option<Box<Self>> {
        self.rest.pop();
        (!self.rest.is_empty()).then_some(self)
    }
}
