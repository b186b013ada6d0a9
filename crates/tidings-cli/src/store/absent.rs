//! A store that this build does not contain, because its cargo feature is off.

use std::{path::Path, sync::Arc};

use tidings::{
    MemoryLimits,
    log::{Log, cluster::Cluster},
};

use crate::failure::Failure;

/// No address of such a store is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {}

impl Address {
    /// Errors continue after the URL.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
        let feature = if matches!(scheme, "nats" | "tls") { "nats" } else { "redis" };
        Err(format!("is a store that this program was built without: its cargo feature `{feature}` is off"))
    }

    pub(crate) fn secret_files(&self) -> std::iter::Empty<&Path> {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "the same signature as every store")]
    pub(super) async fn open(&self, _: MemoryLimits) -> Result<(Arc<dyn Log>, Arc<dyn Cluster>), Failure> {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "the same signature as every store")]
    pub(super) async fn open_journal(&self, _: &str, _: MemoryLimits) -> Result<Arc<dyn Log>, Failure> {
        match *self {}
    }
}
