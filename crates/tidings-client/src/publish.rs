//! Publishing one event.

use bytes::Bytes;
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde::Deserialize;

use crate::{
    Client, ClientError,
    http::{REPLY_BYTES_MAX, Request},
    publication::{key_header, send_publication},
};

/// Options of a publication, in addition to its topic and data.
///
/// ```
/// use tidings_client::Publish;
///
/// let paid = Publish::new().event_type("paid").id("order-42").private().idempotency_key("7f0c2a");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Publish {
    pub(crate) event_type: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) retry_millis: Option<u64>,
    pub(crate) private: bool,
    pub(crate) except: Option<String>,
    pub(crate) ephemeral: bool,
    pub(crate) idempotency_key: Option<String>,
}

/// The hub's answer: the event is in its log, or, if it is ephemeral, on its way to subscribers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Published {
    /// The id of the event. None for an ephemeral one.
    pub id: Option<String>,
    /// Whether it had been published before, with the same idempotency key.
    #[serde(default)]
    pub duplicate: bool,
}

impl Publish {
    /// A public event without a type, with an id that the hub generates.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the type, which `addEventListener` names in the browser.
    #[must_use]
    pub fn event_type(mut self, event_type: impl Into<String>) -> Self {
        self.event_type = Some(event_type.into());
        self
    }

    /// Sets the publisher's own id.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Tells browsers how long to wait before they reconnect.
    #[must_use]
    pub fn retry_millis(mut self, retry_millis: u64) -> Self {
        self.retry_millis = Some(retry_millis);
        self
    }

    /// Makes the event private: only subscribers with a grant on the topic receive it.
    #[must_use]
    pub fn private(mut self) -> Self {
        self.private = true;
        self
    }

    /// Excludes one connection, by the name in its [`Notice::Hello`](crate::Notice::Hello).
    #[must_use]
    pub fn except(mut self, connection: impl Into<String>) -> Self {
        self.except = Some(connection.into());
        self
    }

    /// Makes the event ephemeral: subscribers that are connected now receive it at most once, and it
    /// is not stored. It can have neither an [id](Self::id) nor a [key](Self::idempotency_key).
    #[must_use]
    pub fn ephemeral(mut self) -> Self {
        self.ephemeral = true;
        self
    }

    /// Sets a key for this publication, so that sending it again with the same key does not publish
    /// it twice: 1 to 255 visible ASCII characters, a UUID for example. The hub remembers the key
    /// for some minutes and does not compare the events that are sent with it.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }
}

impl Client {
    /// Publishes one event and returns when it is in the hub's log.
    ///
    /// Without an [idempotency key](Publish::idempotency_key) it is sent once: after a
    /// [transient](ClientError::is_transient) error the event may or may not have been published.
    /// With one it is sent again, after a pause, while the hub cannot be reached or cannot answer:
    /// up to four times within 30 seconds. After that the caller can retry with the same key.
    ///
    /// ```no_run
    /// use tidings_client::{Client, Publish};
    ///
    /// # async fn example() -> Result<(), tidings_client::ClientError> {
    /// let client = Client::new("http://127.0.0.1:8080", None)?;
    /// let published = client.publish("orders", "42 is paid", &Publish::new().idempotency_key("7f0c2a")).await?;
    /// println!("{:?}, sent before: {}", published.id, published.duplicate);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish(
        &self,
        topic: &str,
        data: impl Into<Bytes>,
        publish: &Publish,
    ) -> Result<Published, ClientError> {
        let request = self.publication(topic, data.into(), publish)?;
        let reply = send_publication(&self.http, request, REPLY_BYTES_MAX).await?;
        serde_json::from_slice(&reply).map_err(|_| ClientError::UnreadableReply)
    }

    fn publication(&self, topic: &str, data: Bytes, publish: &Publish) -> Result<Request, ClientError> {
        let mut url = self.topic_url(topic)?;
        let parameters = [
            ("type", publish.event_type.clone()),
            ("id", publish.id.clone()),
            ("retry", publish.retry_millis.map(|millis| millis.to_string())),
            ("private", publish.private.then(|| "true".to_owned())),
            ("except", publish.except.clone()),
            ("ephemeral", publish.ephemeral.then(|| "true".to_owned())),
        ];
        for (name, value) in parameters {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, &value);
            }
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.extend(publish.idempotency_key.as_deref().map(key_header).transpose()?);
        Ok(Request {
            method: Method::POST,
            url,
            headers,
            private_headers: self.private_headers(),
            body: Some(data),
            may_become_get: false,
        })
    }
}
