//! The applications of a hub.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Empty;
use tokio::sync::Semaphore;

use super::path::AuthorizedPath;
use crate::application::client::{Client, Connector};

/// The applications that decide about streams, by the paths that they decide about. Clones share
/// them, so that they can be replaced while a server uses them. Default: none.
#[derive(Clone, Debug)]
pub struct Applications(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// At least 1.
    requests_max: usize,
    current: ArcSwap<Vec<Arc<Application>>>,
}

/// An application, as far as one path is concerned.
#[derive(Debug)]
pub(crate) struct Application {
    pub(super) path: AuthorizedPath,
    pub(super) client: Client<Empty<Bytes>>,
    /// Requests that may wait for it at the same time. Beyond, streams are refused: an application
    /// that hangs must not take the requests of everything else.
    pub(super) in_flight: Semaphore,
}

impl Default for Applications {
    fn default() -> Self {
        Self::new(&[], Self::REQUESTS_MAX_DEFAULT)
    }
}

impl Applications {
    /// Streams that wait for one application's decision, by default.
    pub const REQUESTS_MAX_DEFAULT: usize = 128;

    /// `requests_max`: streams that wait for one application's decision at the same time, at least
    /// one; a quarter of them may be of one address, loopback excepted. One more is answered with
    /// 503 and `Retry-After`, or with 429 for the address; a native EventSource with an empty
    /// stream.
    pub fn new(paths: &[AuthorizedPath], requests_max: usize) -> Self {
        let requests_max = requests_max.clamp(1, Semaphore::MAX_PERMITS);
        let applications = Self(Arc::new(Shared { requests_max, current: ArcSwap::default() }));
        applications.replace(paths);
        applications
    }

    /// From now on the applications of these paths are asked, and no others. An application that
    /// stays the same keeps its connections and the requests that wait for it; one that has been
    /// asked decides as before; streams that are open go on.
    ///
    /// Each path must be free, see [`stream_path_is_free`](crate::stream_path_is_free): the
    /// application of a path of the hub would be asked in the hub's place.
    pub fn replace(&self, paths: &[AuthorizedPath]) {
        let Shared { requests_max, current } = &*self.0;
        let before = current.load();
        let mut client = None;
        let application = |path: &AuthorizedPath| {
            let same = before.iter().find(|application| application.path == *path);
            same.cloned().unwrap_or_else(|| {
                let new = || Client::new(Connector::web(paths.iter().any(AuthorizedPath::is_https)));
                let client = client.get_or_insert_with(new).clone();
                Arc::new(Application { path: path.clone(), client, in_flight: Semaphore::new(*requests_max) })
            })
        };
        let after = paths.iter().map(application).collect();
        current.store(Arc::new(after));
    }

    /// The application that decides about a path.
    pub(crate) fn deciding_about(&self, path: &str) -> Option<Arc<Application>> {
        self.0.current.load().iter().find(|application| application.path.path() == path).cloned()
    }

    /// The paths that are decided about.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.0.current.load().iter().map(|application| application.path.path().to_owned()).collect()
    }

    /// Streams of one address that may wait for a decision.
    pub(crate) fn requests_per_address_max(&self) -> usize {
        (self.0.requests_max / 4).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_that_stays_the_same_keeps_the_requests_that_wait_for_it() {
        let path = |path, url| AuthorizedPath::new(path, url).expect("valid");
        let (kept, moved) = (path("/stream", "http://127.0.0.1:1/"), path("/events", "http://127.0.0.1:2/"));
        let applications = Applications::new(&[kept.clone(), moved], 1);
        let deciding = |path| applications.deciding_about(path).expect("it decides");
        let before = [deciding("/stream"), deciding("/events")];
        let waiting = before.each_ref().map(|application| application.in_flight.try_acquire());
        let moved = path("/events", "http://127.0.0.1:3/");
        let handle = applications.clone();
        handle.replace(&[kept, moved, path("/new", "http://127.0.0.1:4/")]);
        assert!(deciding("/stream").in_flight.try_acquire().is_err());
        assert!(deciding("/events").in_flight.try_acquire().is_ok(), "another application, with capacity");
        assert_eq!(applications.paths(), ["/stream", "/events", "/new"]);
        drop(waiting);
        handle.replace(&[]);
        assert!(applications.deciding_about("/stream").is_none());
    }
}
