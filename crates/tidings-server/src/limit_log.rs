//! Limits that are reached: an operator who learns of one can raise it, and a client cannot fill
//! the log by reaching it.
//!
//! Each limit has its own line: at once, and then at most once a minute with the number of times.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    client_address::ClientAddress,
    throttled_log::{Summary, ThrottledLog},
};

/// The shortest time between two lines about one limit.
const INTERVAL: Duration = Duration::from_secs(60);

/// A limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Limit {
    /// The setting of this name.
    Setting(&'static str),
    /// One that no setting changes.
    Fixed(&'static str),
}

/// The log of limits that are reached.
#[derive(Default)]
pub(crate) struct LimitLog(Mutex<BTreeMap<&'static str, ThrottledLog<Reached>>>);

/// Details of the last time.
struct Reached {
    limit: Limit,
    client: Option<ClientAddress>,
}

impl LimitLog {
    /// Counts that a limit was reached, on account of this client if it is that of an address.
    pub(crate) fn reached(&self, limit: Limit, client: Option<ClientAddress>) {
        let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let log = logs.entry(limit.name()).or_insert_with(|| ThrottledLog::new(INTERVAL, write));
        log.record(limit.name(), Reached { limit, client });
    }
}

impl Limit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Setting(name) | Self::Fixed(name) => name,
        }
    }

    /// The flag that sets it.
    fn flag(self) -> Option<String> {
        match self {
            Self::Setting(name) => Some(format!("--{}", name.replace('_', "-"))),
            Self::Fixed(_) => None,
        }
    }
}

fn write(summary: &Summary<Reached>) {
    let Reached { limit, client } = &summary.last;
    tracing::warn!(
        limit = limit.name(),
        flag = limit.flag(),
        count = summary.count(),
        client = client.map(tracing::field::display),
        "a limit was reached; the client is the last one that was refused"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_named_with_its_flag() {
        assert_eq!(
            Limit::Setting("streams_per_address_max").flag().as_deref(),
            Some("--streams-per-address-max")
        );
        assert_eq!(Limit::Fixed("new patterns of one address").flag(), None);
    }
}
