//! What a hub does on each signal.
//!
//! The default action of most signals ends the process at once, which would cut every stream and
//! lose what waits in memory. [`DECISIONS`] defines the actions of a hub; docs/operations.md has
//! the same table.

use std::{io, sync::Arc};

use tidings_server::Leaving;
use tokio::sync::watch;

#[cfg(unix)]
pub(super) use unix::ForApplication;

use super::drain_delay::DrainDelay;

/// Requests of signals to stop. From its creation on, such a signal no longer ends the process.
#[derive(Clone)]
pub(super) struct Stops {
    delay: DrainDelay,
    reloads: Arc<watch::Sender<()>>,
    #[cfg(unix)]
    for_application: tokio::sync::broadcast::Sender<ForApplication>,
}

/// Requests of signals to reload the configuration.
pub(super) struct Reloads(watch::Receiver<()>);

impl Stops {
    /// Waits until the hub is to drain (1), and then until it is to cut all connections (2).
    pub(super) async fn requested(self, times: usize) {
        self.delay.requested(times).await;
    }

    /// Whether the hub was asked to stop. It may still serve: see [`DrainDelay`].
    pub(super) fn leaving(&self) -> &Leaving {
        self.delay.leaving()
    }

    /// What signals mean for the application that this process runs, from now on.
    #[cfg(unix)]
    pub(super) fn for_application(&self) -> tokio::sync::broadcast::Receiver<ForApplication> {
        self.for_application.subscribe()
    }

    /// Requests to reload, from now on. Until this is called, and once all receivers are dropped, the
    /// signal is ignored.
    pub(super) fn reloads(&self) -> Reloads {
        Reloads(self.reloads.subscribe())
    }
}

impl Reloads {
    /// Waits for the next request. Several that arrive meanwhile count as one.
    pub(super) async fn requested(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
pub(super) use unix::stops;

#[cfg(unix)]
mod unix {
    use std::{io::IsTerminal, os::fd::BorrowedFd, sync::Arc, time::Duration};

    use rustix::{
        event::{PollFd, PollFlags, poll},
        process::Signal,
        stdio,
        time::Timespec,
    };
    use tokio::{
        signal::unix::{SignalKind, signal},
        sync::broadcast,
    };

    use super::{DrainDelay, Stops, io, watch};

    /// Signals for the application that are not passed on yet. More at once count as fewer.
    const FOR_APPLICATION_MAX: usize = 16;

    /// What a signal means for the application that this process runs.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) enum ForApplication {
        /// It is to end, and gets this signal.
        Stop(Signal),
        /// It gets this signal, whatever it does then.
        PassedOn(Signal),
    }

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Decision {
        /// Drain and exit, after the drain delay; a further signal ends the delay, and one during
        /// the drain exits at once. An operator or a supervisor sends it.
        Stop,
        /// Drain and exit, without a delay and however often it arrives: the machine or the kernel
        /// announces a shutdown.
        Drain,
        /// Drain without a delay if a terminal has closed; otherwise reload the configuration.
        Hangup,
        /// Pass it on to the application, if there is one; otherwise ignore it, with a line in the
        /// log.
        Report,
        /// Ignore.
        Ignore,
    }

    /// Signals whose default action ends the process, except
    /// - SIGUSR2, which is an upgrade (`upgrade.rs`);
    /// - SIGXFSZ, a write beyond the file size limit, which `main` catches: the write returns an
    ///   error, and a publication is answered 507;
    /// - SIGPIPE, which the standard library ignores before `main`: a write returns an error
    ///   instead;
    /// - those that report a fault of the program itself (SIGILL, SIGABRT, SIGFPE, SIGSEGV, SIGBUS,
    ///   SIGSYS, SIGTRAP): to continue would be worse;
    /// - SIGKILL, which cannot be caught.
    const DECISIONS: &[(Signal, &str, Decision)] = &[
        (Signal::INT, "SIGINT", Decision::Stop),
        (Signal::TERM, "SIGTERM", Decision::Stop),
        (Signal::QUIT, "SIGQUIT", Decision::Stop),
        (Signal::HUP, "SIGHUP", Decision::Hangup),
        (Signal::USR1, "SIGUSR1", Decision::Report),
        // Timers that a parent may have left behind; the hub sets none.
        (Signal::ALARM, "SIGALRM", Decision::Ignore),
        (Signal::VTALARM, "SIGVTALRM", Decision::Ignore),
        (Signal::PROF, "SIGPROF", Decision::Ignore),
        (Signal::IO, "SIGIO", Decision::Ignore),
        // The CPU time limit: at the hard limit the kernel kills the process.
        (Signal::XCPU, "SIGXCPU", Decision::Drain),
        #[cfg(target_os = "linux")]
        (Signal::POWER, "SIGPWR", Decision::Drain),
        #[cfg(target_os = "linux")]
        (Signal::STKFLT, "SIGSTKFLT", Decision::Ignore),
    ];

    /// Real-time signals, which a hub ignores. The C library reserves those below.
    #[cfg(target_os = "linux")]
    const REAL_TIME: std::ops::RangeInclusive<i32> = if cfg!(target_env = "gnu") { 34..=64 } else { 35..=64 };

    /// Installs handlers for all signals. Call it once, early, within a tokio runtime.
    pub(crate) fn stops(delay: Duration) -> io::Result<Stops> {
        let delay = DrainDelay::new(delay);
        let reloads = Arc::new(watch::Sender::new(()));
        let (for_application, _) = broadcast::channel(FOR_APPLICATION_MAX);
        let terminals = Terminals::of_this_process();
        for &(number, name, decision) in DECISIONS {
            let mut signal = signal(SignalKind::from_raw(number.as_raw()))?;
            if decision == Decision::Ignore {
                // The handler stays installed.
                continue;
            }
            let (delay, reloads, terminals) = (delay.clone(), Arc::clone(&reloads), terminals.clone());
            let for_application = for_application.clone();
            tokio::spawn(async move {
                while signal.recv().await.is_some() {
                    let is_stop = match decision {
                        Decision::Stop => true,
                        Decision::Drain => !delay.is_over(),
                        Decision::Hangup => terminals.are_gone() && !delay.is_over(),
                        Decision::Report | Decision::Ignore => false,
                    };
                    if is_stop {
                        let has_delay = decision == Decision::Stop;
                        let sent = if has_delay { number } else { Signal::TERM };
                        let for_application = for_application.clone();
                        delay.request(has_delay, move || {
                            tracing::info!(signal = name, "stopping");
                            // Without an application nothing receives it.
                            let _ = for_application.send(ForApplication::Stop(sent));
                        });
                        continue;
                    }
                    let is_passed_on = matches!(decision, Decision::Hangup | Decision::Report)
                        && for_application.send(ForApplication::PassedOn(number)).is_ok();
                    if decision == Decision::Hangup && reloads.send(()).is_ok() {
                        tracing::info!(signal = name, "reloading the configuration");
                    } else if is_passed_on {
                        tracing::info!(signal = name, "signal passed on to the application");
                    } else {
                        tracing::info!(signal = name, "signal ignored");
                    }
                }
            });
        }
        #[cfg(target_os = "linux")]
        for number in REAL_TIME {
            drop(signal(SignalKind::from_raw(number))?);
        }
        Ok(Stops { delay, reloads, for_application })
    }

    /// Whether the process was started with SIGHUP ignored. Call it before the signal is caught.
    fn is_hangup_ignored() -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
        mask & (1 << (Signal::HUP.as_raw() - 1)) != 0
    }

    /// The standard descriptors that were terminals when the hub started.
    #[derive(Clone)]
    struct Terminals(Vec<BorrowedFd<'static>>);

    impl Terminals {
        fn of_this_process() -> Self {
            // With `nohup` and `trap '' HUP` the hub outlives its terminal.
            if is_hangup_ignored() {
                return Self(Vec::new());
            }
            let descriptors = [stdio::stdin(), stdio::stdout(), stdio::stderr()];
            Self(descriptors.into_iter().filter(IsTerminal::is_terminal).collect())
        }

        /// Whether one of them has closed.
        fn are_gone(&self) -> bool {
            self.0.iter().any(|terminal| {
                let mut polled = [PollFd::new(terminal, PollFlags::empty())];
                let done = poll(&mut polled, Some(&Timespec::default()));
                done.is_err() || !polled[0].revents().is_empty()
            })
        }
    }
}

/// Installs a handler for Ctrl-C. Call it once, early, within a tokio runtime.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
pub(super) fn stops(delay: std::time::Duration) -> io::Result<Stops> {
    let delay = DrainDelay::new(delay);
    let requests = delay.clone();
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            requests.request(true, || tracing::info!(signal = "Ctrl-C", "stopping"));
        }
    });
    Ok(Stops { delay, reloads: Arc::new(watch::Sender::new(())) })
}
