//! Forwards requests to an application, over connections that are kept for the next one.

#[cfg(unix)]
use std::path::Path;
use std::{
    error::Error as _,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::Body;
use hyper::{body::Incoming, ext::on_informational};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio::sync::Notify;
use tower::Service;

use super::turns::Turns;

/// Most bytes of the headers of a response. More are answered with 502.
const HEADERS_BYTES_MAX: usize = 32 * 1024;
/// Most header fields of a response. More are answered with 502.
const HEADERS_MAX: usize = 100;
/// Most interim responses (1xx) before a response. More are answered with 502: the HTTP library
/// skips them for as long as they come.
const INTERIM_MAX: usize = 100;
/// Idle connections to one application.
const IDLE_MAX: usize = 32;
/// How long an idle connection is kept: less than servers keep theirs (gunicorn 2 s, Node 5 s), so
/// that a request seldom meets a connection that is being closed.
const IDLE_TIME_MAX: Duration = Duration::from_secs(1);
/// After this time without a byte, the system asks whether the application is still there.
const KEEP_ALIVE_TIME: Duration = Duration::from_secs(60);

/// Why there is no response. [`Display`](std::fmt::Display) is for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// There is no connection to the application.
    #[error("it cannot be reached: {cause}")]
    Unreachable {
        cause: String,
        /// Nothing listens at its address, as while it restarts.
        is_down: bool,
    },
    /// Its response ends early, or is not one of HTTP.
    #[error("its response is broken: {cause}")]
    Broken {
        cause: String,
        /// The connection ended before any of the response had come: the application may have
        /// closed an idle connection just then, and a request may be repeated that can be.
        ended_early: bool,
    },
}

/// Cloning is cheap; all clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Client<B>(legacy::Client<Connector, B>);

/// How an application is connected to.
#[derive(Clone, Debug)]
pub(crate) enum Connector {
    /// At the host of each request's URL.
    Web(HttpsConnector<HttpConnector>),
    /// At a Unix socket, whatever the URL says.
    #[cfg(unix)]
    Unix(Arc<Path>),
}

impl Connector {
    /// `needs_tls`: there are applications whose URL is one of `https`. They are verified against
    /// the certificates of the system.
    pub(crate) fn web(needs_tls: bool) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEP_ALIVE_TIME));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls(needs_tls)).https_or_http().enable_http1();
        Self::Web(connector.wrap_connector(tcp))
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// From the traits of the HTTP library to those of the runtime, and back.
type Connection = TokioIo<Turns>;
type Connecting = Pin<Box<dyn Future<Output = Result<Connection, BoxError>> + Send>>;

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = BoxError;
    type Future = Connecting;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Web(connector) => connector.poll_ready(cx),
            #[cfg(unix)]
            Self::Unix(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, url: Uri) -> Connecting {
        match self {
            Self::Web(connector) => {
                let connecting = connector.call(url);
                Box::pin(async move { Ok(TokioIo::new(Turns::new(TokioIo::new(connecting.await?)))) })
            }
            #[cfg(unix)]
            Self::Unix(path) => {
                let path = Arc::clone(path);
                Box::pin(async move {
                    let connected = tokio::net::UnixStream::connect(&path).await?;
                    Ok(TokioIo::new(Turns::new(connected)))
                })
            }
        }
    }
}

impl<B> Client<B>
where
    B: Body<Data = Bytes> + Clone + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(connector: Connector) -> Self {
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME_MAX)
            .pool_max_idle_per_host(IDLE_MAX)
            .http1_max_buf_size(HEADERS_BYTES_MAX)
            .http1_max_headers(HEADERS_MAX)
            .build(connector);
        Self(client)
    }

    /// Forwards a request, and follows no redirect.
    pub(crate) async fn forward(&self, mut request: Request<B>) -> Result<Response<Incoming>, ClientError> {
        let (interim, too_many) = (AtomicUsize::new(0), Arc::new(Notify::new()));
        let notify = Arc::clone(&too_many);
        on_informational(&mut request, move |_| {
            if interim.fetch_add(1, Relaxed) == INTERIM_MAX {
                notify.notify_one();
            }
        });
        let answered = tokio::select! {
            answered = self.0.request(request) => answered,
            () = too_many.notified() => {
                let cause = format!("it begins with more than {INTERIM_MAX} interim responses");
                return Err(ClientError::Broken { cause, ended_early: false });
            }
        };
        answered.map_err(|error| ClientError::of(&error))
    }

    /// The same for a request that may be repeated (RFC 9110, section 9.2.2): once, where the
    /// connection ended early.
    pub(crate) async fn forward_repeatable(
        &self,
        request: Request<B>,
    ) -> Result<Response<Incoming>, ClientError> {
        match self.forward(request.clone()).await {
            Err(ClientError::Broken { ended_early: true, .. }) => self.forward(request).await,
            answered => answered,
        }
    }
}

impl ClientError {
    fn of(error: &legacy::Error) -> Self {
        let (mut causes, mut kind) = (Vec::new(), None);
        let mut next = error.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            kind = kind.or(cause.downcast_ref::<io::Error>().map(io::Error::kind));
            next = cause.source();
        }
        let cause = causes.join(": ");
        if error.is_connect() {
            let is_down = matches!(kind, Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound));
            return Self::Unreachable { cause, is_down };
        }
        let of_library = error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>());
        let ended_early = of_library
            .is_some_and(|error| error.is_incomplete_message() || error.is_canceled())
            || matches!(kind, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe));
        Self::Broken { cause, ended_early }
    }
}

fn tls(needs_roots: bool) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    if needs_roots {
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::error!(
                errors = ?found.errors,
                "the system has no certificates to verify applications with (SSL_CERT_FILE): requests to them are refused"
            );
        }
    }
    ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
