//! Values that all hubs of a cluster share.

use std::{sync::Arc, time::Duration};

use tidings_log::{Unavailable, cluster};
use tokio::time::sleep;

use crate::hub::Hub;

/// How long a value is kept after the last hub that uses it.
const HOLDS_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How often a hub renews a value that it uses.
const EVERY: Duration = Duration::from_secs(60);

impl Hub {
    /// A value that is the same in all hubs of the [cluster](crate::HubBuilder::cluster), such as a
    /// key that signs cookies: the value already agreed on under this name, or else the proposed
    /// one. It is kept for as long as one of the hubs that asked for it runs, and for a day
    /// afterwards.
    ///
    /// The value is stored unencrypted in the cluster's store. Call this once for each name: the
    /// hub renews the value until the hub is closed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (hub, random) = (tidings::Hub::in_memory().await, [7; 32]);
    /// let cookie_key = hub.agree("cookie-key", &random).await?;
    /// assert_eq!(hub.agree("cookie-key", b"another proposal").await?, cookie_key);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn agree(&self, name: &str, proposed: &[u8]) -> Result<Vec<u8>, Unavailable> {
        let key = format!("agreed/{name}");
        let agreed = cluster::agree(self.cluster(), &key, proposed, HOLDS_FOR)
            .await
            .map_err(|error| Unavailable(error.to_string()))?;
        let (hub, kept) = (Arc::downgrade(&self.state), agreed.clone());
        tokio::spawn(async move {
            loop {
                sleep(EVERY).await;
                let Some(state) = hub.upgrade().filter(|state| !state.engine.is_closed()) else { return };
                if let Err(error) = cluster::agree(&*state.cluster, &key, &kept, HOLDS_FOR).await {
                    tracing::debug!(%error, key, "a shared value cannot be renewed in the cluster");
                }
            }
        });
        Ok(agreed)
    }
}
