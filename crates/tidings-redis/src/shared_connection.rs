//! The connection for commands that all callers in this process share.
//!
//! A keeper task connects and disconnects it. A caller that finds the connection broken takes it
//! down at once, so that no other caller uses it, and the keeper is notified.

use std::time::Duration;

use redis::{RedisError, aio::MultiplexedConnection};
use tokio::{sync::watch, time::timeout};

use crate::trouble::{Trouble, judge};

/// Whether there is a connection now.
pub(crate) struct SharedConnection {
    state: watch::Sender<State>,
    /// The newest connection that was found broken.
    broken: watch::Sender<u64>,
}

#[derive(Clone)]
enum State {
    Up { commands: MultiplexedConnection, number: u64 },
    Down(String),
    Closed,
}

/// The reason once it is closed.
const CLOSED: &str = "it was closed";

impl SharedConnection {
    /// Without a connection.
    pub(crate) fn new() -> Self {
        let state = State::Down("it has not been connected yet".to_owned());
        Self { state: watch::Sender::new(state), broken: watch::Sender::new(0) }
    }

    /// There is a connection now; each has a larger number than those before it.
    pub(crate) fn put_up(&self, commands: MultiplexedConnection, number: u64) {
        self.set(State::Up { commands, number });
    }

    /// There is none, for this reason.
    pub(crate) fn take_down(&self, problem: String) {
        self.set(State::Down(problem));
    }

    fn set(&self, next: State) {
        self.state.send_if_modified(|state| {
            let is_open = !matches!(state, State::Closed);
            if is_open {
                *state = next;
            }
            is_open
        });
    }

    /// There will be no further connection.
    pub(crate) fn close(&self) {
        self.state.send_replace(State::Closed);
    }

    /// The connection and its number, or why there is none.
    pub(crate) fn commands(&self) -> Result<(MultiplexedConnection, u64), String> {
        match &*self.state.borrow() {
            State::Up { commands, number } => Ok((commands.clone(), *number)),
            State::Down(problem) => Err(problem.clone()),
            State::Closed => Err(CLOSED.to_owned()),
        }
    }

    /// What the error of a request on the connection of this number means. If it makes the
    /// connection unusable, that is not used any more.
    pub(crate) fn judge(&self, number: u64, error: &RedisError) -> Trouble {
        let (trouble, is_broken) = judge(error);
        if is_broken {
            self.break_off(number, &trouble.to_string());
        }
        trouble
    }

    fn break_off(&self, number: u64, problem: &str) {
        self.state.send_if_modified(|state| {
            let is_this = matches!(state, State::Up { number: this, .. } if *this == number);
            if is_this {
                *state = State::Down(problem.to_owned());
            }
            is_this
        });
        self.broken.send_if_modified(|broken| {
            let is_news = *broken < number;
            *broken = (*broken).max(number);
            is_news
        });
    }

    /// Waits until a caller finds the connection of this number broken.
    pub(crate) async fn broken_off(&self, number: u64) {
        self.broken.subscribe().wait_for(|broken| *broken >= number).await.expect("the sender is borrowed");
    }

    /// Waits for a connection. False if there will be no further one.
    pub(crate) async fn is_up(&self) -> bool {
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, State::Down(_))).await;
        settled.is_ok_and(|state| matches!(&*state, State::Up { .. }))
    }

    /// Whether there is a connection now, or within some time.
    pub(crate) async fn is_up_within(&self, time: Duration) -> bool {
        timeout(time, self.is_up()).await.unwrap_or(false)
    }

    /// Whether it is closed for good.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(&*self.state.borrow(), State::Closed)
    }
}
