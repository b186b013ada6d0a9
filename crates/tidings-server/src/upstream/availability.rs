//! Whether the application is up, and waiting for one that restarts.

use std::time::Duration;

use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep, timeout_at},
};

use super::address::Address;

/// The pause between two attempts to connect to an application that is down. Only one request of
/// those that wait makes them.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(50);

/// Whether the application accepts connections.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Availability {
    /// Requests are forwarded at once.
    #[default]
    Up,
    /// Requests wait until it is up: until something listens at its address.
    Down,
}

/// What is known of the application.
#[derive(Default, Debug)]
pub(super) struct Reachability {
    pub(super) state: watch::Sender<Availability>,
    /// Held by the one waiting request that tries to connect.
    attempts: Mutex<()>,
}

impl Reachability {
    /// Nothing listens at its address.
    pub(super) fn is_refused(&self) {
        self.state.send_if_modified(|state| std::mem::replace(state, Availability::Down) == Availability::Up);
    }

    /// Waits until the application is up. False if it is not in time.
    pub(super) async fn wait(&self, address: &Address, until: Instant) -> bool {
        if *self.state.borrow() == Availability::Up {
            return true;
        }
        let mut state = self.state.subscribe();
        let waiting = async {
            tokio::select! {
                _ = state.wait_for(|state| *state == Availability::Up) => {}
                () = self.attempt(address) => {}
            }
        };
        timeout_at(until, waiting).await.is_ok()
    }

    async fn attempt(&self, address: &Address) {
        let _attempting = self.attempts.lock().await;
        while !address.accepts_connections().await {
            sleep(ATTEMPT_PAUSE).await;
        }
        self.state.send_if_modified(|state| std::mem::replace(state, Availability::Up) == Availability::Down);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address at which connections are refused: its socket is bound, and does not listen.
    fn refusing() -> (tokio::net::TcpSocket, Address) {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let port = socket.local_addr().expect("bound").port();
        (socket, format!("http://127.0.0.1:{port}").parse().expect("an address"))
    }

    #[tokio::test]
    async fn an_application_that_stays_down_is_waited_for_until_the_deadline() {
        let (socket, address) = refusing();
        let reachability = Reachability::default();
        assert!(reachability.wait(&address, Instant::now()).await, "nothing is known to be wrong");
        reachability.is_refused();
        assert!(!reachability.wait(&address, Instant::now() + 2 * ATTEMPT_PAUSE).await);
        let _listener = socket.listen(1).expect("it listens");
        assert!(reachability.wait(&address, Instant::now() + Duration::from_secs(60)).await);
        assert_eq!(*reachability.state.borrow(), Availability::Up);
    }

    #[tokio::test]
    async fn all_requests_go_on_when_somebody_says_that_the_application_is_up() {
        let (_socket, address) = refusing();
        let reachability = Reachability::default();
        reachability.is_refused();
        let until = Instant::now() + Duration::from_secs(60);
        let say = async {
            while reachability.state.receiver_count() < 3 {
                tokio::task::yield_now().await;
            }
            reachability.state.send_replace(Availability::Up);
        };
        let wait = || reachability.wait(&address, until);
        let (first, second, third, ()) = tokio::join!(wait(), wait(), wait(), say);
        assert!(first && second && third);
    }
}
