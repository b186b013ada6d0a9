//! Whether the process was asked to stop.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// Whether the process was asked to stop, while it still serves: `/readyz` then answers 503, so that
/// load balancers send no further clients. Clones are handles to the same.
#[derive(Clone, Default, Debug)]
pub struct Leaving(Arc<AtomicBool>);

impl Leaving {
    /// From now on the hub is not ready. Whether it was until now.
    pub fn begin(&self) -> bool {
        !self.0.swap(true, Relaxed)
    }

    /// Whether the process was asked to stop.
    pub fn has_begun(&self) -> bool {
        self.0.load(Relaxed)
    }
}
