//! What the application receives: a GET with the headers, cookies and query of the client, without
//! what belongs to the connection, and with headers that say where the request came from.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header, request::Parts};
use http_body_util::Empty;

use super::path::AuthorizedPath;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// RFC 9110, section 7.6.1: header fields that belong to one connection, besides those that
/// `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
];

/// The request to the application. `scheme` is that of the hub's public URL.
pub(super) fn forwarded(
    path: &AuthorizedPath,
    parts: &Parts,
    client: Option<IpAddr>,
    scheme: &str,
) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = target(path, parts.uri.query())?;
    let headers = request.headers_mut();
    *headers = end_to_end(&parts.headers);
    headers.retain_names(|name| !says_where_from(name) && !is_ambiguous(name) && !is_of_a_body(name));
    join_cookies(headers);
    if let Some(client) = client {
        let client = HeaderValue::try_from(client.to_string()).expect("an address is ASCII");
        headers.insert(X_FORWARDED_FOR, client);
    }
    if let Some(host) = parts.headers.get(header::HOST) {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_str(scheme).expect("a scheme is ASCII"));
    // Inserted in any case: a client that names it in `Connection` could otherwise have it removed,
    // and would choose the tenant of an application that tells them apart by it.
    if let Some(host) = path.host().or(parts.headers.get(header::HOST)) {
        headers.insert(header::HOST, host.clone());
    }
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

/// The headers without those that belong to the connection.
pub(super) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named = headers.get_all(header::CONNECTION).iter();
    let named: Vec<_> = named
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    let mut kept = headers.clone();
    kept.remove(header::TRANSFER_ENCODING);
    for name in HOP_BY_HOP.iter().chain(&named) {
        kept.remove(name);
    }
    kept
}

/// Headers by which proxies say where a request came from. Only the hub says so to the
/// application: a client could write anything.
fn says_where_from(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip")
}

/// CGI and WSGI write `X_Forwarded_For` and `X-Forwarded-For` alike, so that a client could choose
/// what only the hub may say. nginx drops such names, too.
fn is_ambiguous(name: &HeaderName) -> bool {
    name.as_str().contains('_')
}

/// Headers of a body, which a GET does not have.
fn is_of_a_body(name: &HeaderName) -> bool {
    [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING, header::EXPECT].contains(name)
}

/// RFC 9113, section 8.2.3: the parts of a cookie that HTTP/2 sends in several fields are one field
/// in HTTP/1.1.
fn join_cookies(headers: &mut HeaderMap) {
    let fields: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if fields.len() > 1 {
        let joined = fields.join(&b"; "[..]);
        headers.insert(header::COOKIE, HeaderValue::from_bytes(&joined).expect("joined values are a value"));
    }
}

trait RetainNames {
    /// Keeps the fields with these names.
    fn retain_names(&mut self, is_kept: impl Fn(&HeaderName) -> bool);
}

impl RetainNames for HeaderMap {
    fn retain_names(&mut self, is_kept: impl Fn(&HeaderName) -> bool) {
        let removed: Vec<_> = self.keys().filter(|name| !is_kept(name)).cloned().collect();
        for name in removed {
            self.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(url: &str, target: &str, fields: &[(&str, &str)]) -> Request<Empty<Bytes>> {
        let mut request = Request::builder().uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let path = AuthorizedPath::new("/stream", url).expect("valid");
        forwarded(&path, &parts, Some([192, 0, 2, 7].into()), "https").expect("short")
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
            "x-app",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
        ];
        assert_eq!(names, expected);
        assert_eq!(values(&request, "cookie"), ["a=1; b=2"]);
        assert_eq!(values(&request, "host"), ["app.example"]);
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
        assert_eq!(request.headers().len(), 4, "{:?}", request.headers());
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
        let request = forwarded(&path.expect("valid"), &parts, None, "http").expect("short");
        assert_eq!(values(&request, "host"), ["app.internal"]);
        assert_eq!(values(&request, "x-forwarded-host"), ["hub.example"]);
        assert_eq!(values(&request, "x-forwarded-for"), [""; 0]);
    }
}
