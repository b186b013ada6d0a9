//! How long each subscriber stays connected and disconnected: random, and reproducible from a seed.
//!
//! A visit follows from the seed, the subscriber and the number of the visit alone, never from what
//! happened before: so the plan of one subscriber does not change because another one was slow.

use std::time::Duration;

use crate::engine::Ending;

/// The longest times that subscribers stay connected and disconnected. A soak of less than half an
/// hour scales them down, so that as many visits fit in.
const STAY_MAX: Duration = Duration::from_secs(60);
const AWAY_MAX: Duration = Duration::from_secs(10);
/// The minimum number of longest visits that fit into a soak.
const VISITS_MIN: u32 = 10;

/// What all subscribers have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    seed: u64,
    stay_max: Duration,
    away_max: Duration,
}

/// One stay of one subscriber, and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Visit {
    pub(super) stays: Duration,
    pub(super) ending: Ending,
    pub(super) away: Duration,
    /// How it resumes.
    pub(super) way: usize,
}

impl Habits {
    pub(super) fn new(seed: u64, length: Duration) -> Self {
        Self {
            seed,
            stay_max: STAY_MAX.min(length / VISITS_MIN),
            away_max: AWAY_MAX.min(length / VISITS_MIN),
        }
    }

    pub(super) fn visit(&self, subscriber: u32, visit: u32) -> Visit {
        let chance = |what: u64| {
            let place = u64::from(subscriber) << 32 | u64::from(visit);
            mixed(mixed(mixed(self.seed) ^ place) ^ what)
        };
        let some_of = |most: Duration, chance: u64| {
            most.mul_f64(f64::from((chance >> 32) as u32) / f64::from(u32::MAX))
        };
        Visit {
            stays: some_of(self.stay_max, chance(0)),
            ending: if chance(1) & 1 == 0 { Ending::Close } else { Ending::Reset },
            away: some_of(self.away_max, chance(2)),
            way: (chance(3) & 1) as usize,
        }
    }
}

/// Spreads a number over all 64 bits: multiplications by odd numbers carry changes upwards, shifts
/// bring them down again.
fn mixed(number: u64) -> u64 {
    let number =
        (number ^ number >> 32).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let number = (number ^ number >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    number ^ number >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_seed_repeats_every_visit_and_another_seed_does_not() {
        let plan = |seed| {
            let habits = Habits::new(seed, 30 * MINUTE);
            (0..100).map(|number| habits.visit(number / 10, number % 10)).collect::<Vec<_>>()
        };
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn visits_are_of_every_kind_and_length() {
        let habits = Habits::new(1, 30 * MINUTE);
        let visits: Vec<Visit> = (0..10_000).map(|number| habits.visit(number % 100, number / 100)).collect();
        let count = |is: &dyn Fn(&Visit) -> bool| visits.iter().filter(|visit| is(visit)).count();
        let kinds: [&dyn Fn(&Visit) -> bool; 4] = [
            &|visit| visit.ending == Ending::Reset,
            &|visit| visit.way == 1,
            &|visit| visit.stays < STAY_MAX / 2,
            &|visit| visit.away < AWAY_MAX / 2,
        ];
        for is in kinds {
            assert!((4_800..5_200).contains(&count(is)), "{}", count(is));
        }
        let both = count(&|visit| visit.way == 1 && visit.ending == Ending::Reset);
        assert!((2_300..2_700).contains(&both), "{both}");
        assert_eq!(count(&|visit| visit.stays > STAY_MAX || visit.away > AWAY_MAX), 0);
    }

    #[test]
    fn a_short_soak_has_short_visits() {
        let visit = |number| Habits::new(1, Duration::from_secs(3)).visit(number, 0);
        assert!((0..100).all(|number| visit(number).stays <= Duration::from_millis(300)));
    }
}
