//! A hub as a member of its cluster: under which name and keys it publishes what.

use std::{sync::Arc, time::Duration};

use tidings::{
    Hub,
    log::cluster::{Cluster, ClusterError},
};
use tokio::sync::watch;

use crate::{
    encoding::{Key, MARKS, decode_mark, encode_mark},
    pages::{self, Showing},
};

/// How often a hub renews its mark.
pub(crate) const EVERY: Duration = Duration::from_secs(5);
/// A mark is kept for this long: two renewals may be late.
pub(crate) const HOLDS_FOR: Duration = Duration::from_secs(15);

/// This hub in its cluster.
#[derive(Debug)]
pub(crate) struct ClusterMembership {
    pub(crate) cluster: Arc<dyn Cluster>,
    /// Whether there may be other hubs.
    pub(crate) is_shared: bool,
    /// The name of this hub, which is unique.
    pub(crate) name: String,
    /// Whether the hub has reported to the others that it is closed, or tried to.
    pub(crate) has_withdrawn: watch::Sender<bool>,
}

impl ClusterMembership {
    pub(crate) fn new(hub: &Hub) -> Self {
        let name = getrandom::u64().expect("the system provides random numbers");
        let is_shared = hub.is_clustered();
        Self {
            cluster: hub.shared_cluster(),
            is_shared,
            name: format!("{name:016x}"),
            has_withdrawn: watch::Sender::new(!is_shared),
        }
    }

    pub(crate) fn mark(&self) -> String {
        Key::Mark { hub: &self.name }.to_string()
    }

    pub(crate) fn page(&self, number: usize) -> String {
        Key::Page { hub: &self.name, number }.to_string()
    }

    pub(crate) async fn show_mark(&self, subscribers: usize) -> Result<(), ClusterError> {
        self.cluster.set(&self.mark(), &encode_mark(subscribers), HOLDS_FOR).await
    }

    pub(crate) async fn show_page(&self, showing: &Showing) -> Result<(), ClusterError> {
        let key = self.page(showing.number);
        match &showing.value {
            Some(value) => self.cluster.set(&key, value, pages::HOLDS_FOR).await,
            None => self.cluster.remove(&key).await,
        }
    }

    /// How many subscribers the other hubs have, by their own count.
    pub(crate) async fn elsewhere(&self) -> Result<u64, ClusterError> {
        let marks = self.cluster.list(MARKS).await?;
        let own = self.mark();
        let others = marks.iter().filter(|(key, _)| *key != own);
        // A mark of another version is not counted.
        Ok(others.filter_map(|(_, value)| decode_mark(value)).fold(0, u64::saturating_add))
    }
}
