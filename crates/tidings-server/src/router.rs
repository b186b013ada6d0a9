//! The routes, and the checks that every request passes.
//!
//! Topics are matched on the path as it was sent: nothing resolves `..`, merges slashes or decodes
//! twice before a handler sees it.

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{any, get, patch, post},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, request::Parts};
use tidings::Hub;
use tidings_auth::Authenticator;

use crate::{
    Client, ClientAddress, ListenerRole, Settings,
    accept::wants_page,
    app::App,
    authorize,
    forwarded::MalformedAddresses,
    mercure::{
        self,
        metadata::{metadata, with_metadata},
        subscriptions,
    },
    metadata_path::{METADATA_PREFIX, metadata_path},
    methods,
    metrics::requests::Route,
    native, operations,
    origin::{Standing, check_host, check_no_proxy, mark},
    pages,
    problem::{Problem, excerpt},
    relayed::Relayed,
    revocation::revoke,
    shedding::check_capacity,
    subscription_paths::subscriptions_path,
    upstream::{self, Upstream},
};

/// The paths that the server itself uses.
const OWN_PATHS: [&str; 10] = [
    "/", "/stream", "/topics", "/topics/", "/tickets", "/revoke", "/reload", "/healthz", "/readyz",
    "/metrics",
];

/// Answered by every listener, whatever the request says.
const HEALTH_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// The routes of operators. Where there is a listener for operators, only that one answers them, and
/// nothing else but health checks.
const ADMIN_PATHS: [&str; 3] = ["/metrics", "/revoke", "/reload"];

/// Whether the path of a hub's public URL is free for the Mercure API.
pub fn hub_path_is_free(path: &str) -> bool {
    !OWN_PATHS.contains(&path)
        && !pages::client::is_path(path)
        && ["/topics/", "/connections/", "/assets/", METADATA_PREFIX]
            .iter()
            .all(|prefix| !path.starts_with(prefix))
}

/// Whether an application may decide about the streams of this path: the hub itself has no other use
/// for it. It must also differ from the path of the hub's public URL.
pub fn stream_path_is_free(path: &str) -> bool {
    path == "/stream" || hub_path_is_free(path)
}

/// The HTTP APIs of a hub: the native API, the Mercure API, the endpoints for operators, and pages
/// for people.
///
/// Without an [`Authenticator`] the hub has no keys: see [`Keyless`](crate::Keyless) for the
/// clients that it serves then. The limits per address need the [`Client`] that
/// [`serve`](crate::serve) adds to each request; requests without one share one unknown address.
///
/// # Panics
///
/// If the path of the hub's public URL is reserved by the server, see [`hub_path_is_free`], or a path
/// that an application decides about is not free, see [`stream_path_is_free`]. If there is an
/// application behind the hub ([`Settings::upstream`]): [`apis`](crate::apis) has one, a router would
/// change its responses.
pub fn router(hub: Hub, authenticator: Option<Authenticator>, settings: Settings) -> Router {
    assert!(settings.upstream.is_none(), "a router has no application behind the hub: use `apis`");
    routes(App::new(hub, authenticator, settings))
}

pub(crate) fn routes(app: App) -> Router {
    let hub_url = app.hub.validator().hub_url().clone();
    assert!(
        hub_path_is_free(hub_url.path()),
        "the path {} of the hub's URL is reserved by the server",
        hub_url.path()
    );
    for path in app.settings.authorize.paths() {
        assert!(
            stream_path_is_free(&path) && path != hub_url.path(),
            "the path {path} is reserved by the server"
        );
    }
    Router::new()
        .without_v07_checks()
        .route("/", get(pages::index))
        .route("/stream", any(native::stream))
        .route(pages::STYLESHEET_PATH, get(pages::stylesheet))
        .route(pages::SCRIPT_PATH, get(pages::script))
        .route(pages::client::PATH, get(pages::client::script))
        .route(&pages::client::HASHED_PATH, get(pages::client::script))
        .route("/topics", post(native::publish_batch))
        .route("/tickets", post(native::make_ticket))
        .route("/connections/{id}", patch(native::edit))
        .route(
            "/topics/",
            get(native::topic_missing).post(native::topic_missing).delete(native::topic_missing),
        )
        .route("/topics/{*topic}", get(native::topic).post(native::publish).delete(native::delete))
        .route(hub_url.path(), any(mercure::hub))
        .route(&metadata_path(hub_url.path()), get(metadata))
        .route(&subscriptions_path(hub_url.path()), get(subscriptions::answer))
        .route(&format!("{}/{{*which}}", subscriptions_path(hub_url.path())), get(subscriptions::answer))
        .route("/revoke", post(revoke))
        .route("/healthz", get(operations::healthz))
        .route("/readyz", get(operations::readyz))
        .route("/metrics", get(operations::metrics))
        .route("/reload", post(operations::reload))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(app.clone(), pass))
        .with_state(app)
}

async fn pass(State(app): State<App>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    passed(&app, parts, body, |parts, body| decided(&app, Request::from_parts(parts, body), next)).await
}

/// The router knows no paths that applications decide about, since these can change.
async fn decided(app: &App, request: Request, next: Next) -> Response {
    match app.settings.authorize.deciding_about(request.uri().path()) {
        Some(application) => authorize::answer(app, application, request).await,
        None => next.run(request).await,
    }
}

/// The checks that every request passes, with or without the router: host and proxy, CORS,
/// capacity, and the report of a refusal.
pub(crate) async fn passed<B, F>(
    app: &App,
    mut parts: Parts,
    body: B,
    answer: impl FnOnce(Parts, B) -> F,
) -> Response
where
    F: Future<Output = Response>,
{
    find_host_in_one_place(&mut parts);
    let asker = Asker::of(app, route(app, parts.uri.path()), &parts);
    let prepared = match admit(app, &parts) {
        Err(problem) => Some(problem.into_response()),
        Ok(()) => {
            app.origins.preflight(&parts).or_else(|| Some(check_capacity(app, &parts).err()?.into_response()))
        }
    };
    let response = if let Some(response) = prepared {
        response
    } else {
        if let Some(keys) = app.authorizer.keys_to_wait_for(&parts) {
            keys.await;
        }
        answer(parts, body).await
    };
    asker.finish(app, response)
}

/// A request for the application behind the hub. Its hosts, its pages and its caching are its own,
/// and so is everything else of its response; only what the hub answers itself is marked as such.
pub(crate) async fn forwarded(app: &App, upstream: &Upstream, mut parts: Parts, body: Body) -> Response {
    find_host_in_one_place(&mut parts);
    let checked = check_addresses(&parts).and_then(|()| check_capacity(app, &parts));
    let response = match checked {
        Ok(()) => upstream::answer(app, upstream, &parts, body).await,
        Err(problem) => problem.into_response(),
    };
    if response.extensions().get::<Relayed>().is_some() {
        count(app, Route::Upstream, &parts.method, response.status());
        return response;
    }
    Asker::of(app, Route::Upstream, &parts).finish(app, response)
}

/// RFC 9112, 3.2.2 and RFC 9113, 8.3.1: the host in the target wins. Handlers then find it in one
/// place. [`serve`](crate::serve) does so for every service that it drives; other servers, which may
/// drive this router, do not.
fn find_host_in_one_place(parts: &mut Parts) {
    if let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.insert(header::HOST, host);
    }
}

/// The route of a path, for metrics.
fn route(app: &App, path: &str) -> Route {
    match Route::of(path, app.hub.validator().hub_url().path()) {
        Route::Other if app.settings.authorize.deciding_about(path).is_some() => Route::Authorize,
        route => route,
    }
}

fn count(app: &App, route: Route, method: &Method, status: StatusCode) {
    app.counts.requests.count((route, method.into(), status.into()));
}

/// What a response of the hub depends on, besides what it answers.
struct Asker {
    route: Route,
    method: Method,
    uri: Uri,
    client: Option<ClientAddress>,
    standing: Standing,
    wants_page: bool,
    /// The host of a request of the Mercure API.
    host: Option<HeaderValue>,
}

impl Asker {
    fn of(app: &App, route: Route, parts: &Parts) -> Self {
        let client = parts.extensions.get::<Client>();
        Self {
            route,
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            client: client.map(|client| client.address),
            // What a listener for operators answers is for no page: it asks for no credential.
            standing: match client.map(|client| client.listener) {
                Some(ListenerRole::Admin) => Standing::Absent,
                _ => app.origins.standing(&parts.headers),
            },
            wants_page: wants_page(&parts.headers),
            host: (route == Route::Mercure).then(|| parts.headers.get(header::HOST).cloned()).flatten(),
        }
    }

    /// Adds what every response of the hub has, and reports a refusal.
    fn finish(self, app: &App, mut response: Response) -> Response {
        let headers = response.headers_mut();
        mark(&self.standing, headers);
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if self.route == Route::Mercure
            && let Some(challenge) = headers.get(header::WWW_AUTHENTICATE)
            && let Some(challenge) = with_metadata(app, challenge, self.host.as_ref())
        {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        count(app, self.route, &self.method, response.status());
        app.refusals.report(&app.counts, &self.method, self.uri.path(), self.client, &response);
        if self.wants_page { pages::of_problem(response) } else { response }
    }
}

/// Whether a request is addressed to this hub and takes an allowed path to it. Health checks are
/// always admitted.
fn admit(app: &App, parts: &Parts) -> Result<(), Problem> {
    let path = parts.uri.path();
    if HEALTH_PATHS.contains(&path) {
        return Ok(());
    }
    match parts.extensions.get::<Client>().map(|client| client.listener) {
        Some(ListenerRole::Admin) if !ADMIN_PATHS.contains(&path) => return Err(not_for_operators(path)),
        Some(ListenerRole::Clients) if ADMIN_PATHS.contains(&path) => return Err(nothing_at(path)),
        _ => {}
    }
    check_addresses(parts)?;
    if app.authorizer.is_keyless_loopback() {
        check_no_proxy(&parts.headers)?;
    }
    let Some(names) = &app.hosts else { return Ok(()) };
    // Most requests name the host as the hub's URL does; these need no parsing.
    let own = app.hub.validator().hub_url().authority().as_bytes();
    if parts.headers.get(header::HOST).is_some_and(|host| host.as_bytes() == own) {
        return Ok(());
    }
    check_host(names, parts)
}

/// Refuses a request of a proxy whose word about the client's address cannot be read.
fn check_addresses(parts: &Parts) -> Result<(), Problem> {
    parts
        .extensions
        .get::<MalformedAddresses>()
        .map_or(Ok(()), |malformed| Err(malformed_addresses(malformed, &parts.headers)))
}

fn malformed_addresses(malformed: &MalformedAddresses, headers: &HeaderMap) -> Problem {
    let name = malformed.header;
    let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let values = values.collect::<Vec<_>>().join(", ");
    let detail = format!(
        "The header `{name}` of this request, which a proxy of this hub sent, is not a list of addresses that can be read."
    );
    Problem::bad_request(MalformedAddresses::REASON, detail)
        .caused_by(format_args!("the header {name} is {}", excerpt(&values)))
}

async fn not_found(request: Request) -> Response {
    let path = request.uri().path();
    // RFC 9110, section 9.3.7: `OPTIONS *` asks about the server as a whole, and serves as a ping.
    if request.method() == Method::OPTIONS && path == "*" {
        return StatusCode::NO_CONTENT.into_response();
    }
    nothing_at(path).into_response()
}

fn nothing_at(path: &str) -> Problem {
    let path = excerpt(path);
    let detail = format!(
        "There is nothing at {path}. Subscribe with GET `/stream?topic=NAME`, publish with POST `/topics/NAME`; see `/` for more."
    );
    Problem::new(StatusCode::NOT_FOUND, "path", detail)
}

/// The answer of a listener for operators.
fn not_for_operators(path: &str) -> Problem {
    let (path, paths) = (excerpt(path), [HEALTH_PATHS.as_slice(), &ADMIN_PATHS].concat().join("`, `"));
    let detail = format!(
        "There is nothing at {path}: this address is for operators, with `{paths}`. Use an address of `--listen` for everything else."
    );
    Problem::new(StatusCode::NOT_FOUND, "path", detail)
}

async fn method_not_allowed(method: Method) -> Response {
    methods::not_allowed(&method)
}
