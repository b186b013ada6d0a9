//! The route of a request: the template of its path, which is safe to log and to count by. What a
//! client writes into a path or a query is no part of it: topics, tickets and tokens are private,
//! and of unlimited number.

use http::request::Parts;

use crate::{
    app::App,
    metadata_path::is_metadata_path,
    pages::{SCRIPT_PATH, STYLESHEET_PATH, client},
    subscription_paths::is_hub_or_subscriptions,
    upstream,
};

/// See the module's documentation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Route {
    /// A path of the hub without parameters.
    Path(&'static str),
    /// `/topics/{topic}`.
    Topic,
    /// `/connections/{id}`.
    Connection,
    /// The path of the hub's URL, that of its metadata, and its subscriptions below it.
    Mercure,
    /// A path that an application decides about.
    Authorize,
    /// A request that is forwarded to the application behind the hub.
    Upstream,
    /// There is nothing.
    Other,
}

/// The paths of the hub that have no parameters.
const PATHS: [&str; 11] = [
    "/", "/stream", "/topics", "/topics/", "/tickets", "/revoke", "/reload", "/healthz", "/readyz",
    "/metrics", "*",
];

impl Route {
    /// Compares paths as the router does: as they were sent.
    pub(crate) fn of(app: &App, parts: &Parts) -> Self {
        let path = parts.uri.path();
        if upstream::application_of(app, parts).is_some() {
            return Self::Upstream;
        }
        if app.settings.authorize.deciding_about(path).is_some() {
            return Self::Authorize;
        }
        let hub_path = app.hub.validator().hub_url().path();
        if is_hub_or_subscriptions(hub_path, path) || is_metadata_path(hub_path, path) {
            return Self::Mercure;
        }
        let fixed = PATHS.iter().chain(&[STYLESHEET_PATH, SCRIPT_PATH]).find(|fixed| **fixed == path);
        match fixed {
            Some(fixed) => Self::Path(fixed),
            None if client::is_path(path) => Self::Path(client::PATH),
            None if path.starts_with("/topics/") => Self::Topic,
            None if path.starts_with("/connections/") => Self::Connection,
            None => Self::Other,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Path(path) => path,
            Self::Topic => "/topics/{topic}",
            Self::Connection => "/connections/{id}",
            Self::Mercure => "mercure",
            Self::Authorize => "authorize",
            Self::Upstream => "upstream",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tidings::Hub;

    use super::*;
    use crate::{Applications, AuthorizedPath, Settings, Upstream, UpstreamSettings};

    #[tokio::test]
    async fn a_route_is_a_template_and_contains_nothing_of_the_request() {
        let events = AuthorizedPath::new("/events", "http://127.0.0.1:2/").expect("a path");
        let alone = Settings { authorize: Applications::new(&[events], 1), ..Settings::default() };
        let upstream = Upstream::new("http://127.0.0.1:1", UpstreamSettings::default()).expect("an address");
        let behind = Settings { upstream: Some(upstream), ..alone.clone() };
        let hub = Hub::in_memory().await;
        let [alone, behind] = [alone, behind].map(|settings| App::new(hub.clone(), None, settings));
        for (target, route, with_application) in [
            ("/", "/", "upstream"),
            ("/stream?topic=secret", "/stream", "/stream"),
            ("/topics", "/topics", "/topics"),
            ("/topics/secret", "/topics/{topic}", "/topics/{topic}"),
            ("/connections/secret", "/connections/{id}", "/connections/{id}"),
            ("/topics/a/secret", "/topics/{topic}", "/topics/{topic}"),
            ("/.well-known/mercure?topic=secret", "mercure", "mercure"),
            ("/.well-known/oauth-protected-resource/.well-known/mercure", "mercure", "mercure"),
            ("/.well-known/mercure/subscriptions/exact/secret", "mercure", "mercure"),
            ("/events?secret", "authorize", "authorize"),
            ("/assets/tidings.css", "/assets/tidings.css", "/assets/tidings.css"),
            ("/reset/secret", "other", "upstream"),
            ("*", "*", "*"),
        ] {
            let parts = Request::builder().uri(target).body(()).expect("a request").into_parts().0;
            assert_eq!(Route::of(&alone, &parts).name(), route, "{target}");
            assert_eq!(Route::of(&behind, &parts).name(), with_application, "{target}");
        }
    }
}
