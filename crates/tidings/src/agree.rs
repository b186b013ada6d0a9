//! What all hubs of a cluster have alike.

use std::{sync::Arc, time::Duration};

use tidings_log::{Unavailable, cluster};
use tokio::time::sleep;

use crate::hub::Hub;

/// How long a value holds after the last hub that uses it.
const HOLDS_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How often a hub that uses it says so.
const EVERY: Duration = Duration::from_secs(60);

impl Hub {
    /// A value that all hubs of the [cluster](crate::HubBuilder::cluster) have alike, such as a key that signs cookies: the one that was agreed on under this name, or else this one.
    /// It holds for as long as one of the hubs that asked for it lives, and a day longer.
    ///
    /// It lies as it is in the store that the hubs share. Call it once for each name: it is kept until the hub is closed.
    pub async fn agree(&self, name: &str, proposed: &[u8]) -> Result<Vec<u8>, Unavailable> {
        let key = format!("agreed/{name}");
        let agreed = cluster::agree(self.cluster(), &key, proposed, HOLDS_FOR)
            .await
            .map_err(|error| Unavailable(error.to_string()))?;
        let (hub, kept) = (Arc::downgrade(&self.shared), agreed.clone());
        tokio::spawn(async move {
            loop {
                sleep(EVERY).await;
                let Some(shared) = hub.upgrade().filter(|shared| !shared.is_closed()) else { return };
                if let Err(error) = cluster::agree(shared.place.cluster(), &key, &kept, HOLDS_FOR).await {
                    tracing::debug!(%error, key, "the cluster does not receive that a value is still used");
                }
            }
        });
        Ok(agreed)
    }
}
