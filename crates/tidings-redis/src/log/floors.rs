//! A copy of the floors that Redis keeps. Each page brings it up to date.
//!
//! Redis counts the changes of its floors, and a page brings those that this process has not seen,
//! in order. The copy belongs to an epoch: a log that lost its end has other floors.

use std::sync::{Mutex, MutexGuard};

use tidings_log::{
    Epoch, MemoryLimits,
    parts::{FloorDraft, Floors, Plan, lock},
};

use super::{answer::Answer, entry::audience};
use crate::trouble::Trouble;

/// The floors as far as this process knows them.
#[derive(Debug, Default)]
pub(super) struct FloorCopy(Mutex<KnownFloors>);

#[derive(Debug, Default)]
struct KnownFloors {
    epoch: Option<Epoch>,
    version: u64,
    floors: Floors,
}

impl FloorCopy {
    /// The version of the changes that are known.
    pub(super) fn version(&self) -> u64 {
        self.known().version
    }

    /// Applies what came with a reply: the epoch, the version, the position up to which audiences
    /// are forgotten, and the changes. False if they do not follow what is known: then everything
    /// has to be requested.
    pub(super) fn learn(
        &self,
        asked_after: u64,
        answer: &Answer,
        [epoch, version, forgotten, changes]: [usize; 4],
        limits: &MemoryLimits,
    ) -> Result<bool, Trouble> {
        let (epoch, version) = (answer.epoch(epoch)?, answer.number(version)?);
        let mut known = self.known();
        if known.epoch != Some(epoch) {
            *known = KnownFloors { epoch: Some(epoch), ..KnownFloors::default() };
        }
        if asked_after > known.version {
            return Ok(false);
        }
        for (topics, place) in answer.pairs(changes)? {
            match audience(&topics) {
                Some(audience) => known.floors.record(place, audience, limits),
                None => known.floors.forget_through(place),
            }
        }
        known.floors.forget_through(answer.place(forgotten)?);
        known.version = known.version.max(version);
        Ok(true)
    }

    /// The floors after a position that a plan has to take into account, and the version up to
    /// which they are known. `None` if they belong to another epoch by now.
    pub(super) fn draft(&self, epoch: Epoch, plan: &Plan<'_>, after: u64) -> Option<(FloorDraft, u64)> {
        let known = self.known();
        (known.epoch == Some(epoch)).then(|| (known.floors.draft(plan, after), known.version))
    }

    fn known(&self) -> MutexGuard<'_, KnownFloors> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use redis::Value;
    use tidings_log::{Filter, Grants};
    use tidings_topic::Matcher;

    use super::*;

    /// A page of this epoch with one floor: something on the topic was dropped at `0-7`.
    fn page(epoch: &str) -> Answer {
        let text = |text: &str| Value::BulkString(text.into());
        let changes = Value::Array(vec![text("+chat"), text("0-7")]);
        Answer::of(Value::Array(vec![text(epoch), text("1"), text("0-0"), changes])).unwrap()
    }

    #[tokio::test]
    async fn floors_belong_to_one_epoch() {
        let copy = FloorCopy::default();
        let filter = Filter { matchers: vec![Matcher::Any], grants: Grants::all() };
        let plan = Plan::new(&filter);
        let draft = |epoch| copy.draft(Epoch::from_u64(epoch), &plan, 0);
        for (epoch, other) in [(0xa, 0xb), (0xb, 0xa)] {
            let answer = page(&format!("{epoch:x}"));
            assert!(copy.learn(0, &answer, [0, 1, 2, 3], &MemoryLimits::default()).unwrap());
            let (floor, version) = draft(epoch).unwrap();
            assert_eq!((floor.finish(&filter).await, version), (Some(tidings_log::parts::position(7)), 1));
            assert!(draft(other).is_none());
        }
    }
}
