//! One request over HTTP: the token, redirects, and answers that are errors.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER},
};
use serde::Deserialize;

use crate::{ClientError, error::excerpt};

/// How long a connection may take to be established, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most redirects in a row; one more is an error.
const REDIRECTS_MAX: usize = 10;
/// How much of a reply or an error page is read. A hub needs a fraction of it.
pub(crate) const REPLY_BYTES_MAX: usize = 64 * 1024;

/// The credential for a hub: a key's secret or a signed token. `Debug` does not show it.
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
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// Sends requests to one hub.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
    token: Option<Token>,
}

impl Http {
    pub(crate) fn new(token: Option<Token>) -> Result<Self, ClientError> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ClientError::Connection(root_cause(&error)))?;
        Ok(Self { client, token })
    }

    /// The value of the header `Authorization`.
    #[cfg(test)]
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.token.as_ref().and_then(|token| token.0.to_str().ok())
    }

    /// Sends a request and follows redirects, with the token only as long as they stay on the
    /// origin of `url`. Once they have left it, the token is not sent again even if they return. An
    /// answer with an error status becomes an error.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: Url,
        headers: &HeaderMap,
        body: Option<Bytes>,
    ) -> Result<Response, ClientError> {
        let origin = url.origin();
        let mut at_home = true;
        let mut target = url;
        for _ in 0..=REDIRECTS_MAX {
            let mut request = self.client.request(method.clone(), target.clone()).headers(headers.clone());
            if let Some(token) = self.token.as_ref().filter(|_| at_home) {
                request = request.header(AUTHORIZATION, token.0.clone());
            }
            if let Some(body) = &body {
                request = request.body(body.clone());
            }
            let response = request.send().await.map_err(|error| {
                let server = target.origin().ascii_serialization();
                ClientError::Connection(format!("cannot reach {server}: {}", root_cause(&error)))
            })?;
            let Some(next) = redirect(&method, &target, &response)? else {
                return check(response).await;
            };
            at_home = at_home && next.origin() == origin;
            target = next;
        }
        let location = excerpt(target.as_str());
        Err(ClientError::Redirect { location, reason: "there are too many in a row" })
    }
}

/// The target of a redirect, `None` if the answer is not a redirect.
fn redirect(method: &Method, from: &Url, response: &Response) -> Result<Option<Url>, ClientError> {
    let status = response.status().as_u16();
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(LOCATION) else {
        return Ok(None);
    };
    let location = String::from_utf8_lossy(location.as_bytes());
    let refuse = |reason| ClientError::Redirect { location: excerpt(&location), reason };
    let mut target = from.join(&location).map_err(|_| refuse("it is not a URL"))?;
    if !matches!(target.scheme(), "http" | "https") {
        return Err(refuse("it leads away from HTTP"));
    }
    // RFC 9110, section 15.4: 301, 302 and 303 turn a POST into a GET, which would publish nothing
    // and still succeed.
    if *method != Method::GET && !matches!(status, 307 | 308) {
        return Err(refuse("a publication would be lost on the way; give the URL that it leads to"));
    }
    // A name and password in the target would become credentials that the caller has not given.
    target
        .set_username("")
        .and_then(|()| target.set_password(None))
        .map_err(|()| refuse("it has no host"))?;
    Ok(Some(target))
}

/// An answer that is not a success becomes an error with the server's reason.
async fn check(response: Response) -> Result<Response, ClientError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let body = read_all(response).await.unwrap_or_default();
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

/// Reads a reply of at most [`REPLY_BYTES_MAX`]; a longer or incomplete one is `None`.
pub(crate) async fn read_all(mut response: Response) -> Option<Bytes> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > REPLY_BYTES_MAX {
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
        let http = Http::new(Some(Token::new("secret").unwrap())).unwrap();
        assert!(!format!("{http:?}").contains("secret"));
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
