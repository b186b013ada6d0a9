//! The store on NATS JetStream.

use std::{path::Path, sync::Arc};

use tidings::{
    MemoryLimits,
    log::{Log, cluster::Cluster},
};
use tidings_nats::{Nats, NatsAddress, NatsSettings, OpenError};
use tidings_net::InvalidUrl;

use crate::failure::Failure;

/// Which servers hold the store, and in which stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address(NatsAddress);

impl Address {
    /// Parses the URL of `--store`. Errors continue after the URL.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        url.parse().map(Self).map_err(|invalid: InvalidUrl| format!("is not a store: {invalid}"))
    }

    /// The files with keys that the connection uses.
    pub(crate) fn secret_files(&self) -> impl Iterator<Item = &Path> {
        self.0.secret_files()
    }

    pub(super) async fn open(
        &self,
        limits: MemoryLimits,
    ) -> Result<(Arc<dyn Log>, Arc<dyn Cluster>), Failure> {
        let settings = NatsSettings {
            bytes_max: limits.bytes_max,
            count_max: limits.count_max,
            age_max: limits.age_max,
            ..NatsSettings::default()
        };
        let opening = async {
            let nats = Nats::connect(&self.0, settings).await?;
            Ok((nats.log().await?, nats.cluster().await?))
        };
        let (log, cluster) =
            opening.await.map_err(|error: OpenError| Failure::runtime(format!("--store: {error}")))?;
        Ok((Arc::new(log), Arc::new(cluster)))
    }

    /// Opens another log, whose name ends with this.
    pub(super) async fn open_journal(
        &self,
        suffix: &str,
        limits: MemoryLimits,
    ) -> Result<Arc<dyn Log>, Failure> {
        let settings = NatsSettings {
            bytes_max: limits.bytes_max,
            count_max: limits.count_max,
            age_max: limits.age_max,
            ..NatsSettings::default()
        };
        let address = self.0.with_name_suffix(suffix);
        let opening = async { Nats::connect(&address, settings).await?.log().await };
        let log = opening.await.map_err(|error: OpenError| Failure::runtime(format!("--store: {error}")))?;
        Ok(Arc::new(log))
    }
}
