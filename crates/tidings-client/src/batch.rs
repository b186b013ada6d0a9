//! Publishing several events in one request.

use bytes::Bytes;
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde::{Deserialize, Serialize};

use crate::{
    Client, ClientError, Publish, Published,
    http::Request,
    publication::{key_header, send_publication},
};

/// How much of a reply is read: 3,000 receipts with ids of the maximum length of 1,024 bytes.
const REPLY_BYTES_MAX: usize = 4 << 20;

/// Events that are published together, in their order: all of them or none.
///
/// A hub accepts 1,000 events and 1 MiB at a time by default.
///
/// ```
/// use tidings_client::{Batch, Publish};
///
/// let mut batch = Batch::new().idempotency_key("7f0c2a");
/// batch.event("orders", "42 is paid", &Publish::new().event_type("paid"))?;
/// batch.json(r#"{"topics":["orders","user-7"],"data":{"paid":42},"private":true}"#)?;
/// assert_eq!(batch.len(), 2);
/// # Ok::<(), tidings_client::ClientError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// One JSON object per line, as `POST /topics` takes them.
    lines: Vec<u8>,
    events: usize,
    idempotency_key: Option<String>,
}

/// One event of a batch.
#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    data: &'a str,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    event_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    private: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    except: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ephemeral: bool,
}

impl Batch {
    /// A batch without events.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event. Fails if its options contain an idempotency key, which belongs to the
    /// [batch](Self::idempotency_key).
    pub fn event(&mut self, topic: &str, data: &str, publish: &Publish) -> Result<(), ClientError> {
        if publish.idempotency_key.is_some() {
            return Err(ClientError::Request(
                "an event of a batch cannot have an idempotency key: give it to the batch".to_owned(),
            ));
        }
        let line = Line {
            topic,
            data,
            event_type: publish.event_type.as_deref(),
            id: publish.id.as_deref(),
            retry: publish.retry_millis,
            private: publish.private,
            except: publish.except.as_deref(),
            ephemeral: publish.ephemeral,
        };
        serde_json::to_writer(&mut self.lines, &line).expect("strings and numbers are always JSON");
        self.end_line();
        Ok(())
    }

    /// Adds an event that is JSON already, in the form that `POST /topics` takes, which the hub
    /// checks. Fails if it contains a line feed or nothing but white space: it would not be one
    /// event.
    pub fn json(&mut self, event: &str) -> Result<(), ClientError> {
        if event.contains('\n') || event.trim_ascii().is_empty() {
            return Err(ClientError::Request(
                "an event of a batch is one line of JSON, without line feeds".to_owned(),
            ));
        }
        self.lines.extend_from_slice(event.as_bytes());
        self.end_line();
        Ok(())
    }

    fn end_line(&mut self) {
        self.lines.push(b'\n');
        self.events += 1;
    }

    /// Sets a key for this batch, as [`Publish::idempotency_key`] does for an event. A batch of
    /// ephemeral events alone cannot have one.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// The number of events.
    pub fn len(&self) -> usize {
        self.events
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }
}

impl Client {
    /// Publishes the events of a batch and returns when they are in the hub's log. A batch without
    /// events is not sent.
    ///
    /// There is one answer for each event, in their order. For a batch that had been published
    /// before with the same key there is only that of its first event, which says so: the hub
    /// remembers no more.
    ///
    /// It is repeated as [`Client::publish`] repeats an event. After an error that is not
    /// [transient](ClientError::is_transient), none of the events was published.
    ///
    /// ```no_run
    /// use tidings_client::{Batch, Client, Publish};
    ///
    /// # async fn example() -> Result<(), tidings_client::ClientError> {
    /// let client = Client::new("http://127.0.0.1:8080", None)?;
    /// let mut batch = Batch::new();
    /// for line in ["one", "two"] {
    ///     batch.event("log", line, &Publish::new())?;
    /// }
    /// assert_eq!(client.publish_batch(&batch).await?.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_batch(&self, batch: &Batch) -> Result<Vec<Published>, ClientError> {
        #[derive(Deserialize)]
        struct Reply {
            events: Vec<Published>,
        }
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        headers.extend(batch.idempotency_key.as_deref().map(key_header).transpose()?);
        let request = Request {
            method: Method::POST,
            url: self.topics_url(),
            headers,
            private_headers: self.private_headers(),
            body: Some(Bytes::copy_from_slice(&batch.lines)),
            may_become_get: false,
        };
        let reply = send_publication(&self.http, request, REPLY_BYTES_MAX).await?;
        let reply: Reply = serde_json::from_slice(&reply).map_err(|_| ClientError::UnreadableReply)?;
        Ok(reply.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_one_line() {
        let mut batch = Batch::new();
        assert!(batch.is_empty());
        batch.event("a", "one\ntwo \"é\"", &Publish::new()).unwrap();
        let options = Publish::new().event_type("t").id("i").retry_millis(5).private().except("c");
        batch.event("b", "", &options).unwrap();
        batch.event("c", "3", &Publish::new().ephemeral()).unwrap();
        batch.json(r#"{"topic":"d","data":4}"#).unwrap();
        assert_eq!(batch.len(), 4);
        let lines = [
            r#"{"topic":"a","data":"one\ntwo \"é\""}"#,
            r#"{"topic":"b","data":"","type":"t","id":"i","retry":5,"private":true,"except":"c"}"#,
            r#"{"topic":"c","data":"3","ephemeral":true}"#,
            r#"{"topic":"d","data":4}"#,
        ];
        assert_eq!(
            std::str::from_utf8(&batch.lines).unwrap(),
            lines.map(|line| format!("{line}\n")).concat()
        );
    }

    #[test]
    fn what_is_not_one_event_is_refused() {
        let mut batch = Batch::new();
        for text in ["", " \r", "{}\n{}"] {
            assert!(matches!(batch.json(text), Err(ClientError::Request(_))), "{text:?}");
        }
        let keyed = Publish::new().idempotency_key("k");
        assert!(matches!(batch.event("a", "b", &keyed), Err(ClientError::Request(_))));
        assert!(batch.is_empty());
    }
}
