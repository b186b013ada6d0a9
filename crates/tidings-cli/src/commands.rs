//! The commands of `tidings`, one module each.

#[cfg(unix)]
mod application;
mod attendance;
mod banner;
#[cfg_attr(not(all(target_os = "linux", feature = "bench")), path = "commands/bench_absent.rs")]
mod bench;
mod clock;
mod completions;
mod config;
#[cfg_attr(not(feature = "demo"), path = "commands/demo_absent.rs")]
mod demo;
mod drain_delay;
mod health;
mod hub;
mod key;
mod listening;
mod log_filter;
mod manual;
mod memory;
mod metrics;
#[cfg(unix)]
mod pid_file;
mod publish;
#[cfg(unix)]
mod reload;
mod reloader;
mod rules;
#[cfg(unix)]
mod run;
mod runtime;
mod serve;
mod short_help;
mod signals;
mod sockets;
#[cfg(unix)]
mod store;
mod subscribe;
mod supervisor;
mod takeover;
mod ticket;
mod token;
mod topics;
#[cfg(unix)]
mod upgrade;

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

use crate::{
    config::near_misses,
    failure::{EXIT_CODES, Failure},
    output,
};

/// Server push for any web application: publish once, every subscribed browser receives it
#[derive(Debug, Parser)]
#[command(name = "tidings", version, arg_required_else_help = true, after_help = exit_codes())]
pub(crate) struct Tidings {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    #[cfg(unix)]
    Run(Box<run::Run>),
    Publish(publish::Publish),
    Subscribe(subscribe::Subscribe),
    Topics(topics::Topics),
    Ticket(ticket::Ticket),
    Token(token::Token),
    Key(key::Key),
    Config(config::Config),
    #[cfg(unix)]
    Reload(reload::Reload),
    #[cfg(unix)]
    Store(store::Store),
    Health(health::Health),
    Demo(demo::Demo),
    Bench(Box<bench::Bench>),
    Metrics(metrics::Metrics),
    Completions(completions::Completions),
    Man(manual::Manual),
}

/// The part of `tidings --help` about exit codes.
fn exit_codes() -> String {
    let codes = EXIT_CODES.iter().map(|(code, meaning)| format!("  {code}  {meaning}"));
    format!("Exit codes:\n{}", codes.collect::<Vec<_>>().join("\n"))
}

impl Tidings {
    /// Parses a command line. `-h` is an error that displays the short help, `--help` one that
    /// displays everything.
    pub(crate) fn parse_words(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let words: Vec<_> = words.into_iter().collect();
        let parsed = Self::try_parse_from(&words);
        match &parsed {
            Err(help) if help.kind() == ErrorKind::DisplayHelp && short_help::is_requested(&words) => {
                let short = short_help::shortened(Self::command()).try_get_matches_from(&words);
                Err(short.expect_err("the same words request help"))
            }
            _ => parsed,
        }
    }

    pub(crate) fn run(self) -> Result<(), Failure> {
        // A hub warns in its log, and its configuration file names further variables.
        let is_hub = match self.command {
            Command::Serve(_) | Command::Demo(_) => true,
            #[cfg(unix)]
            Command::Run(_) => true,
            _ => false,
        };
        if !is_hub {
            for warning in near_misses() {
                output::remark(&format!("warning: {warning}"));
            }
        }
        match self.command {
            Command::Serve(serve) => serve.run(),
            #[cfg(unix)]
            Command::Run(run) => run.run(),
            Command::Publish(publish) => publish.run(),
            Command::Subscribe(subscribe) => subscribe.run(),
            Command::Topics(topics) => topics.run(),
            Command::Ticket(ticket) => ticket.run(),
            Command::Token(token) => token.run(),
            Command::Key(key) => key.run(),
            Command::Config(config) => config.run(),
            #[cfg(unix)]
            Command::Reload(reload) => reload.run(),
            #[cfg(unix)]
            Command::Store(store) => store.run(),
            Command::Health(health) => health.run(),
            Command::Demo(demo) => demo.run(),
            Command::Bench(bench) => bench.run(),
            Command::Metrics(metrics::Metrics) => metrics::Metrics::run(),
            Command::Completions(completions) => completions.run(Self::command()),
            Command::Man(manual) => manual.run(Self::command()),
        }
    }
}
