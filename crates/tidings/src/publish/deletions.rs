//! How far the caches of a hub are without deleted events.

use tokio::sync::watch;

/// The last deletion up to which the caches of this hub hold no deleted event.
#[derive(Debug, Default)]
pub(crate) struct Deletions(watch::Sender<u64>);

impl Deletions {
    /// The caches were cleared for this deletion and those before it.
    pub(crate) fn reached(&self, serial: u64) {
        self.0.send_replace(serial);
    }

    /// No further deletion will arrive, and nothing is cached.
    pub(crate) fn close(&self) {
        self.reached(u64::MAX);
    }

    pub(crate) async fn reach(&self, serial: u64) {
        self.0
            .subscribe()
            .wait_for(|reached| *reached >= serial)
            .await
            .expect("the sender is still borrowed");
    }
}
