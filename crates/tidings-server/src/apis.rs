//! The APIs of a hub as one service, which [`serve`](crate::serve) drives.
//!
//! Nearly every request of a busy hub publishes one event, and routing would cost as much as
//! publishing. So these requests bypass the router: their checks ([`passed`]) and their handlers
//! (`publish_one`) are the functions that the router calls too; this module only decides which
//! requests they are.
//!
//! Requests for the application behind the hub bypass it, too: it would add headers to their
//! responses.

use std::convert::Infallible;

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{Method, Request, Response, request::Parts};
use tidings::Hub;
use tidings_auth::Authenticator;
use tower::{Service, ServiceExt, service_fn};

use crate::{
    Settings,
    access_log::Requested,
    app::App,
    mercure,
    metrics::counts::PublishApi,
    native,
    router::{forwarded, passed, routes},
    upstream,
};

/// The APIs of a hub: [`router`](crate::router()), with a fast path for requests that publish one
/// event.
///
/// # Panics
///
/// If the path of the hub's public URL is reserved by the server, see
/// [`hub_path_is_free`](crate::hub_path_is_free).
pub fn apis<B>(
    hub: Hub,
    authenticator: Option<Authenticator>,
    settings: Settings,
) -> impl Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let app = App::new(hub, authenticator, settings);
    let router = routes(app.clone());
    service_fn(move |request: Request<B>| {
        let (app, router) = (app.clone(), router.clone());
        async move {
            if !app.settings.access_log {
                return Ok(answer(&app, router, request).await);
            }
            let (requested, request) = Requested::of(&app, request);
            // Boxed, so that it costs nothing where there is no log.
            let response = Box::pin(answer(&app, router, request)).await;
            Ok(requested.follow(response))
        }
    })
}

async fn answer<B>(app: &App, router: Router, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let publication = publication(app, &request);
    let (parts, body) = request.into_parts();
    match publication {
        Some(PublishApi::Native) => {
            passed(app, parts, body, |parts, body| native::publish_one(app, parts, body)).await
        }
        Some(PublishApi::Mercure) => {
            passed(app, parts, body, |parts, body| mercure::publish_one(app, parts, body)).await
        }
        // Boxed, since what answers a publication is moved as a whole, and should be small.
        None => Box::pin(answer_routed(app, router, parts, Body::new(body))).await,
    }
}

/// Answers a request that publishes nothing, or more than one event.
async fn answer_routed(app: &App, router: Router, parts: Parts, body: Body) -> Response<Body> {
    if let Some(response) = app.settings.http_challenges.response_to(&parts) {
        return response;
    }
    if let Some(upstream) = upstream::application_of(app, &parts) {
        return forwarded(app, upstream, parts, body).await;
    }
    let Ok(response) = router.oneshot(Request::from_parts(parts, body)).await;
    response
}

/// The API through which a request publishes one event. Paths are compared as the router does: as
/// they were sent.
fn publication<B>(app: &App, request: &Request<B>) -> Option<PublishApi> {
    if request.method() != Method::POST {
        return None;
    }
    let path = request.uri().path();
    if path.strip_prefix("/topics/").is_some_and(|topic| !topic.is_empty()) {
        return Some(PublishApi::Native);
    }
    (path == app.hub.validator().hub_url().path()).then_some(PublishApi::Mercure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_publications_of_one_event_bypass_the_router() {
        let app = App::new(Hub::in_memory().await, None, Settings::default());
        for (method, target, expected) in [
            ("POST", "/topics/chat", Some(PublishApi::Native)),
            ("POST", "/topics/a/b?id=1", Some(PublishApi::Native)),
            ("POST", "/topics//", Some(PublishApi::Native)),
            ("POST", "/.well-known/mercure?x", Some(PublishApi::Mercure)),
            ("POST", "/topics", None),
            ("POST", "/topics/", None),
            ("POST", "/topics?/topics/a", None),
            ("POST", "/Topics/a", None),
            ("POST", "//topics/a", None),
            ("POST", "/.well-known/mercure/", None),
            ("post", "/topics/chat", None),
            ("GET", "/topics/chat", None),
            ("HEAD", "/topics/chat", None),
            ("OPTIONS", "/topics/chat", None),
            ("GET", "/.well-known/mercure", None),
        ] {
            let request = Request::builder().method(method).uri(target).body(()).expect("a request");
            assert_eq!(publication(&app, &request), expected, "{method} {target}");
        }
    }
}
