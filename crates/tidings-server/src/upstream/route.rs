//! Which requests are the hub's. All others are the application's.
//!
//! | request | whose |
//! |---|---|
//! | `/topics`, `/topics/…`, the path of the hub's URL and everything below it | the hub's |
//! | the metadata of the hub, `/.well-known/oauth-protected-resource` with that path | the hub's |
//! | `/connections/…` | the hub's |
//! | what the pages of the hub load, `/assets/tidings.css` and `/assets/tidings.js` | the hub's |
//! | the client for browsers, `/tidings.js`, and the path with its hash | the hub's |
//! | a path of `[[authorize]]` | the hub's, which asks its application |
//! | `/stream` with `topic`, `channel`, `pattern` or `ticket` in its query, or with a ticket | the hub's |
//! | `/stream` with parameters in a body: POST, QUERY | the hub's |
//! | `/stream` of a hub with topics for a request that names none | the hub's |
//! | everything on a listener for operators, or for the application | the hub's |

use http::{Method, header, request::Parts};
use tidings_auth::TICKET_PARAMETER;
use url::form_urlencoded;

use super::settings::Upstream;
use crate::{
    Client, ListenerRole,
    app::App,
    metadata_path::is_metadata_path,
    native::TOPIC_PARAMETERS,
    pages::{SCRIPT_PATH, STYLESHEET_PATH, client},
};

/// The application that a request is for, if it is for one.
pub(crate) fn application_of<'a>(app: &'a App, parts: &Parts) -> Option<&'a Upstream> {
    let upstream = app.settings.upstream.as_ref()?;
    let listener = parts.extensions.get::<Client>().map_or(ListenerRole::All, |client| client.listener);
    let has_application = matches!(listener, ListenerRole::All | ListenerRole::Clients);
    (has_application && !is_of_hub(app, parts)).then_some(upstream)
}

/// Compares paths as the router does: as they were sent.
fn is_of_hub(app: &App, parts: &Parts) -> bool {
    let path = parts.uri.path();
    let hub_path = app.hub.validator().hub_url().path();
    let is_at_or_below =
        |base: &str| path.strip_prefix(base).is_some_and(|below| below.is_empty() || below.starts_with('/'));
    // RFC 9110, section 9.3.7: `OPTIONS *` asks about this server.
    path == "*"
        || [STYLESHEET_PATH, SCRIPT_PATH].contains(&path)
        || client::is_path(path)
        || is_at_or_below("/topics")
        || path.starts_with("/connections/")
        || is_at_or_below(hub_path)
        || is_metadata_path(hub_path, path)
        || app.settings.authorize.deciding_about(path).is_some()
        || (path == "/stream" && names_what_it_wants(app, parts))
}

fn names_what_it_wants(app: &App, parts: &Parts) -> bool {
    let has_body = |method: &[u8]| [b"POST".as_slice(), b"QUERY"].contains(&method);
    let method = match parts.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD) {
        Some(requested) if parts.method == Method::OPTIONS => requested.as_bytes(),
        _ => parts.method.as_str().as_bytes(),
    };
    let is_read = [b"GET".as_slice(), b"HEAD"].contains(&method);
    let query = parts.uri.query().unwrap_or_default();
    let mut names = form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
    has_body(method)
        || (is_read
            && (!app.settings.default_topics.is_empty()
                || names.any(|name| TOPIC_PARAMETERS.contains(&&*name) || name == TICKET_PARAMETER)
                || app.authorizer.bears_ticket(parts)))
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tidings::Hub;

    use super::*;
    use crate::{Applications, AuthorizedPath, ClientAddress, Settings, UpstreamSettings};

    async fn app(default_topics: &[&str]) -> App {
        let hub = Hub::in_memory().await;
        let upstream = Upstream::new("http://127.0.0.1:1", UpstreamSettings::default()).expect("an address");
        let events = AuthorizedPath::new("/events", "http://127.0.0.1:2/").expect("a path");
        let topic = |topic: &&str| hub.validator().exact(topic).expect("a topic");
        let settings = Settings {
            upstream: Some(upstream),
            authorize: Applications::new(&[events], 1),
            default_topics: default_topics.iter().map(topic).collect(),
            ..Settings::default()
        };
        App::new(hub, None, settings)
    }

    fn is_applications(app: &App, method: &str, target: &str, listener: ListenerRole) -> bool {
        let mut request = Request::builder().method(method).uri(target);
        if method == "OPTIONS" {
            request = request.header("access-control-request-method", "QUERY");
        }
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        parts.extensions.insert(Client { address: ClientAddress::Unknown, listener, is_encrypted: false });
        application_of(app, &parts).is_some()
    }

    #[tokio::test]
    async fn what_is_not_the_hubs_is_the_applications() {
        let app = app(&[]).await;
        for (method, target, expected) in [
            ("GET", "/", true),
            ("GET", "/healthz", true),
            ("GET", "/metrics", true),
            ("POST", "/tickets", true),
            ("POST", "/revoke", true),
            ("POST", "/topics", false),
            ("GET", "/topics/", false),
            ("DELETE", "/topics/a/b", false),
            ("PATCH", "/topics/a", false),
            ("GET", "/topicsx", true),
            ("GET", "//topics/a", true),
            ("GET", "/Topics/a", true),
            ("GET", "/%74opics/a", true),
            ("GET", "/.well-known/mercure", false),
            ("GET", "/.well-known/mercure/subscriptions", false),
            ("GET", "/.well-known/mercurex", true),
            ("GET", "/.well-known/oauth-protected-resource/.well-known/mercure", false),
            ("GET", "/.well-known/oauth-protected-resource", true),
            ("GET", "/.well-known/oauth-protected-resource/api", true),
            ("GET", "/.well-known/acme-challenge/x", true),
            ("GET", "/assets/tidings.css", false),
            ("GET", "/assets/tidings.js", false),
            ("GET", "/assets/viewer.js", true),
            ("GET", "/events", false),
            ("POST", "/events", false),
            ("GET", "/events/x", true),
            ("GET", "/stream", true),
            ("GET", "/stream?since=-5", true),
            ("GET", "/stream?topics=a", true),
            ("GET", "/stream?a&topic", false),
            ("GET", "/stream?%74opic=a", false),
            ("GET", "/stream?channel=a", false),
            ("HEAD", "/stream?pattern=/a", false),
            ("GET", "/stream?ticket=a", false),
            ("GET", "/stream/?topic=a", true),
            ("POST", "/stream", false),
            ("QUERY", "/stream", false),
            ("OPTIONS", "/stream", false),
            ("PUT", "/stream?topic=a", true),
            ("OPTIONS", "*", false),
        ] {
            assert_eq!(
                is_applications(&app, method, target, ListenerRole::All),
                expected,
                "{method} {target}"
            );
            assert_eq!(is_applications(&app, method, target, ListenerRole::Clients), expected);
            for listener in [ListenerRole::Admin, ListenerRole::Application] {
                assert!(!is_applications(&app, method, target, listener), "{method} {target}");
            }
        }
    }

    #[tokio::test]
    async fn a_hub_with_topics_of_its_own_answers_a_stream_that_names_none() {
        let app = app(&["chat"]).await;
        for (target, expected) in [("/stream", false), ("/stream?since=-5", false), ("/streams", true)] {
            assert_eq!(is_applications(&app, "GET", target, ListenerRole::All), expected, "{target}");
        }
    }

    #[tokio::test]
    async fn without_an_application_everything_is_the_hubs() {
        let app = App::new(Hub::in_memory().await, None, Settings::default());
        assert!(!is_applications(&app, "GET", "/", ListenerRole::All));
    }
}
