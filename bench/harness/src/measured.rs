//! The scenarios of the comparison, and the servers that each is for.

use tidings_bench::Scenario;

use crate::{servers::ServerKind, store::Store};

/// A scenario of the load client, in its default size or another.
#[derive(Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) scenario: Scenario,
    /// Arguments of `tidings bench`.
    pub(crate) size: &'static [&'static str],
}

/// Enough publishers to share a sync.
const PUBLISH_64: Measured =
    Measured { name: "publish-64", scenario: Scenario::Publish, size: &["--publishers", "64"] };
/// What sharing costs a publisher that is alone.
const PUBLISH_1: Measured = Measured {
    name: "publish-1",
    scenario: Scenario::Publish,
    size: &["--publishers", "1", "--events", "10000"],
};
/// Five times the cache of a log in files.
const REPLAY_LONG: Measured = Measured {
    name: "replay-long",
    scenario: Scenario::Replay,
    size: &["--subscribers", "20", "--events", "40000", "--payload-bytes", "1024"],
};

/// The compared scenarios: all except the soak, which compares a hub with itself half an hour
/// later.
pub(crate) fn all() -> Vec<Measured> {
    let scenarios = Scenario::ALL.into_iter().filter(|scenario| *scenario != Scenario::Soak);
    let own_size = scenarios.map(|scenario| Measured { name: scenario.name(), scenario, size: &[] });
    own_size.chain([PUBLISH_64, PUBLISH_1, REPLAY_LONG]).collect()
}

impl Measured {
    /// How often a server is measured in each round: 0 where the scenario does not apply. A delivery
    /// from files must cost hardly more than one from memory, and to see so little takes more runs.
    pub(crate) fn runs_per_round(self, server: ServerKind) -> usize {
        match server.store() {
            _ if !self.is_for(server) => 0,
            Some(Store::Memory | Store::Files) if self.scenario == Scenario::FanoutSlow => 3,
            _ => 1,
        }
    }

    /// History, a storm and private events only where the server has them; with a log that is not in
    /// memory only what that may affect.
    fn is_for(self, server: ServerKind) -> bool {
        let store = server.store();
        match self.scenario {
            _ if self.name == REPLAY_LONG.name => matches!(store, Some(Store::Memory | Store::Files)),
            _ if self.name == PUBLISH_1.name => store.is_some(),
            Scenario::Delete => store == Some(Store::Files),
            Scenario::SlowReaders | Scenario::Private => store == Some(Store::Memory),
            Scenario::Storm | Scenario::Growth => store == Some(Store::Memory) || server == ServerKind::Nchan,
            Scenario::Replay => store.is_some() || matches!(server, ServerKind::Bare | ServerKind::Nchan),
            Scenario::Fanout | Scenario::FanoutSlow | Scenario::Publish => true,
            Scenario::Idle | Scenario::Many | Scenario::Burst => {
                store.is_none_or(|store| store == Store::Memory)
            }
            Scenario::Soak => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Measured {
        all().into_iter().find(|measured| measured.name == name).unwrap()
    }

    #[test]
    fn both_builds_of_tidings_are_measured_alike() {
        for measured in all() {
            for server in ServerKind::ALL {
                if let Some(baseline) = server.baseline() {
                    assert_eq!(measured.runs_per_round(server), measured.runs_per_round(baseline));
                }
            }
        }
    }

    #[test]
    fn three_rounds_give_nine_runs_of_fanout_slow_with_files_and_in_memory() {
        let runs = |store| 3 * named("fanout-slow").runs_per_round(ServerKind::Tidings(store));
        assert_eq!(Store::ALL.map(runs), [9, 9, 3, 3]);
    }

    #[test]
    fn every_scenario_is_for_some_server() {
        for measured in all() {
            assert!(
                ServerKind::ALL.into_iter().any(|server| measured.runs_per_round(server) > 0),
                "{}",
                measured.name
            );
        }
    }
}
