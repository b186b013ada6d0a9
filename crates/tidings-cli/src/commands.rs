//! What `tidings` can be told to do, one module for each command.

mod banner;
#[cfg_attr(not(target_os = "linux"), path = "commands/bench_elsewhere.rs")]
mod bench;
mod demo;
mod hub;
mod key;
mod listening;
mod memory;
mod publish;
mod serve;
#[cfg(unix)]
mod store;
mod subscribe;
mod supervisor;
mod token;
#[cfg(unix)]
mod upgrade;

use clap::{Parser, Subcommand};
use tokio::runtime;

use crate::failure::Failure;

/// Server push for any web application: publish once, every subscribed browser hears it
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

/// Runs what waits for the network.
fn block_on<T>(
    mut builder: runtime::Builder,
    future: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let runtime =
        builder.enable_all().build().map_err(|error| Failure::runtime(format!("cannot start: {error}")))?;
    let done = runtime.block_on(future);
    // A read from standard input cannot be interrupted and would hold the program.
    runtime.shutdown_background();
    done
}
