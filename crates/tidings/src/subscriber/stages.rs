//! A history in which some matchers start later than others.
//!
//! Where the starts of two matchers are apart, the log is read from the first start to the second
//! for the first matcher alone, and from there for both. So nothing is read that is not sent, and
//! the order is that of the log. When the last matcher has started, the subscription is like any
//! other; a client that resumes earlier, by the id of an event of its history, continues all
//! matchers there.

use std::sync::Arc;

use tidings_log::{Epoch, Position};
use tidings_topic::Filter;

/// The rest of such a history: at least one stage.
#[derive(Debug)]
pub(crate) struct Stages {
    /// The epoch of the positions.
    pub(crate) epoch: Epoch,
    /// The last one first.
    stages: Vec<Stage>,
}

/// What is read up to the start of the next matchers.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) filter: Arc<Filter>,
    /// Through here.
    pub(crate) until: Position,
}

impl Stages {
    /// From starts in the order of the log. `None` where all start at one position.
    pub(crate) fn new<'a>(
        epoch: Epoch,
        starts: impl Iterator<Item = (Position, &'a Arc<Filter>)>,
    ) -> Option<Box<Self>> {
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
        stages.reverse();
        (!stages.is_empty()).then(|| Box::new(Self { epoch, stages }))
    }

    /// The stage that is being read.
    pub(crate) fn current(&self) -> &Stage {
        self.stages.last().expect("there is at least one")
    }

    /// What is left when the current stage has been read.
    pub(crate) fn next(mut self: Box<Self>) -> Option<Box<Self>> {
        self.stages.pop();
        (!self.stages.is_empty()).then_some(self)
    }
}
