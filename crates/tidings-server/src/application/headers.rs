//! Header fields of requests to applications and of their responses: without what belongs to the
//! connection, and with what says where a request came from.

use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

use crate::{Client, access::client_address, connection::join_cookies};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// By this an application knows that a hub is in front of it, and of which version.
const TIDINGS_VERSION: HeaderName = HeaderName::from_static("tidings-version");

/// RFC 9110, section 7.6.1: header fields that belong to one connection, besides those that
/// `Connection` names.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The header fields of a request, as its application receives them. `scheme` is that of the hub's
/// public URL, `host` what the application is called if not as the client calls it. The length of a
/// body and `Expect` are left to what sends it.
pub(crate) fn for_application(parts: &Parts, scheme: &str, host: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = end_to_end(&parts.headers, |name| {
        let is_of_sending = [header::CONTENT_LENGTH, header::EXPECT].contains(name);
        !is_of_sending && !says_where_from(name) && !is_ambiguous(name)
    });
    join_cookies(&mut headers);
    if let Some(client) = client_address(parts).ip() {
        let client = HeaderValue::try_from(client.to_string()).expect("an address is ASCII");
        headers.insert(X_FORWARDED_FOR, client);
    }
    let client_host = parts.headers.get(header::HOST);
    if let Some(host) = client_host {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
    let is_encrypted = parts.extensions.get::<Client>().is_some_and(|client| client.is_encrypted);
    let scheme = if is_encrypted { "https" } else { scheme };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_str(scheme).expect("a scheme is ASCII"));
    headers.insert(TIDINGS_VERSION, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    // Inserted in any case: a client that names it in `Connection` could otherwise have it removed,
    // and would choose the tenant of an application that tells them apart by it.
    if let Some(host) = host.or(client_host) {
        headers.insert(header::HOST, host.clone());
    }
    headers
}

/// The header fields of a response, as its client receives them.
pub(crate) fn for_client(headers: &HeaderMap) -> HeaderMap {
    // RFC 9112, 6.3: a length next to an encoding does not count.
    let is_encoded = headers.contains_key(header::TRANSFER_ENCODING);
    end_to_end(headers, |name| !(is_encoded && *name == header::CONTENT_LENGTH))
}

/// The fields that do not belong to the connection, as far as they are kept.
fn end_to_end(headers: &HeaderMap, is_kept: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let named = headers.get_all(header::CONNECTION).iter();
    let named: Vec<_> = named
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    let fields = headers.iter();
    let kept =
        fields.filter(|(name, _)| !HOP_BY_HOP.contains(name) && !named.contains(name) && is_kept(name));
    let mut end_to_end = HeaderMap::with_capacity(headers.len() + 5);
    for (name, value) in kept {
        end_to_end.append(name, value.clone());
    }
    end_to_end
}

/// Headers by which proxies say where a request came from. Only the hub says so to the
/// application: a client could write anything. `Proxy` is what CGI would hand to an application as
/// `HTTP_PROXY`, the proxy of its own requests.
fn says_where_from(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip" | "proxy")
}

/// CGI and WSGI write `X_Forwarded_For` and `X-Forwarded-For` alike, so that a client could choose
/// what only the hub may say. nginx drops such names, too.
fn is_ambiguous(name: &HeaderName) -> bool {
    name.as_str().contains('_')
}
