//! Whether the application accepts connections, and who has to know.

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tidings_server::{Component, Figure};
use tokio::{
    net::{TcpStream, UnixStream},
    time::{sleep, timeout},
};

/// The delay between two attempts to connect to an application that starts: the first, and the
/// longest that it doubles to.
const LOOK_MIN: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(100);
/// How long an attempt may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

/// Where the application listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Target {
    /// Waits until it accepts a connection.
    pub(super) async fn accepts(&self) {
        let mut delay = LOOK_MIN;
        while !matches!(timeout(CONNECT_TIME_MAX, self.connect()).await, Ok(Ok(true))) {
            sleep(delay).await;
            delay = (delay * 2).min(LOOK_MAX);
        }
    }

    /// Whether a server accepts a connection. One to a port on which nothing listens may, by chance,
    /// have that port on both ends.
    async fn connect(&self) -> io::Result<bool> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                Ok(stream.local_addr()? != stream.peer_addr()?)
            }
            Self::Unix(path) => UnixStream::connect(path).await.map(|_| true),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What is known about the application. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Availability(Arc<State>);

#[derive(Debug)]
struct State {
    /// The name of its program.
    name: String,
    target: Target,
    is_up: AtomicBool,
    has_served: AtomicBool,
    starts: AtomicU64,
}

impl Availability {
    pub(super) fn new(name: String, target: Target) -> Self {
        Self(Arc::new(State {
            name,
            target,
            is_up: AtomicBool::default(),
            has_served: AtomicBool::default(),
            starts: AtomicU64::default(),
        }))
    }

    pub(super) fn target(&self) -> &Target {
        &self.0.target
    }

    pub(super) fn started(&self) {
        self.0.starts.fetch_add(1, Relaxed);
    }

    pub(super) fn is_up(&self) {
        self.0.has_served.store(true, Relaxed);
        self.0.is_up.store(true, Relaxed);
    }

    pub(super) fn is_down(&self) {
        self.0.is_up.store(false, Relaxed);
    }

    /// Whether it has accepted a connection, now or earlier.
    pub(super) fn has_served(&self) -> bool {
        self.0.has_served.load(Relaxed)
    }
}

impl Component for Availability {
    fn kind(&self) -> &'static str {
        "application"
    }

    fn name(&self) -> String {
        self.0.name.clone()
    }

    fn trouble(&self) -> Option<String> {
        let is_up = self.0.is_up.load(Relaxed);
        (!is_up).then(|| format!("it accepts no connections on {}", self.0.target))
    }

    fn figures(&self) -> Vec<Figure> {
        let starts = self.0.starts.load(Relaxed);
        vec![
            Figure::gauge("up", "Whether it accepts connections.", self.0.is_up.load(Relaxed).into()),
            Figure::counter("starts", "How often it was started.", starts),
        ]
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_application_that_listens_late_is_noticed() {
        let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = reserved.local_addr().unwrap();
        drop(reserved);
        let (listens, accepts) = (TcpListener::bind(address), Target::Tcp(address));
        let (listener, ()) = tokio::join!(
            async {
                tokio::task::yield_now().await;
                listens.await.unwrap()
            },
            accepts.accepts()
        );
        drop(listener);
    }

    #[test]
    fn readiness_and_metrics_follow_the_application() {
        let availability = Availability::new("app".to_owned(), Target::Unix("/run/app.sock".into()));
        assert!(availability.trouble().unwrap().contains("unix:/run/app.sock"));
        availability.started();
        availability.is_up();
        assert_eq!(availability.trouble(), None);
        assert_eq!(availability.figures().iter().map(|figure| figure.value).collect::<Vec<_>>(), [1, 1]);
        availability.is_down();
        assert!(availability.trouble().is_some() && availability.has_served());
    }
}
