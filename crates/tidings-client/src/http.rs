//! One request over HTTP: the token, redirects, and answers that are errors.
//!
//! Invariant: what may be a credential goes only to the origin that it was given for, wherever a
//! redirect leads.

use std::{
    fmt,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{
        AUTHORIZATION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_TYPE, HeaderMap,
        HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
    },
};
use serde::Deserialize;
use tidings_net::redacted;

use crate::{ClientError, error::excerpt};

/// How long a connection may take to be established, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most redirects in a row; one more is an error.
const REDIRECTS_MAX: usize = 10;
/// How much of the reply about one event, or of an error page, is read. A hub needs a fraction of it.
pub(crate) const REPLY_BYTES_MAX: usize = 64 * 1024;

/// The credential for a hub: a key's secret or a signed token. `Debug` does not show it.
///
/// ```
/// use tidings_client::Token;
///
/// let token = Token::new("tk_secret")?;
/// assert_eq!(format!("{token:?}"), "Token(hidden)");
/// assert!(Token::new("two words").is_err());
/// # Ok::<(), tidings_client::ClientError>(())
/// ```
#[derive(Clone)]
pub struct Token(HeaderValue);

impl Token {
    /// Wraps a token as it is sent after `Authorization: Bearer`.
    pub fn new(text: &str) -> Result<Self, ClientError> {
        let text = text.trim();
        // RFC 6750, section 2.1: b64token has visible ASCII characters only.
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ClientError::Request(
                "the token is empty or contains characters that are not allowed in a token".to_owned(),
            ));
        }
        let mut value =
            HeaderValue::try_from(format!("Bearer {text}")).expect("visible ASCII characters only");
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// The value of the header `Authorization`.
    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// A request, which can be sent again.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// What any server may know.
    pub(crate) headers: HeaderMap,
    /// What only the origin of `url` may know: credentials, and everything that may be one.
    pub(crate) private_headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    /// Whether a redirect may turn the request into a GET without a body.
    pub(crate) may_become_get: bool,
}

/// Headers that describe the body, and leave the request with it (Fetch, "request-body-header
/// name").
pub(crate) const BODY_HEADERS: [HeaderName; 4] =
    [CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_TYPE];

/// Sends requests.
#[derive(Clone, Debug)]
pub(crate) struct Http(reqwest::Client);

impl Http {
    pub(crate) fn new() -> Result<Self, ClientError> {
        Self::build(reqwest::Client::builder())
    }

    /// One for all streams of a process that have none of their own: it takes long to load the
    /// certificates of the system. It keeps no idle connection, whose runtime may have ended.
    pub(crate) fn shared() -> Result<Self, ClientError> {
        static SHARED: OnceLock<Http> = OnceLock::new();
        if let Some(shared) = SHARED.get() {
            return Ok(shared.clone());
        }
        let http = Self::build(reqwest::Client::builder().pool_max_idle_per_host(0))?;
        Ok(SHARED.get_or_init(|| http).clone())
    }

    fn build(builder: reqwest::ClientBuilder) -> Result<Self, ClientError> {
        builder
            .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map(Self)
            .map_err(|error| ClientError::Connection(root_cause(&error)))
    }

    /// Removes the user name and password of a URL. Returns them as the value of `Authorization`.
    pub(crate) fn take_user(&self, url: &mut Url) -> Option<HeaderValue> {
        let mut request = self.0.get(url.clone()).build().ok()?;
        url.clone_from(request.url());
        request.headers_mut().remove(AUTHORIZATION)
    }

    /// Sends a request and follows redirects, with the private headers only as long as they stay on
    /// the origin of the URL. Once they have left it, those are not sent again even if they return.
    /// An answer with an error status becomes an error.
    pub(crate) async fn send(&self, mut request: Request) -> Result<Response, ClientError> {
        for _ in 0..=REDIRECTS_MAX {
            let mut attempt = self
                .0
                .request(request.method.clone(), request.url.clone())
                .headers(request.headers.clone())
                .headers(request.private_headers.clone());
            if let Some(body) = &request.body {
                attempt = attempt.body(body.clone());
            }
            let response = attempt.send().await.map_err(|error| {
                let server = request.url.origin().ascii_serialization();
                ClientError::Connection(format!("cannot reach {server}: {}", root_cause(&error)))
            })?;
            match redirected(&request, &response)? {
                Some(next) => request = next,
                None => return check(response).await,
            }
        }
        let location = shown(request.url.as_str());
        Err(ClientError::Redirect { location, reason: "there are too many in a row" })
    }
}

/// The request that a redirect asks for, `None` if the answer is not a redirect.
fn redirected(request: &Request, response: &Response) -> Result<Option<Request>, ClientError> {
    let status = response.status().as_u16();
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(LOCATION) else {
        return Ok(None);
    };
    let location = String::from_utf8_lossy(location.as_bytes());
    let refuse = |reason| ClientError::Redirect { location: shown(&location), reason };
    let mut url = request.url.join(&location).map_err(|_| refuse("it is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse("it leads away from HTTP"));
    }
    // A name and password in the target would become credentials that the caller has not given.
    url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| refuse("it has no host"))?;

    let mut next = request.clone();
    // Fetch, "HTTP-redirect fetch", step 12.
    let becomes_get = match status {
        301 | 302 => request.method == Method::POST,
        303 => request.method != Method::GET && request.method != Method::HEAD,
        _ => false,
    };
    if becomes_get {
        // A publication would publish nothing and still succeed.
        if !request.may_become_get {
            return Err(refuse("a publication would be lost on the way; give the URL that it leads to"));
        }
        (next.method, next.body) = (Method::GET, None);
        for name in BODY_HEADERS {
            next.headers.remove(&name);
        }
    }
    if url.origin() != request.url.origin() {
        next.private_headers.clear();
    }
    next.url = url;
    Ok(Some(next))
}

/// A URL as it is shown: it may contain a credential.
fn shown(url: &str) -> String {
    excerpt(&redacted(url))
}

/// An answer that is not a success becomes an error with the server's reason.
async fn check(response: Response) -> Result<Response, ClientError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let body = read_all(response, REPLY_BYTES_MAX).await.unwrap_or_default();
    let detail = describe(status, &body);
    // RFC 9110, section 15: 408, 425 and 429 are transient, the other 4xx are about the request.
    let transient = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
    let status = status.as_u16();
    Err(if transient {
        ClientError::Unavailable { status, detail, retry_after }
    } else {
        ClientError::Refused { status, detail }
    })
}

/// Reads a reply of at most this many bytes; a longer or incomplete one is `None`.
pub(crate) async fn read_all(mut response: Response, bytes_max: usize) -> Option<Bytes> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > bytes_max {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body.freeze())
}

/// The detail of an RFC 9457 problem, else a short plain text, else the name of the status.
fn describe(status: StatusCode, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        detail: Option<String>,
        title: Option<String>,
    }
    const PLAIN_BYTES_MAX: usize = 300;
    if let Ok(problem) = serde_json::from_slice::<Problem>(body)
        && let Some(text) = problem.detail.or(problem.title)
    {
        return excerpt(&text);
    }
    let plain = std::str::from_utf8(body).unwrap_or_default().trim();
    if !plain.is_empty() && plain.len() <= PLAIN_BYTES_MAX && !plain.starts_with(['<', '{']) {
        return excerpt(plain);
    }
    status.canonical_reason().unwrap_or_default().to_owned()
}

/// RFC 9110, section 10.2.3: a number of seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// The root of a chain of errors: "Connection refused" is more useful than "error sending request".
pub(crate) fn root_cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    excerpt(&cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        assert_eq!(format!("{:?}", Token::new(" secret ").unwrap()), "Token(hidden)");
        assert!(!format!("{:?}", Token::new("secret").unwrap().header()).contains("secret"));
        for text in ["", " ", "a b", "a\r\nX: y", "é"] {
            assert!(Token::new(text).is_err());
        }
    }

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date() {
        let asked = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777))
        };
        assert_eq!(asked("120"), Some(Duration::from_secs(120)));
        assert_eq!(asked("99999999999999999999"), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("-1"), None);
        assert_eq!(asked("soon"), None);
    }

    #[test]
    fn an_error_contains_the_reason_that_the_server_gave() {
        let unauthorized = StatusCode::UNAUTHORIZED;
        let problem = br#"{"type":"about:blank","title":"Unauthorized","detail":"the token\nexpired"}"#;
        assert_eq!(describe(unauthorized, problem), "the token expired");
        assert_eq!(describe(unauthorized, b"go away\n"), "go away");
        assert_eq!(describe(unauthorized, b"<html>a page</html>"), "Unauthorized");
        assert_eq!(describe(unauthorized, b"\xff"), "Unauthorized");
        assert_eq!(describe(unauthorized, b"{\"detail\":7}"), "Unauthorized");
    }
}
