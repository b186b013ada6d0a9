//! The commands of `tidings`, one module each.

mod banner;
#[cfg_attr(not(target_os = "linux"), path = "commands/bench_elsewhere.rs")]
mod bench;
mod demo;
mod hub;
mod key;
mod listening;
mod memory;
#[cfg(unix)]
mod pid_file;
mod publish;
mod serve;
mod signals;
#[cfg(unix)]
mod store;
mod subscribe;
mod supervisor;
mod token;
#[cfg(unix)]
mod upgrade;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};

use clap::{Parser, Subcommand};
use tokio::{runtime, task::spawn_blocking, time};

use crate::{config::near_misses, failure::Failure, output};

/// Server push for any web application: publish once, every subscribed browser receives it
#[derive(Debug, Parser)]
#[command(name = "tidings", version, arg_required_else_help = true)]
pub(crate) struct Tidings {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Publish(publish::Publish),
    Subscribe(subscribe::Subscribe),
    Token(token::Token),
    Key(key::Key),
    #[cfg(unix)]
    Store(store::Store),
    Demo(demo::Demo),
    Bench(Box<bench::Bench>),
}

impl Tidings {
    pub(crate) fn run(self) -> Result<(), Failure> {
        // A hub warns in its log, and its configuration file names further variables.
        if !matches!(self.command, Command::Serve(_) | Command::Demo(_)) {
            for warning in near_misses() {
                output::remark(&format!("warning: {warning}"));
            }
        }
        match self.command {
            Command::Serve(serve) => serve.run(),
            Command::Publish(publish) => publish.run(),
            Command::Subscribe(subscribe) => subscribe.run(),
            Command::Token(token) => token.run(),
            Command::Key(key) => key.run(),
            #[cfg(unix)]
            Command::Store(store) => store.run(),
            Command::Demo(demo) => demo.run(),
            Command::Bench(bench) => bench.run(),
        }
    }
}

/// A runtime of this many threads.
fn threads(threads: usize) -> runtime::Builder {
    if threads <= 1 {
        return runtime::Builder::new_current_thread();
    }
    let mut builder = runtime::Builder::new_multi_thread();
    builder.worker_threads(threads);
    builder
}

/// Runs a future to its end on a runtime.
fn block_on<T>(
    mut builder: runtime::Builder,
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
async fn keep_blocking_thread() -> Result<(), Failure> {
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
