//! Any source of Server-Sent Events: the request, and how its response is received.

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use reqwest::{
    Method, Url,
    header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use tidings_net::redacted;

use crate::{
    ClientError, Subscription, Token,
    error::excerpt,
    http::{BODY_HEADERS, Http, Request, root_cause},
    subscription::{Attempt, Body, Connect, Options},
};

/// The longest id that is sent back to resume. A hub's own ids have a tenth of it; most servers
/// refuse longer headers.
const RESUME_ID_BYTES_MAX: usize = 8 * 1024;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const EVENT_STREAM: &str = "text/event-stream";

/// A source of Server-Sent Events at any URL, whatever server it is.
///
/// Every part is checked by [`open`](Self::open), which returns the stream.
///
/// ```no_run
/// use futures_util::StreamExt;
/// use tidings_client::{ClientEvent, EventSource, Token};
///
/// # async fn example() -> Result<(), tidings_client::ClientError> {
/// let mut answer = EventSource::new("https://example.com/v1/answers?stream=true")
///     .method("POST")
///     .token(Token::new("secret")?)
///     .header("content-type", "application/json")
///     .body(r#"{"question":"Why is the sky blue?"}"#)
///     .open()?;
/// while let Some(event) = answer.next().await {
///     if let ClientEvent::Message(message) = event? {
///         print!("{}", message.data);
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Where it differs from the EventSource of browsers
///
/// It parses, resumes and reconnects as the HTML standard defines ("Server-sent events"), except
/// for these points.
///
/// - A server that answers 408, 425, 429 or 5xx is asked again, not before the time in
///   `Retry-After`. Other error statuses, and a response of another type than `text/event-stream`,
///   are final, as in the standard.
/// - The pause before a reconnect is the server's `retry` after a connection that worked. After one
///   that did not, a random time is added that doubles with each failure, up to 30 s. Without a
///   `retry` the pause is random, up to a second at first. It lasts 100 ms at least; a server can
///   ask for an hour at most.
/// - A connection on which nothing arrives for 45 s is given up
///   ([`idle_timeout`](Self::idle_timeout)).
/// - A line or an event of more than 8 MiB ends the subscription
///   ([`line_bytes_max`](Self::line_bytes_max), [`event_bytes_max`](Self::event_bytes_max)); so
///   does an id of more than 8 KiB or with control characters, with which it could not resume.
/// - Ten redirects are followed in a row, where Fetch follows twenty. Fetch withholds
///   `Authorization` from another origin; here no header that the caller has set goes there, except
///   those that describe the body, because any of them may be a credential. Each reconnect begins
///   at the URL that was given.
/// - Events of the type `tidings` are [notices](crate::Notice) of a hub.
/// - There are no cookies and no cross-origin rules; a method, headers, a body and an initial id
///   can be set.
#[derive(Clone)]
pub struct EventSource {
    http: Option<Http>,
    url: String,
    accept: &'static str,
    method: String,
    headers: Vec<(String, String)>,
    token: Option<Token>,
    body: Option<Bytes>,
    options: Options,
}

impl EventSource {
    /// A source at a URL of HTTP or HTTPS, as it is: with its query, if it has one. A user name and
    /// password in it are sent as `Authorization: Basic`.
    ///
    /// ```
    /// use tidings_client::EventSource;
    ///
    /// assert!(EventSource::new("https://example.com/events?channel=7").open().is_ok());
    /// assert!(EventSource::new("ftp://example.com/events").open().is_err());
    /// ```
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            http: None,
            url: url.into(),
            accept: EVENT_STREAM,
            method: "GET".to_owned(),
            headers: Vec::new(),
            token: None,
            body: None,
            options: Options::default(),
        }
    }

    /// A source at a hub.
    pub(crate) fn at_hub(http: Http, url: String) -> Self {
        // A hub that is full hides errors from a client whose headers are those of a browser's
        // EventSource, which could not read them. This one can.
        let accept = "text/event-stream, application/problem+json;q=0.9";
        Self { http: Some(http), accept, ..Self::new(url) }
    }

    /// Sets the method; `GET` unless set.
    #[must_use]
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = method.into();
        self
    }

    /// Adds a header, which is sent with every request to the origin of the URL. It replaces one
    /// that the client would send by itself: `Accept`, `Cache-Control` and `User-Agent`.
    ///
    /// ```
    /// use tidings_client::EventSource;
    ///
    /// let source = EventSource::new("https://example.com/events").header("x-api-key", "secret");
    /// assert!(source.clone().open().is_ok());
    /// assert!(!format!("{source:?}").contains("secret"));
    /// assert!(source.header("two words", "").open().is_err());
    /// ```
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sends a token, as `Authorization: Bearer`, to the origin of the URL and to no other.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// Sets the body, which is sent again with every reconnect. Its type is set by
    /// [`header`](Self::header).
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Begins after the event with this id, as a reconnect does.
    ///
    /// ```
    /// use tidings_client::EventSource;
    ///
    /// let events = EventSource::new("https://example.com/events").last_event_id("41").open()?;
    /// assert_eq!(events.last_event_id(), "41");
    /// # Ok::<(), tidings_client::ClientError>(())
    /// ```
    #[must_use]
    pub fn last_event_id(mut self, id: impl Into<String>) -> Self {
        self.options.last_event_id = id.into();
        self
    }

    /// Returns comments too, as [`ClientEvent::Comment`](crate::ClientEvent::Comment).
    #[must_use]
    pub fn comments(mut self) -> Self {
        self.options.comments = true;
        self
    }

    /// Sets the size of an event, as data, type and id together, at which the subscription ends
    /// with an error. 8 MiB unless set.
    #[must_use]
    pub fn event_bytes_max(mut self, event_bytes_max: usize) -> Self {
        self.options.limits.event_bytes_max = event_bytes_max;
        self
    }

    /// Sets the length of a line at which the subscription ends with an error. 8 MiB unless set.
    #[must_use]
    pub fn line_bytes_max(mut self, line_bytes_max: usize) -> Self {
        self.options.limits.line_bytes_max = line_bytes_max;
        self
    }

    /// Sets how long the server may send nothing, not even a comment, before the client gives the
    /// connection up and makes another: 45 s unless set, `None` for any time. The same holds for
    /// the answer to a request.
    ///
    /// A hub announces how often it sends a heartbeat, and the client waits for three of them if
    /// that takes longer.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings_client::EventSource;
    ///
    /// let source = EventSource::new("https://example.com/events");
    /// let impatient = source.clone().idle_timeout(Duration::from_secs(10));
    /// let patient = source.idle_timeout(None);
    /// ```
    #[must_use]
    pub fn idle_timeout(mut self, idle_timeout: impl Into<Option<Duration>>) -> Self {
        self.options.idle_timeout = idle_timeout.into();
        self
    }

    /// Sets the time before a reconnect, as a `retry` of the server would. The server's own
    /// replaces it.
    #[must_use]
    pub fn reconnect_delay(mut self, reconnect_delay: Duration) -> Self {
        self.options.reconnect_delay = Some(reconnect_delay);
        self
    }

    /// Checks the request and returns its stream. Nothing is sent before the stream is polled.
    pub fn open(self) -> Result<Subscription, ClientError> {
        let http = match &self.http {
            Some(http) => http.clone(),
            None => Http::shared()?,
        };
        let request = self.request(&http)?;
        resume_header(&self.options.last_event_id)?;
        Ok(Subscription::new(Box::new(Source { http, request }), self.options))
    }

    fn request(&self, http: &Http) -> Result<Request, ClientError> {
        let refuse = ClientError::Request;
        let shown = || excerpt(&redacted(&self.url));
        let mut url = Url::parse(self.url.trim()).map_err(|_| {
            refuse(format!("`{}` is not a URL: write it as https://example.com/events", shown()))
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse(format!("the URL `{}` does not begin with http:// or https://", shown())));
        }
        let method = Method::from_bytes(self.method.as_bytes())
            .map_err(|_| refuse(format!("`{}` is not a method of HTTP", excerpt(&self.method))))?;

        let mut private_headers = HeaderMap::new();
        let credentials = [http.take_user(&mut url), self.token.as_ref().map(Token::header)];
        for credential in credentials.into_iter().flatten() {
            private_headers.append(AUTHORIZATION, credential);
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let shown = excerpt(name);
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| refuse(format!("`{shown}` is not the name of a header")))?;
            if name == LAST_EVENT_ID {
                return Err(refuse(
                    "the id to begin after is not a header here: set `last_event_id`".to_owned(),
                ));
            }
            let mut value = HeaderValue::from_bytes(value.as_bytes())
                .map_err(|_| refuse(format!("the value of the header `{shown}` has control characters")))?;
            value.set_sensitive(true);
            let is_of_body = BODY_HEADERS.contains(&name);
            if is_of_body { &mut headers } else { &mut private_headers }.append(name, value);
        }
        if private_headers.get_all(AUTHORIZATION).iter().count() > 1 {
            return Err(refuse(
                "a credential is given more than once: in the URL, as a token or as the header `authorization`"
                    .to_owned(),
            ));
        }
        for (name, value) in [(ACCEPT, self.accept), (CACHE_CONTROL, "no-cache")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let body = self.body.clone();
        Ok(Request { method, url, headers, private_headers, body, may_become_get: true })
    }
}

impl fmt::Debug for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("EventSource");
        shown.field("url", &redacted(&self.url)).field("method", &self.method).finish_non_exhaustive()
    }
}

/// Opens event streams over HTTP.
#[derive(Debug)]
struct Source {
    http: Http,
    request: Request,
}

impl Connect for Source {
    fn connect(&self, last_event_id: &str) -> Attempt {
        let (http, mut request) = (self.http.clone(), self.request.clone());
        let id = resume_header(last_event_id);
        async move {
            if let Some(id) = id? {
                request.headers.insert(LAST_EVENT_ID, id);
            }
            open_stream(&http, request).await
        }
        .boxed()
    }
}

async fn open_stream(http: &Http, request: Request) -> Result<Option<Body>, ClientError> {
    let response = http.send(request).await?;
    // HTML, "Server-sent events": 204 tells the client to stop, another status than 200 is a
    // failure.
    if response.status() == 204 {
        return Ok(None);
    }
    let content_type = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let content_type = String::from_utf8_lossy(content_type);
    if response.status() != 200 || !is_event_stream(&content_type) {
        let shown = if content_type.is_empty() { "no Content-Type" } else { &content_type };
        return Err(ClientError::NotEventStream { content_type: excerpt(shown) });
    }
    let cut = |error: reqwest::Error| {
        ClientError::Connection(format!("the connection broke: {}", root_cause(&error)))
    };
    let chunks = response.bytes_stream().map(move |chunk: Result<Bytes, _>| chunk.map_err(cut));
    Ok(Some(chunks.boxed()))
}

/// The id as a header value: bytes of UTF-8, as browsers send it. An empty one is not sent.
fn resume_header(id: &str) -> Result<Option<HeaderValue>, ClientError> {
    if id.is_empty() {
        return Ok(None);
    }
    let bytes = id.len();
    let value = HeaderValue::from_bytes(id.as_bytes()).ok().filter(|_| bytes <= RESUME_ID_BYTES_MAX);
    value.map(Some).ok_or(ClientError::UnusableId { bytes })
}

/// Only the type counts: the stream is UTF-8 whatever a parameter says.
fn is_event_stream(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(EVENT_STREAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_type_makes_an_event_stream() {
        for good in ["text/event-stream", "text/event-stream;", "Text/Event-Stream ; charset=utf-8"] {
            assert!(is_event_stream(good), "{good}");
        }
        for bad in
            ["", "text/event", "text/event-streams", "x text/event-stream", "text/html; text/event-stream"]
        {
            assert!(!is_event_stream(bad), "{bad}");
        }
    }

    #[test]
    fn an_id_that_no_header_can_hold_is_an_error() {
        assert_eq!(resume_header("").unwrap(), None);
        assert_eq!(resume_header("é…").unwrap().unwrap().as_bytes(), "é…".as_bytes());
        assert!(matches!(resume_header("a\u{1}"), Err(ClientError::UnusableId { bytes: 2 })));
        assert!(resume_header(&"a".repeat(RESUME_ID_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn a_user_in_the_url_becomes_a_header_that_is_not_shown() {
        let source = EventSource::new("http://ada:s%40cret@example.com/a?b=hidden#c");
        let request = source.request(&Http::shared().unwrap()).unwrap();
        assert_eq!(request.url.as_str(), "http://example.com/a?b=hidden#c");
        assert_eq!(request.private_headers[AUTHORIZATION], "Basic YWRhOnNAY3JldA==");
        for shown in [format!("{source:?}"), format!("{request:?}")] {
            assert!(!shown.contains("YWRh") && !shown.contains("s%40cret"), "{shown}");
        }
        assert!(!format!("{source:?}").contains("hidden"));
    }

    #[test]
    fn an_invalid_part_is_refused_with_its_name_and_without_its_secret() {
        let source = || EventSource::new("http://example.com/");
        for (source, expected) in [
            (EventSource::new("example.com"), "`example.com` is not a URL"),
            (EventSource::new("ftp://a:5ecret@example.com"), "does not begin with http"),
            (source().method("GET X"), "`GET X` is not a method"),
            (source().header("a b", "5ecret"), "`a b` is not the name of a header"),
            (source().header("x-key", "5ecret\n"), "the header `x-key` has control characters"),
            (
                EventSource::new("http://ada:5ecret@example.com/").token(Token::new("5ecret").unwrap()),
                "more than once",
            ),
            (source().header("Last-Event-ID", "5ecret"), "set `last_event_id`"),
            (source().last_event_id("5ecret\n"), "cannot be sent back to resume"),
        ] {
            let refused = source.open().unwrap_err().to_string();
            assert!(refused.contains(expected) && !refused.contains("5ecret"), "{refused}");
        }
    }
}
