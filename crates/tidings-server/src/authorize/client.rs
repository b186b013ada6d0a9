//! Asks an application, over connections that are kept for the next question.

use std::{
    error::Error as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::{body::Incoming, ext::on_informational};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio::{net::TcpStream, sync::Notify};
use tower::{ServiceExt, util::MapResponse};

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
/// that a question seldom meets a connection that is being closed.
const IDLE_TIME_MAX: Duration = Duration::from_secs(1);

/// Why an application has not decided. [`Display`](std::fmt::Display) is for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// As many requests as may wait for it do.
    #[error("as many requests wait for it as may (authorize_requests_max)")]
    Busy,
    /// This address has its share of them.
    #[error("one client address has its share of the requests that may wait for it (authorize_requests_max)")]
    BusyForAddress,
    /// It has not answered in time.
    #[error("it has not answered in time")]
    TimedOut,
    /// There is no connection to it.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// Its response ends early, or is not one of HTTP.
    #[error("its response is broken: {0}")]
    Broken(String),
    /// There is no memory for its response now.
    #[error("there is no memory for its response (responses_bytes_max)")]
    NoMemory,
    /// It has answered something that has no meaning.
    #[error("{0}")]
    Malformed(String),
}

impl Failure {
    /// One word for the log.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::BusyForAddress => "busy_for_address",
            Self::TimedOut => "timed_out",
            Self::Unreachable(_) => "unreachable",
            Self::Broken(_) => "broken",
            Self::NoMemory => "no_memory",
            Self::Malformed(_) => "malformed",
        }
    }
}

/// Cloning is cheap; all clones share their connections.
#[derive(Clone, Debug)]
pub(super) struct Client(legacy::Client<Connector, Empty<Bytes>>);

type Connector = MapResponse<HttpsConnector<HttpConnector>, fn(Connected) -> Connection>;
type Connected = MaybeHttpsStream<TokioIo<TcpStream>>;
/// From the traits of the HTTP library to those of the runtime, and back.
type Connection = TokioIo<Turns<TokioIo<Connected>>>;

fn in_turns(connected: Connected) -> Connection {
    TokioIo::new(Turns::new(TokioIo::new(connected)))
}

impl Client {
    /// `needs_tls`: there are applications whose URL is one of `https`. They are verified against
    /// the certificates of the system.
    pub(super) fn new(needs_tls: bool) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls(needs_tls)).https_or_http().enable_http1();
        let in_turns: fn(Connected) -> Connection = in_turns;
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME_MAX)
            .pool_max_idle_per_host(IDLE_MAX)
            .http1_max_buf_size(HEADERS_BYTES_MAX)
            .http1_max_headers(HEADERS_MAX)
            .build(connector.wrap_connector(tcp).map_response(in_turns));
        Self(client)
    }

    /// Asks, and follows no redirect. A question whose connection was closed before any of the
    /// response had come is asked once more: the application may have closed an idle connection
    /// just then, and a GET may be repeated (RFC 9110, section 9.2.2).
    pub(super) async fn ask(
        &self,
        mut request: Request<Empty<Bytes>>,
    ) -> Result<Response<Incoming>, Failure> {
        let (interim, too_many) = (AtomicUsize::new(0), Arc::new(Notify::new()));
        let notify = Arc::clone(&too_many);
        on_informational(&mut request, move |_| {
            if interim.fetch_add(1, Relaxed) == INTERIM_MAX {
                notify.notify_one();
            }
        });
        let asked = async {
            match self.0.request(request.clone()).await {
                Err(error) if is_closed_early(&error) => self.0.request(request).await,
                answered => answered,
            }
        };
        let answered = tokio::select! {
            answered = asked => answered,
            () = too_many.notified() => {
                return Err(Failure::Broken(format!("it begins with more than {INTERIM_MAX} interim responses")));
            }
        };
        answered.map_err(|error| {
            let cause = causes(&error);
            if error.is_connect() { Failure::Unreachable(cause) } else { Failure::Broken(cause) }
        })
    }
}

fn is_closed_early(error: &legacy::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>());
    cause.is_some_and(hyper::Error::is_incomplete_message)
}

/// The error with its causes, for the log.
fn causes(error: &legacy::Error) -> String {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes.join(": ")
}

fn tls(needs_roots: bool) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    if needs_roots {
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::error!(
                errors = ?found.errors,
                "the system has no certificates to verify applications with (SSL_CERT_FILE): streams that they decide about are refused"
            );
        }
    }
    ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
