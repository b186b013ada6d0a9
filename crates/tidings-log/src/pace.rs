//! Cooperative yielding while reading.
//!
//! The cost of filtering an event depends on the filter: comparing one topic takes nanoseconds, a
//! hundred large expressions take a millisecond. Each event therefore consumes task budget in
//! proportion to the weight of the filter, so that a task runs for about the same time between
//! yields whatever its filter.

use tidings_topic::{Filter, Grants};
use tokio::task::coop::consume_budget;

/// Weight that consumes one of the 128 budget units that a task has per poll: about a microsecond.
const WEIGHT_PER_UNIT: u32 = 128;

/// See the module's documentation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    units: u32,
}

impl Pace {
    /// The pace for applying a filter.
    pub fn of(filter: &Filter) -> Self {
        Self::of_weight(filter.weight())
    }

    /// The pace for applying grants alone.
    pub fn of_grants(grants: &Grants) -> Self {
        Self::of_weight(grants.weight())
    }

    fn of_weight(weight: u32) -> Self {
        Self { units: 1 + weight / WEIGHT_PER_UNIT }
    }

    /// Consumes budget and yields if none is left. Call it before filtering each event.
    pub async fn step(self) {
        for _ in 0..self.units {
            consume_budget().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin};

    use tidings_topic::Validator;

    use super::*;

    /// How often filtering 1,000 events yields.
    async fn interruptions(patterns: &[String]) -> usize {
        let matchers =
            patterns.iter().map(|text| Validator::default().pattern(text).expect("a pattern")).collect();
        let pace = Pace::of(&Filter { matchers, grants: Grants::NONE });
        let mut reading = pin!(async {
            for _ in 0..1_000 {
                pace.step().await;
            }
        });
        // Each poll has a new budget.
        let mut interruptions = 0;
        poll_fn(|context| {
            let poll = reading.as_mut().poll(context);
            interruptions += usize::from(poll.is_pending());
            poll.map(|()| interruptions)
        })
        .await
    }

    #[tokio::test]
    async fn reading_with_many_expressions_yields_more_often() {
        let few = interruptions(&["/a/:id".to_owned()]).await;
        let texts: Vec<_> = (0..98).map(|number| format!("/:a(\\w{{1,30}})x{number}")).collect();
        let many = interruptions(&texts).await;
        assert!(few >= 7, "{few}");
        assert!(many > 10 * few, "{few} and {many}");
    }
}
