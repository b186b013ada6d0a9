//! Which request goes where, and what every request passes on its way.
//!
//! Topics are matched on the path as it was sent: nothing resolves `..`, joins slashes or decodes twice before a handler has seen it.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, Method, StatusCode, header};
use tidings::Hub;
use tidings_auth::Authenticator;

use crate::{
    PeerAddress, Settings,
    access::Door,
    complaints::Complaints,
    friendly, mercure,
    metrics::Metrics,
    operations,
    origin::{Origins, check_host, mark},
    pages,
    problem::{Problem, Refused, excerpt},
    shedding::shed_for_want_of_room,
    slots::Slots,
};

/// What every handler works with.
#[derive(Clone, Debug)]
pub(crate) struct App(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) hub: Hub,
    pub(crate) door: Door,
    pub(crate) origins: Origins,
    pub(crate) slots: Slots,
    pub(crate) metrics: Arc<Metrics>,
    complaints: Complaints,
    pub(crate) settings: Settings,
}

impl App {
    pub(crate) fn new(hub: Hub, authenticator: Option<Authenticator>, settings: Settings) -> Self {
        let is_keyless = authenticator.is_none();
        Self(Arc::new(Shared {
            door: Door::new(authenticator, settings.keyless, settings.anonymous_subscribers),
            origins: Origins::new(hub.validator().hub_url(), settings.allow_origins.clone(), is_keyless),
            slots: Slots::new(settings.streams_max, settings.streams_per_address_max),
            metrics: Arc::new(Metrics::new(
                hub.clone(),
                settings.connection_metrics.clone(),
                settings.companions.clone(),
            )),
            complaints: Complaints::default(),
            settings,
            hub,
        }))
    }
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The paths that the server itself uses.
const OWN_PATHS: [&str; 7] = ["/", "/stream", "/topics", "/topics/", "/healthz", "/readyz", "/metrics"];

/// Whether the path of a hub's public URL is free for the Mercure face.
pub fn hub_path_is_free(path: &str) -> bool {
    !OWN_PATHS.contains(&path) && !path.starts_with("/topics/") && !path.starts_with("/assets/")
}

/// The HTTP faces of a hub: the friendly one, that of the Mercure protocol, the operator's, and a page for people.
///
/// Without an [`Authenticator`] the hub has no keys: see [`Keyless`](crate::Keyless) for whom it serves then. The limits per address need
/// the [`PeerAddress`] that [`serve`](crate::serve) puts into each request; requests without one count as from one unknown address.
///
/// # Panics
///
/// If the path of the hub's public URL is one of the server's own, see [`hub_path_is_free`].
pub fn router(hub: Hub, authenticator: Option<Authenticator>, settings: Settings) -> Router {
    routes(App::new(hub, authenticator, settings))
}

pub(crate) fn routes(app: App) -> Router {
    let hub_url = app.hub.validator().hub_url().clone();
    assert!(
        hub_path_is_free(hub_url.path()),
        "the path {} of the hub's URL is the server's own",
        hub_url.path()
    );
    Router::new()
        .without_v07_checks()
        .route("/", get(pages::index))
        .route("/assets/tidings.css", get(pages::stylesheet))
        .route("/assets/viewer.js", get(pages::script))
        .route("/stream", get(friendly::stream))
        .route("/topics", post(friendly::publish_batch))
        .route(
            "/topics/",
            get(friendly::topic_missing).post(friendly::topic_missing).delete(friendly::topic_missing),
        )
        .route("/topics/{*topic}", get(friendly::topic).post(friendly::publish).delete(friendly::delete))
        .route(hub_url.path(), get(mercure::subscribe).post(mercure::publish))
        .route("/healthz", get(operations::healthz))
        .route("/readyz", get(operations::readyz))
        .route("/metrics", get(operations::metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(app.clone(), pass))
        .with_state(app)
}

async fn pass(State(app): State<App>, request: Request, next: Next) -> Response {
    passed(&app, request, |request| next.run(request)).await
}

/// What every request passes, whichever way it goes: is it meant for us, may its reader read, is there room, what became of it.
pub(crate) async fn passed<B, F>(
    app: &App,
    request: http::Request<B>,
    answer: impl FnOnce(http::Request<B>) -> F,
) -> Response
where
    F: Future<Output = Response>,
{
    let (parts, body) = request.into_parts();
    let method = parts.method.clone();
    let uri = parts.uri.clone();
    let peer = parts.extensions.get::<PeerAddress>().copied();
    let standing = app.origins.standing(&parts.headers);
    let host = if app.door.is_keyless_loopback() {
        check_host(&parts.headers, app.hub.validator().hub_url())
    } else {
        Ok(())
    };
    let prepared = match host {
        Err(problem) => Some(problem.into_response()),
        Ok(()) => app.origins.preflight(&parts).or_else(|| shed_for_want_of_room(app, &parts)),
    };
    let mut response = match prepared {
        Some(response) => response,
        None => answer(http::Request::from_parts(parts, body)).await,
    };
    let headers = response.headers_mut();
    mark(&standing, headers);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    report(app, &method, uri.path(), peer, &response);
    response
}

/// Longest part of a path that is logged, in characters.
const LOGGED_PATH_CHARS_MAX: usize = 256;

/// Counts and logs a refusal. The query may hold data and, from clients that know no better, tokens: it is never logged.
fn report(app: &App, method: &Method, path: &str, peer: Option<PeerAddress>, response: &Response) {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return;
    }
    let refused = response.extensions().get::<Refused>();
    let reason = refused.map_or("", |refused| refused.reason);
    let cause = refused.and_then(|refused| refused.cause.as_deref());
    let peer = peer.map(|peer| tracing::field::display(peer.0));
    let path: String = path.chars().take(LOGGED_PATH_CHARS_MAX).collect();
    let path = path.escape_debug();
    let status_code = status.as_u16();
    if status.is_server_error() {
        app.metrics.count_refused("5xx");
        let Some(left_out) = app.complaints.next(Instant::now()) else { return };
        let left_out = (left_out > 0).then_some(left_out);
        tracing::warn!(%method, %path, status = status_code, reason, cause, peer, left_out, "a request could not be served");
    } else {
        app.metrics.count_refused("4xx");
        tracing::debug!(%method, %path, status = status_code, reason, cause, peer, "a request was refused");
    }
}

async fn not_found(request: Request) -> Problem {
    let path = excerpt(request.uri().path());
    Problem::new(
        StatusCode::NOT_FOUND,
        "path",
        format!(
            "There is nothing at {path}. Subscribe with GET `/stream?topic=NAME`, publish with POST `/topics/NAME`; `/` tells more."
        ),
    )
}

/// The header `Allow` is added by the router, which knows what there is.
async fn method_not_allowed(method: Method) -> Response {
    // RFC 9110, section 9.3.7: the answer to OPTIONS is that header.
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let shown = excerpt(method.as_str());
    let detail = format!("The method {shown} does nothing here; the header `Allow` names those that do.");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", detail).into_response()
}
