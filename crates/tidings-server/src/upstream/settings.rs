//! The application behind the hub, and what may be asked of it at a time.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::{Semaphore, watch};

use super::{
    address::{Address, InvalidUpstream},
    availability::{Availability, Reachability},
    upload::Upload,
};
use crate::application::client::Client;

/// The application behind the hub, see [`Settings::upstream`](crate::Settings::upstream). Clones are
/// handles to the same.
#[derive(Clone, Debug)]
pub struct Upstream(Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) address: Address,
    pub(super) settings: UpstreamSettings,
    pub(super) client: Client<Upload>,
    pub(super) reachability: Reachability,
    /// Requests that may be under way.
    pub(super) requests: Arc<Semaphore>,
}

/// What may be asked of an application, each limit with its default, and with what a client receives
/// that exceeds it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct UpstreamSettings {
    /// How long a request waits for an application to which no connection can be made, because
    /// nothing listens at its address: it restarts. Default: 10 seconds. Beyond: 502 with
    /// `Retry-After`. A request of whose body a part has been read does not wait.
    pub wait: Duration,
    /// How long the application may take from the end of a request to the headers of its response,
    /// and how long it may read nothing of the request's body. Default: 60 seconds. Beyond: 504 with
    /// `Retry-After`.
    pub time: Duration,
    /// Requests that are under way at the same time, at least one: those that wait for the
    /// application, those whose response is being delivered, and WebSockets. Each takes a connection
    /// to the application. A quarter of them may be of one address, loopback excepted. Default:
    /// 4,096. One more is answered with 503 and `Retry-After`, or with 429 for the address.
    pub requests_max: usize,
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(10),
            time: Duration::from_secs(60),
            requests_max: Self::REQUESTS_MAX_DEFAULT,
        }
    }
}

impl UpstreamSettings {
    /// Requests that are under way, by default.
    pub const REQUESTS_MAX_DEFAULT: usize = 4096;

    pub(crate) fn per_address_max(&self) -> usize {
        (self.requests_max / 4).max(1)
    }
}

impl Upstream {
    /// The application at this address: `http://127.0.0.1:5000`, `https://…`, which is verified
    /// against the certificates of the system, or `unix:/run/app.sock`.
    pub fn new(address: &str, settings: UpstreamSettings) -> Result<Self, InvalidUpstream> {
        let address: Address = address.parse()?;
        let requests_max = settings.requests_max.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Self(Arc::new(Shared {
            client: Client::new(address.connector()),
            reachability: Reachability::default(),
            requests: Arc::new(Semaphore::new(requests_max)),
            address,
            settings,
        })))
    }

    /// Whether the application is up, to be read, and to be said by what starts and stops it. The
    /// server says that it is down when nothing listens at its address, and that it is up when
    /// something does; where nobody says more, a request finds out.
    pub fn availability(&self) -> &watch::Sender<Availability> {
        &self.0.reachability.state
    }

    /// Whether the application accepts a connection now.
    pub async fn accepts_connections(&self) -> bool {
        self.0.address.accepts_connections().await
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    /// Its limits.
    pub fn settings(&self) -> &UpstreamSettings {
        &self.0.settings
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.address.fmt(f)
    }
}
