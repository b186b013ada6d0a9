//! The logs and the cluster of this crate pass the suites for every log and every cluster.

use std::{future::Ready, sync::Arc};

use tidings_log::{Clock, Log, MemoryLimits, MemoryLog, cluster::LocalCluster};
use tidings_log_conformance::{cluster::Nodes, cluster_conformance, conformance};

async fn in_memory(limits: MemoryLimits, clock: Option<Clock>) -> Option<Arc<dyn Log>> {
    Some(Arc::new(MemoryLog::with_clock(limits, clock.unwrap_or_default())))
}

conformance!(memory, in_memory);

#[cfg(unix)]
mod files {
    use std::sync::Mutex;

    use tempfile::TempDir;
    use tidings_log::{SegmentLog, SegmentSettings, SyncLevel};
    use tidings_log_conformance::Make;

    use super::*;

    /// The directories of the logs that a check makes; they are removed when it ends.
    #[derive(Default)]
    struct Directories(Mutex<Vec<TempDir>>);

    impl Make for Directories {
        async fn make(&self, limits: MemoryLimits, clock: Option<Clock>) -> Option<Arc<dyn Log>> {
            let directory = tempfile::tempdir().expect("a directory");
            let settings = SegmentSettings {
                sync: SyncLevel::Never,
                bytes_max: limits.bytes_max,
                count_max: limits.count_max,
                age_max: limits.age_max,
                keys_max: limits.keys_max,
                ..SegmentSettings::default()
            };
            let log = SegmentLog::open(directory.path(), settings, clock.unwrap_or_default());
            self.0.lock().expect("no test panicked here").push(directory);
            Some(Arc::new(log.expect("a fresh log")))
        }
    }

    conformance!(segments, Directories::default());
}

fn in_one_process() -> Ready<Nodes> {
    tokio::time::pause();
    let cluster = LocalCluster::default();
    std::future::ready(Nodes { one: Arc::new(cluster.clone()), other: Arc::new(cluster) })
}

cluster_conformance!(local_cluster, in_one_process);
