//! Keeps the application running, and ends it.
//!
//! One task owns the process. It ends when the application is not started again, or when it was
//! stopped; then no process of its group is left.

use std::{io, process::Command, time::Duration};

use rustix::process::Signal;
use tidings::Hub;
use tokio::{
    sync::{broadcast, mpsc},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    copied_output::copy,
    processes::{Group, Process, Processes},
    restarts::{End, Restarts},
    state::ApplicationState,
};
use crate::{commands::signals::ForApplication, output::Descriptor};

/// How long processes that a crashed application has left behind may take to end. They hold its
/// port.
const LEFT_BEHIND_TIME_MAX: Duration = Duration::from_secs(5);
/// How long the last lines of an application are waited for: a process that has left its group may
/// keep the pipes open.
const LAST_LINES_TIME_MAX: Duration = Duration::from_secs(2);

/// Keeps one application running.
#[derive(Debug)]
pub(super) struct Supervision {
    pub(super) command: Command,
    pub(super) processes: Processes,
    pub(super) restarts: Restarts,
    pub(super) state: ApplicationState,
    pub(super) signals: broadcast::Receiver<ForApplication>,
    /// Receives something when the hub has ended.
    pub(super) stops: mpsc::Receiver<()>,
    /// How long the application may take to end once it was asked to.
    pub(super) patience: Duration,
    /// Closed when the application is not started again: the hub then drains and ends.
    pub(super) hub: Hub,
}

/// How it came to an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// By itself.
    Ended(End),
    /// It was asked to, and has.
    Stopped(End),
    /// It was asked to, and had to be killed.
    Killed,
    /// It was asked to while no process was running.
    StoppedBetween,
}

/// What has been asked of a process that is to end.
#[derive(Debug, Default)]
struct Ending {
    /// When the processes that are left are killed, once it was asked to end.
    asked: Option<Instant>,
    was_killed: bool,
}

impl Supervision {
    /// Starts the application for the first time. Call it within a tokio runtime.
    pub(super) fn start(mut self) -> io::Result<JoinHandle<Outcome>> {
        let first = self.spawn()?;
        Ok(tokio::spawn(self.run(first)))
    }

    fn spawn(&mut self) -> io::Result<Process> {
        let process = self.processes.start(&mut self.command)?;
        self.state.started();
        tracing::info!(pid = process.group.pid(), "the application was started");
        Ok(process)
    }

    async fn run(mut self, first: Process) -> Outcome {
        let mut process = Some(first);
        let mut ending = Ending::default();
        let outcome = loop {
            let started = Instant::now();
            let end = match process.take() {
                Some(process) => self.watch(process, &mut ending).await,
                None => match self.spawn() {
                    Ok(process) => self.watch(process, &mut ending).await,
                    Err(error) => {
                        tracing::error!(%error, "the application cannot be started");
                        End::of_unstartable(&error)
                    }
                },
            };
            if ending.asked.is_some() {
                break if ending.was_killed { Outcome::Killed } else { Outcome::Stopped(end) };
            }
            let lived = started.elapsed();
            let Some(delay) = self.restarts.after(end, lived, self.state.has_served()) else {
                break Outcome::Ended(end);
            };
            tracing::warn!(
                delay_millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                "the application has ended {end}, and is started again"
            );
            tokio::select! {
                () = sleep(delay) => {}
                () = self.is_stopped() => break Outcome::StoppedBetween,
            }
        };
        self.hub.close();
        outcome
    }

    /// Follows a process to its end, and that of the processes that it leaves.
    async fn watch(&mut self, process: Process, ending: &mut Ending) -> End {
        let Process { group, stdout, stderr } = process;
        let copies = [copy(stdout, Descriptor::Stdout), copy(stderr, Descriptor::Stderr)];
        let state = self.state.clone();
        let following = tokio::spawn(async move { state.follow().await });
        let end = loop {
            tokio::select! {
                end = self.processes.ended(group) => break end,
                asked = next(&mut self.signals, &mut self.stops) => ending.ask(asked, group, self.patience),
                () = ending.is_overdue() => ending.kill(group),
            }
        };
        following.abort();
        self.state.is_down();
        self.end_the_rest(group, ending).await;
        for copied in copies.into_iter().flatten() {
            // A process that has left the group may go on, and is copied further.
            let _ = timeout(LAST_LINES_TIME_MAX, copied).await;
        }
        end
    }

    /// Ends the processes whose leader has ended.
    async fn end_the_rest(&mut self, group: Group, ending: &mut Ending) {
        if self.processes.is_empty_soon(group, Duration::ZERO).await {
            return;
        }
        group.signal(Signal::TERM);
        let mut left = Ending {
            asked: ending.asked.or(Some(Instant::now() + LEFT_BEHIND_TIME_MAX)),
            was_killed: ending.was_killed,
        };
        loop {
            tokio::select! {
                () = self.processes.is_empty(group) => break,
                asked = next(&mut self.signals, &mut self.stops) => {
                    ending.ask(asked, group, self.patience);
                    left.was_killed |= ending.was_killed;
                }
                () = left.is_overdue() => left.kill(group),
            }
        }
    }

    /// Waits until the application is to end.
    async fn is_stopped(&mut self) {
        loop {
            match next(&mut self.signals, &mut self.stops).await {
                Asked::HubHasEnded | Asked::Signal(ForApplication::Stop(_)) => return,
                Asked::Signal(ForApplication::PassedOn(_)) => {}
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Signal(ForApplication),
    HubHasEnded,
}

/// What the application is asked next.
async fn next(signals: &mut broadcast::Receiver<ForApplication>, stops: &mut mpsc::Receiver<()>) -> Asked {
    let signal = async {
        loop {
            match signals.recv().await {
                Ok(signal) => return signal,
                // So many signals at once count as fewer.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        // A signal that ends the hub comes before its end, also where both are there: the other way
        // round it would be the second request, which kills the application.
        biased;
        signal = signal => Asked::Signal(signal),
        Some(()) = stops.recv() => Asked::HubHasEnded,
        else => std::future::pending().await,
    }
}

impl Ending {
    fn ask(&mut self, asked: Asked, group: Group, patience: Duration) {
        let signal = match asked {
            Asked::Signal(ForApplication::PassedOn(signal)) => return group.signal_leader(signal),
            // The second time the hub does not wait for its clients either.
            Asked::Signal(ForApplication::Stop(_)) if self.asked.is_some() => return self.kill(group),
            Asked::Signal(ForApplication::Stop(signal)) => signal,
            Asked::HubHasEnded if self.asked.is_some() => return,
            Asked::HubHasEnded => Signal::TERM,
        };
        self.asked = Some(Instant::now() + patience);
        group.signal_leader(signal);
    }

    async fn is_overdue(&self) {
        match self.asked {
            Some(deadline) if !self.was_killed => sleep_until(deadline).await,
            _ => std::future::pending().await,
        }
    }

    fn kill(&mut self, group: Group) {
        self.asked.get_or_insert_with(Instant::now);
        self.was_killed = true;
        group.signal(Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hub without connections ends at once, before this task runs on a machine with much to do.
    #[tokio::test]
    async fn a_signal_is_received_before_the_end_of_the_hub_that_it_causes() {
        for _ in 0..50 {
            let (signals, mut received) = broadcast::channel(1);
            let (stop, mut stops) = mpsc::channel(1);
            signals.send(ForApplication::Stop(Signal::TERM)).expect("there is a receiver");
            stop.send(()).await.expect("there is a receiver");
            let asked = [next(&mut received, &mut stops).await, next(&mut received, &mut stops).await];
            assert_eq!(asked, [Asked::Signal(ForApplication::Stop(Signal::TERM)), Asked::HubHasEnded]);
        }
    }
}
