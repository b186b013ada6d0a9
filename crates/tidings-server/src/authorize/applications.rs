//! The applications of a hub.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{client::Client, path::AuthorizedPath};

/// The applications that decide, by the paths that they decide about.
#[derive(Debug)]
pub(crate) struct Applications(Vec<Arc<Application>>);

/// An application, as far as one path is concerned.
#[derive(Debug)]
pub(crate) struct Application {
    pub(super) path: AuthorizedPath,
    pub(super) client: Client,
    /// Requests that may wait for it at the same time. Beyond, streams are refused: an application
    /// that hangs must not take the requests of everything else.
    pub(super) in_flight: Semaphore,
}

impl Applications {
    pub(crate) fn new(paths: &[AuthorizedPath], requests_max: usize) -> Self {
        if paths.is_empty() {
            return Self(Vec::new());
        }
        let client = Client::new(paths.iter().any(AuthorizedPath::is_https));
        let application = |path: &AuthorizedPath| {
            Arc::new(Application {
                path: path.clone(),
                client: client.clone(),
                in_flight: Semaphore::new(requests_max.clamp(1, Semaphore::MAX_PERMITS)),
            })
        };
        Self(paths.iter().map(application).collect())
    }

    /// The application that decides about each path.
    pub(crate) fn by_path(&self) -> impl Iterator<Item = (&str, &Arc<Application>)> {
        self.0.iter().map(|application| (application.path.path(), application))
    }

    /// Whether an application decides about this path.
    pub(crate) fn decide_about(&self, path: &str) -> bool {
        self.by_path().any(|(decided, _)| decided == path)
    }
}
