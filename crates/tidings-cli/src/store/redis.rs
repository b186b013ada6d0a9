//! The store in Redis.

use std::{path::Path, sync::Arc};

use tidings::{
    MemoryLimits,
    log::{Log, cluster::Cluster},
};
use tidings_redis::{RedisCluster, RedisLog, RedisSettings, RedisUrl};

use crate::failure::Failure;

/// Which Redis holds the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address(Box<RedisUrl>);

impl Address {
    /// Parses the URL of `--store`. Errors continue after the URL.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let url: RedisUrl = url.parse().map_err(|error| format!("is not a store: {error}"))?;
        RedisSettings::from_url(url.clone(), MemoryLimits::default())
            .map_err(|error| format!("is not a store: {error}"))?;
        Ok(Self(Box::new(url)))
    }

    /// The files with keys that the connection uses.
    pub(crate) fn secret_files(&self) -> impl Iterator<Item = &Path> {
        self.0.secret_files()
    }

    pub(super) async fn open(
        &self,
        limits: MemoryLimits,
    ) -> Result<(Arc<dyn Log>, Arc<dyn Cluster>), Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::runtime(format!("--store: {error}"));
        let settings = RedisSettings::from_url((*self.0).clone(), limits).map_err(|error| failed(&error))?;
        let cluster = RedisCluster::open(&settings).await.map_err(|error| failed(&error))?;
        let log = RedisLog::open(settings).await.map_err(|error| failed(&error))?;
        Ok((Arc::new(log), Arc::new(cluster)))
    }

    /// Opens another log, whose name ends with this.
    pub(super) async fn open_journal(
        &self,
        suffix: &str,
        limits: MemoryLimits,
    ) -> Result<Arc<dyn Log>, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::runtime(format!("--store: {error}"));
        let mut settings =
            RedisSettings::from_url((*self.0).clone(), limits).map_err(|error| failed(&error))?;
        settings.name.push_str(suffix);
        let log = RedisLog::open(settings).await.map_err(|error| failed(&error))?;
        Ok(Arc::new(log))
    }
}
