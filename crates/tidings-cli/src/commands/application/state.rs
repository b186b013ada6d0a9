//! Whether the application accepts connections, and who has to know: requests for it, readiness and
//! metrics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tidings_server::{Availability, Component, Figure, Upstream};
use tokio::time::{sleep, timeout};

/// The delay between two attempts to connect to an application that starts: the first, and the
/// longest that it doubles to.
const LOOK_MIN: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(100);
/// How long an attempt may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

/// What is known about the application. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct ApplicationState(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The name of its program.
    name: String,
    /// Requests are forwarded to it, and wait while it is down.
    upstream: Upstream,
    has_served: AtomicBool,
    starts: AtomicU64,
}

impl ApplicationState {
    /// The application is down until [`follow`](Self::follow) finds it up.
    pub(super) fn new(name: String, upstream: Upstream) -> Self {
        let shared =
            Shared { name, upstream, has_served: AtomicBool::default(), starts: AtomicU64::default() };
        let this = Self(Arc::new(shared));
        this.is_down();
        this
    }

    pub(super) fn upstream(&self) -> &Upstream {
        &self.0.upstream
    }

    pub(super) fn started(&self) {
        self.0.starts.fetch_add(1, Relaxed);
    }

    /// Notes when it accepts connections, now and each time that it has ceased to, as with a server
    /// that restarts its workers itself. Never completes.
    pub(super) async fn follow(&self) {
        let availability = self.0.upstream.availability();
        let mut changes = availability.subscribe();
        loop {
            let mut delay = LOOK_MIN;
            while timeout(CONNECT_TIME_MAX, self.0.upstream.accepts_connections()).await != Ok(true) {
                sleep(delay).await;
                delay = (delay * 2).min(LOOK_MAX);
            }
            self.0.has_served.store(true, Relaxed);
            availability.send_replace(Availability::Up);
            tracing::info!(address = %self.0.upstream, "the application accepts connections");
            // A request finds nothing that listens.
            let is_down = |now: &Availability| *now == Availability::Down;
            if changes.wait_for(is_down).await.is_err() {
                return;
            }
            tracing::info!("the application accepts no connections: requests wait");
        }
    }

    pub(super) fn is_down(&self) {
        self.0.upstream.availability().send_replace(Availability::Down);
    }

    /// Whether it has accepted a connection, now or earlier.
    pub(super) fn has_served(&self) -> bool {
        self.0.has_served.load(Relaxed)
    }

    fn is_up(&self) -> bool {
        *self.0.upstream.availability().borrow() == Availability::Up
    }
}

impl Component for ApplicationState {
    fn kind(&self) -> &'static str {
        "application"
    }

    fn name(&self) -> String {
        self.0.name.clone()
    }

    fn trouble(&self) -> Option<String> {
        (!self.is_up()).then(|| format!("it accepts no connections on {}", self.0.upstream))
    }

    fn figures(&self) -> Vec<Figure> {
        let starts = self.0.starts.load(Relaxed);
        vec![
            Figure::new("tidings_application_up", self.is_up().into()),
            Figure::new("tidings_application_starts_total", starts),
        ]
    }
}

#[cfg(test)]
mod tests {
    use tidings_server::UpstreamSettings;
    use tokio::net::TcpSocket;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn an_application_that_listens_late_or_again_is_noticed() {
        // Bound, and not listening: connections are refused.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = format!("http://{}", socket.local_addr().unwrap());
        let upstream = Upstream::new(&address, UpstreamSettings::default()).unwrap();
        let state = ApplicationState::new("app".to_owned(), upstream.clone());
        assert!(state.trouble().unwrap().contains(&address) && !state.has_served());
        let followed = state.clone();
        let following = tokio::spawn(async move { followed.follow().await });
        let mut changes = upstream.availability().subscribe();
        let is_up = |now: &Availability| *now == Availability::Up;
        let _listener = socket.listen(8).unwrap();
        for _ in 0..2 {
            timeout(PATIENCE, changes.wait_for(is_up)).await.unwrap().unwrap();
            assert!(state.trouble().is_none() && state.has_served());
            state.is_down();
        }
        following.abort();
        state.started();
        assert_eq!(state.figures()[1].value, 1);
    }
}
