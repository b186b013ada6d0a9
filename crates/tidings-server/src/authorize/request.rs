//! What the application receives: a GET with the headers, cookies and query of the client, without
//! what belongs to the connection, and with headers that say where the request came from.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, header, request::Parts};
use http_body_util::Empty;

use super::path::AuthorizedPath;
use crate::application::headers::for_application;

/// The request to the application. `scheme` is that of the hub's public URL.
pub(super) fn forwarded(
    path: &AuthorizedPath,
    parts: &Parts,
    scheme: &str,
) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = target(path, parts.uri.query())?;
    *request.headers_mut() = for_application(parts, scheme, path.host());
    remove_those_of_a_body(request.headers_mut());
    Ok(request)
}

/// The URL of the application, with the query of the client, as it was sent, behind its own.
fn target(path: &AuthorizedPath, query: Option<&str>) -> Result<Uri, String> {
    let url = path.url().as_str();
    let target = match (path.url().query(), query.unwrap_or_default()) {
        (_, "") => url.to_owned(),
        (None | Some(""), query) => format!("{}?{query}", url.trim_end_matches('?')),
        (Some(_), query) => format!("{url}&{query}"),
    };
    Uri::try_from(target)
        .map_err(|_| "the URL of the application and the query are too long together".to_owned())
}

/// Removes the headers of a body, which a GET does not have.
fn remove_those_of_a_body(headers: &mut HeaderMap) {
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::{Client, ClientAddress, ListenerRole};

    fn forward(url: &str, target: &str, fields: &[(&str, &str)]) -> Request<Empty<Bytes>> {
        let mut request = Request::builder().uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        let address = ClientAddress::of([192, 0, 2, 7].into());
        parts.extensions.insert(Client { address, listener: ListenerRole::All, is_encrypted: false });
        let path = AuthorizedPath::new("/stream", url).expect("valid");
        forwarded(&path, &parts, "https").expect("short")
    }

    fn values(request: &Request<Empty<Bytes>>, name: &str) -> Vec<String> {
        let values = request.headers().get_all(name).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    }

    #[test]
    fn the_query_is_forwarded_as_it_was_sent() {
        for (url, target, expected) in [
            ("http://a:1/in", "/stream", "http://a:1/in"),
            ("http://a:1/in", "/stream?", "http://a:1/in"),
            ("http://a:1/in", "/stream?topic=a%20b&x", "http://a:1/in?topic=a%20b&x"),
            ("http://a:1/in?", "/stream?x", "http://a:1/in?x"),
            ("http://a:1/in?key=1", "/stream", "http://a:1/in?key=1"),
            ("http://a:1/in?key=1", "/stream?key=2&%zz", "http://a:1/in?key=1&key=2&%zz"),
            ("http://a:1", "/stream?x", "http://a:1/?x"),
        ] {
            assert_eq!(forward(url, target, &[]).uri(), expected, "{url} {target}");
        }
    }

    #[test]
    fn headers_and_cookies_are_forwarded_and_those_of_the_connection_are_not() {
        let request = forward(
            "http://a/",
            "/stream",
            &[
                ("host", "app.example"),
                ("cookie", "a=1"),
                ("cookie", "b=2"),
                ("last-event-id", "#1.a"),
                ("authorization", "Bearer x"),
                ("x-app", "1"),
                ("tidings-version", "of the client"),
                ("proxy", "http://evil.example"),
                ("connection", "keep-alive, X-Hop"),
                ("x-hop", "1"),
                ("keep-alive", "1"),
                ("te", "trailers"),
                ("transfer-encoding", "chunked"),
                ("content-length", "3"),
                ("content-type", "text/plain"),
                ("expect", "100-continue"),
                ("upgrade", "h2c"),
                ("proxy-authorization", "Basic x"),
            ],
        );
        assert_eq!(request.method(), Method::GET);
        let mut names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expected = [
            "authorization",
            "cookie",
            "host",
            "last-event-id",
            "tidings-version",
            "x-app",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
        ];
        assert_eq!(names, expected);
        assert_eq!(values(&request, "cookie"), ["a=1; b=2"]);
        assert_eq!(values(&request, "host"), ["app.example"]);
        assert_eq!(values(&request, "tidings-version"), [env!("CARGO_PKG_VERSION")]);
    }

    #[test]
    fn where_a_request_came_from_is_said_by_the_hub_alone() {
        let request = forward(
            "http://a/",
            "/stream",
            &[
                ("host", "app.example"),
                ("x-forwarded-for", "198.51.100.1"),
                ("x-forwarded-for", "198.51.100.2"),
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-proto", "gopher"),
                ("x-forwarded-prefix", "/admin"),
                ("x_forwarded_for", "198.51.100.3"),
                ("forwarded", "for=198.51.100.4"),
                ("x-real-ip", "198.51.100.5"),
            ],
        );
        assert_eq!(values(&request, "x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(values(&request, "x-forwarded-host"), ["app.example"]);
        assert_eq!(values(&request, "x-forwarded-proto"), ["https"]);
        assert_eq!(request.headers().len(), 5, "{:?}", request.headers());
    }

    #[test]
    fn a_client_cannot_have_the_host_removed() {
        let fields = [("host", "app.example"), ("connection", "close, Host, x-forwarded-host")];
        let request = forward("http://127.0.0.1:5000/", "/stream", &fields);
        assert_eq!(values(&request, "host"), ["app.example"]);
        assert_eq!(values(&request, "x-forwarded-host"), ["app.example"]);
    }

    #[test]
    fn the_host_of_the_application_may_be_another() {
        let path =
            AuthorizedPath::new("/stream", "https://a/").and_then(|path| path.with_host("app.internal"));
        let (parts, ()) =
            Request::builder().header("host", "hub.example").body(()).expect("a request").into_parts();
        let request = forwarded(&path.expect("valid"), &parts, "http").expect("short");
        assert_eq!(values(&request, "host"), ["app.internal"]);
        assert_eq!(values(&request, "x-forwarded-host"), ["hub.example"]);
        assert_eq!(values(&request, "x-forwarded-for"), [""; 0]);
    }
}
