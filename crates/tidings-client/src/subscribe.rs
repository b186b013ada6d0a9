//! What to subscribe to, and the stream of a subscription.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::{StreamExt, stream};
use reqwest::{
    Method, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};

use crate::{
    Client, ClientError, ClientEvent,
    driver::{Body, Connect, Driver},
    error::excerpt,
    http::{Http, root_cause},
};

/// The longest id that is sent back to resume. A hub's own ids have a tenth of it; most servers
/// refuse longer headers.
const RESUME_ID_BYTES_MAX: usize = 8 * 1024;

/// What to subscribe to. Without topics and patterns the hub decides, as configured with `tidings
/// serve --stream`.
#[derive(Clone, Debug, Default)]
pub struct Subscribe {
    parameters: Vec<(&'static str, String)>,
    last_event_id: String,
}

impl Subscribe {
    /// A subscription to the hub's default topics.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a topic, exactly as it is published; `*` is every topic.
    #[must_use]
    pub fn topic(self, topic: impl Into<String>) -> Self {
        self.parameter("topic", topic.into())
    }

    /// Adds the topics that match a URL Pattern.
    #[must_use]
    pub fn pattern(self, pattern: impl Into<String>) -> Self {
        self.parameter("pattern", pattern.into())
    }

    /// Sets where to begin: an event id, `now`, `earliest`, `-50` for the last fifty, `10m` for the
    /// last ten minutes.
    #[must_use]
    pub fn since(self, word: impl Into<String>) -> Self {
        self.parameter("since", word.into())
    }

    /// Begins after the event with this id, as a reconnect does.
    #[must_use]
    pub fn last_event_id(mut self, id: impl Into<String>) -> Self {
        self.last_event_id = id.into();
        self
    }

    /// Asks for data that is a JSON object with the topic, id, type, time and data of the event.
    #[must_use]
    pub fn json(self) -> Self {
        self.parameter("format", "json".to_owned())
    }

    fn parameter(mut self, name: &'static str, value: String) -> Self {
        self.parameters.push((name, value));
        self
    }
}

impl Client {
    /// Subscribes. Nothing is sent before the stream is polled. The stream ends after a permanent
    /// error, or when the server tells the client to stop (204); it survives everything else.
    pub fn subscribe(&self, subscribe: &Subscribe) -> Result<Subscription, ClientError> {
        let mut url = self.stream_url();
        // The hub's hello notice has an id. Without it, events published between a subscription
        // from now on and a disconnect before its first event would be lost.
        url.query_pairs_mut().extend_pairs(&subscribe.parameters).append_pair("hello", "true");
        resume_header(&subscribe.last_event_id)?;
        let source = Source { http: self.http.clone(), url };
        Ok(Subscription::new(Driver::new(source, &subscribe.last_event_id)))
    }
}

/// The events of one subscription, over as many connections as needed.
pub struct Subscription(Pin<Box<dyn Stream<Item = Result<ClientEvent, ClientError>> + Send>>);

impl Subscription {
    fn new<C: Connect + Sync + 'static>(driver: Driver<C>) -> Self {
        let events = stream::unfold(driver, |mut driver| async move { Some((driver.next().await?, driver)) });
        Self(Box::pin(events))
    }
}

impl Stream for Subscription {
    type Item = Result<ClientEvent, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}

/// Opens event streams over HTTP.
#[derive(Debug)]
struct Source {
    http: Http,
    url: Url,
}

impl Connect for Source {
    async fn connect(&self, last_event_id: &str) -> Result<Option<Body>, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(id) = resume_header(last_event_id)? {
            headers.insert(HeaderName::from_static("last-event-id"), id);
        }
        let response = self.http.send(Method::GET, self.url.clone(), &headers, None).await?;
        // HTML, "Server-sent events": 204 tells the client to stop, another status than 200 is a
        // failure.
        if response.status() == 204 {
            return Ok(None);
        }
        let content_type =
            response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
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
    essence.eq_ignore_ascii_case("text/event-stream")
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
}
