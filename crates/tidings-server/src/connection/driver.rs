//! What all connections of one server share, and how it has a request answered.

use std::{
    convert::Infallible,
    ops::Deref,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use tower::{Service, ServiceExt};

use super::{
    admission::Admission,
    http2::PassQueue,
    metrics::ConnectionMetrics,
    peer::Peer,
    proxy_header_log::{ProxyHeaderLog, proxy_header_log},
    rejected::{NoCapacity, REJECTED_HEADERS_TIME, REJECTED_INCOMPLETE_MAX, REJECTED_MAX},
    settings::ConnectionSettings,
};
use crate::{
    access_log::{self, FromTrustedProxy},
    http1::{Refusal, RequestBody, RequestLimits},
    limit_log::LimitLog,
};

/// See the module's documentation. Each connection's task has a clone.
#[derive(Clone)]
pub(crate) struct Driver<S> {
    service: S,
    shared: Arc<Shared>,
}

#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) limits: RequestLimits,
    pub(super) dead_peer: Duration,
    pub(crate) response_time: Duration,
    pub(super) access_log: bool,
    /// Otherwise each request is marked with [`NoCapacity`], and is the last one of its connection.
    pub(crate) has_capacity: bool,
    pub(crate) admission: Arc<Admission>,
    pub(super) busy: PassQueue,
    pub(super) limits_reached: Arc<LimitLog>,
    pub(super) proxy_headers: Arc<ProxyHeaderLog>,
    pub(crate) metrics: Arc<ConnectionMetrics>,
}

impl<S> Deref for Driver<S> {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl<S> Driver<S> {
    pub(crate) fn new(service: S, settings: &ConnectionSettings, metrics: &Arc<ConnectionMetrics>) -> Self {
        let limits = RequestLimits {
            first_byte: Duration::from_secs(settings.first_byte_secs),
            headers: Duration::from_secs(settings.request_headers_secs),
            keep_alive: Duration::from_secs(settings.keep_alive_secs),
            headers_bytes_max: settings.request_headers_bytes_max,
            http2: settings.http2,
        };
        let limits_reached = Arc::<LimitLog>::default();
        let shared = Shared {
            limits,
            dead_peer: Duration::from_secs(settings.dead_peer_secs),
            response_time: Duration::from_secs(settings.response_secs),
            access_log: settings.access_log,
            has_capacity: true,
            admission: Arc::new(Admission::with_limits(
                settings.requests_arriving_max,
                settings.requests_max,
                &limits_reached,
            )),
            busy: PassQueue::new(),
            limits_reached,
            proxy_headers: Arc::new(proxy_header_log()),
            metrics: Arc::clone(metrics),
        };
        Self { service, shared: Arc::new(shared) }
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// The same for connections beyond the capacity.
    pub(super) fn rejecting(&self) -> Self
    where
        S: Clone,
    {
        let shared = Shared {
            limits: RequestLimits {
                first_byte: self.limits.first_byte.min(REJECTED_HEADERS_TIME),
                headers: self.limits.headers.min(REJECTED_HEADERS_TIME),
                ..self.limits
            },
            has_capacity: false,
            admission: Arc::new(Admission::with_limits(
                REJECTED_INCOMPLETE_MAX,
                REJECTED_MAX,
                &self.limits_reached,
            )),
            ..Shared::clone(&self.shared)
        };
        Self { service: self.service.clone(), shared: Arc::new(shared) }
    }

    /// Logs a request that no handler sees.
    pub(super) fn log_refused(&self, refusal: Refusal, peer: &Peer) {
        if self.access_log {
            access_log::refused(peer.address(), refusal);
        }
    }

    /// Has the service answer one request.
    pub(crate) fn answer<B>(
        &self,
        mut request: Request<RequestBody>,
        peer: &Peer,
    ) -> impl Future<Output = Response<B>> + use<S, B>
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone,
    {
        self.metrics.requests.fetch_add(1, Relaxed);
        name_host_once(&mut request);
        let client = peer.client(request.headers());
        let extensions = request.extensions_mut();
        match client {
            Ok(client) => extensions.insert(client),
            Err(malformed) => {
                extensions.insert(malformed);
                extensions.insert(peer.unknown_client())
            }
        };
        if self.access_log && peer.is_trusted_proxy() {
            request.extensions_mut().insert(FromTrustedProxy);
        }
        if !self.has_capacity {
            request.extensions_mut().insert(NoCapacity);
        }
        self.service.clone().oneshot(request).map(|Ok(response)| response)
    }
}

/// RFC 9112, 3.2.2: the host of an absolute-form target replaces the Host header. Handlers then
/// need to look at one place, and see the same target for the same resource.
fn name_host_once<B>(request: &mut Request<B>) {
    let Some(authority) = request.uri().authority() else { return };
    let Ok(host) = HeaderValue::from_str(authority.as_str()) else { return };
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let Ok(uri) = Uri::try_from(format!("{}{query}", request.uri().path())) else { return };
    request.headers_mut().insert(header::HOST, host);
    *request.uri_mut() = uri;
}

/// Whether a response with these headers lasts as long as its client receives it, unless it has a
/// length.
pub(crate) fn is_stream(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}
