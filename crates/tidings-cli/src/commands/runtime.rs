//! The runtimes of commands, and what they need of the system.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};

use tokio::{runtime::Builder, task::spawn_blocking, time};

use crate::{failure::Failure, output};

/// A runtime of this many threads.
pub(super) fn threads(threads: usize) -> Builder {
    if threads <= 1 {
        return Builder::new_current_thread();
    }
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads);
    builder
}

/// Runs a future to its end on a runtime.
pub(super) fn block_on<T>(
    mut builder: Builder,
    future: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    // tokio panics if the system has no thread or descriptor left.
    let built = output::quietly(|| catch_unwind(AssertUnwindSafe(|| builder.enable_all().build())));
    let runtime = built
        .unwrap_or_else(|_| Err(std::io::Error::other(NO_RESOURCES)))
        .map_err(|error| Failure::runtime(format!("cannot start: {error}")))?;
    let done = runtime.block_on(future);
    // A read from standard input cannot be interrupted and would hold the program.
    runtime.shutdown_background();
    done
}

/// Why a start fails without threads or file descriptors.
const NO_RESOURCES: &str =
    "the system permits no more threads or file descriptors (see `ulimit -u -n`, TasksMax and LimitNOFILE)";

/// How long the first thread for blocking work may take to start.
const FIRST_THREAD_TIME_MAX: Duration = Duration::from_secs(5);
/// tokio ends a thread that had nothing to do for 10 seconds.
const KEEP_THREAD_INTERVAL: Duration = Duration::from_secs(5);

/// Keeps one thread for blocking work. Where the system permits no new threads, that work is queued
/// for this thread; without it, the work would wait forever or panic.
pub(super) async fn keep_blocking_thread() -> Result<(), Failure> {
    let no_thread = || Failure::runtime(format!("cannot start: {NO_RESOURCES}"));
    // tokio would not report a failure to start one.
    let tried = thread::Builder::new().spawn(|| ()).map_err(|_| no_thread())?;
    let _ = tried.join();
    time::timeout(FIRST_THREAD_TIME_MAX, spawn_blocking(|| ())).await.map_err(|_| no_thread())?.ok();
    tokio::spawn(async {
        loop {
            time::sleep(KEEP_THREAD_INTERVAL).await;
            let _ = spawn_blocking(|| ()).await;
        }
    });
    Ok(())
}
