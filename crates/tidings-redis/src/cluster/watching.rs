//! Changes of the keys with one prefix: a watch remembers what it has reported, and looks again at
//! what may have changed.
//!
//! Redis names the keys that changed, so a change of one key costs a look at that key, however many
//! there are. Changes that were lost with a connection, or that came too fast, are not named; then
//! the watch looks at everything. It looks at a key that it reported when that is due to expire: it
//! was set again, or is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tidings_log::cluster::{Change, ClusterError, Watch};
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, sleep_until, timeout},
};

use super::client::{ClusterClient, LiveValue};
use crate::connect::RETRY_TIME_MAX;

/// After this time a watch looks at everything, even without a notification.
const LOOK_TIME_MAX: Duration = Duration::from_secs(30);

pub(super) struct RedisWatch {
    client: Arc<ClusterClient>,
    prefix: String,
    reported: BTreeMap<String, Reported>,
    /// Fires when everything may have changed.
    notifier: watch::Receiver<()>,
    /// Receives the keys that changed.
    changed: broadcast::Receiver<Arc<str>>,
    unseen: Unseen,
}

struct Reported {
    value: Vec<u8>,
    until: Instant,
}

/// What has to be looked at.
enum Unseen {
    Everything,
    Keys(BTreeSet<String>),
}

impl RedisWatch {
    pub(super) fn new(client: Arc<ClusterClient>, prefix: &str) -> Self {
        let (notifier, changed) = (client.notifier.subscribe(), client.changed.subscribe());
        let unseen = Unseen::Everything;
        Self { client, prefix: prefix.to_owned(), reported: BTreeMap::new(), notifier, changed, unseen }
    }

    /// Looks at what may have changed, and returns what differs from what was reported.
    async fn look(&mut self) -> Result<Vec<Change>, ClusterError> {
        let (found, unseen) = match &self.unseen {
            Unseen::Keys(keys) if keys.is_empty() => return Ok(Vec::new()),
            Unseen::Keys(keys) => (self.client.look(keys).await?, keys.iter().cloned().collect()),
            Unseen::Everything => {
                // The notifier is reset before the keys are looked at: any later change fires it
                // again.
                self.notifier.mark_unchanged();
                let found = self.client.list(&self.prefix).await?;
                (found, self.reported.keys().cloned().collect::<Vec<_>>())
            }
        };
        self.unseen = Unseen::Keys(BTreeSet::new());
        let there: BTreeSet<_> = found.iter().map(|found| found.key.as_str()).collect();
        let mut changes = Vec::new();
        for key in unseen {
            if !there.contains(key.as_str()) && self.reported.remove(&key).is_some() {
                changes.push(Change::Gone { key });
            }
        }
        let now = Instant::now();
        for LiveValue { key, value, left } in found {
            let until = now + left;
            match self.reported.get_mut(&key) {
                Some(reported) if reported.value == value => reported.until = until,
                _ => {
                    self.reported.insert(key.clone(), Reported { value: value.clone(), until });
                    changes.push(Change::Set { key, value });
                }
            }
        }
        Ok(changes)
    }

    /// Waits until something may have changed.
    async fn wait(&mut self) {
        let next_end = self.reported.values().map(|reported| reported.until).min();
        let latest = Instant::now() + LOOK_TIME_MAX;
        tokio::select! {
            _ = self.notifier.changed() => self.unseen = Unseen::Everything,
            received = self.changed.recv() => self.receive(received.map_err(|_| ())),
            () = sleep_until(next_end.unwrap_or(latest)), if next_end.is_some_and(|end| end < latest) => {
                let now = Instant::now();
                let over = self.reported.iter().filter(|(_, reported)| reported.until <= now);
                let over: Vec<_> = over.map(|(key, _)| key.clone()).collect();
                for key in over {
                    self.unseen.add(key);
                }
            }
            () = sleep_until(latest) => self.unseen = Unseen::Everything,
        }
        self.gather();
    }

    /// Collects all pending notifications, without waiting.
    fn gather(&mut self) {
        loop {
            match self.changed.try_recv() {
                Ok(key) => self.receive(Ok(key)),
                Err(broadcast::error::TryRecvError::Lagged(_)) => self.receive(Err(())),
                Err(_) => return,
            }
        }
    }

    fn receive(&mut self, received: Result<Arc<str>, ()>) {
        match received {
            Ok(key) if key.starts_with(&self.prefix) => self.unseen.add((*key).to_owned()),
            Ok(_) => {}
            Err(()) => self.unseen = Unseen::Everything,
        }
    }
}

impl Unseen {
    fn add(&mut self, key: String) {
        if let Self::Keys(keys) = self {
            keys.insert(key);
        }
    }
}

#[async_trait]
impl Watch for RedisWatch {
    async fn next(&mut self) -> Result<Vec<Change>, ClusterError> {
        loop {
            self.gather();
            match self.look().await {
                Ok(changes) if !changes.is_empty() => return Ok(changes),
                Ok(_) => self.wait().await,
                Err(_) if self.client.connection.is_up().await => {
                    timeout(RETRY_TIME_MAX, self.notifier.changed()).await.ok();
                    self.unseen = Unseen::Everything;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
