//! What a hub has on a topic, and its deletion.

use std::time::Duration;

use reqwest::{
    Method,
    header::{ACCEPT, HeaderMap, HeaderValue},
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::{
    Client, ClientError,
    http::{REPLY_BYTES_MAX, Request, read_all},
};

/// How long a request about a topic may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a summary is read: the 50 events that a hub puts into one, of 1 MiB each.
const SUMMARY_BYTES_MAX: usize = 64 << 20;

/// What a deletion did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Deletion {
    /// How many events were deleted.
    pub deleted: u64,
    /// How many events of the topic stay, because the credential does not cover all of their topics.
    pub kept: u64,
}

/// A topic at one moment, as far as this client may know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TopicSummary {
    /// The topic.
    pub topic: String,
    /// How many streams of the hub an event on this topic reaches. None if the credential does not
    /// cover the topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribers: Option<usize>,
    /// The id of the newest event.
    pub newest: Option<String>,
    /// A subscription [since](crate::Subscribe::since) this cursor receives exactly what was
    /// published after the summary.
    pub cursor: String,
    /// The newest events, oldest first.
    pub events: Vec<StoredEvent>,
}

/// An event in a [summary](TopicSummary).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoredEvent {
    /// The first of its topics.
    pub topic: String,
    /// Its id.
    pub id: String,
    /// Its type; `message` for an event without one.
    #[serde(rename = "type")]
    pub event_type: String,
    /// When it was published: RFC 3339, in UTC.
    pub time: String,
    /// Its data.
    pub data: String,
}

impl Client {
    /// The newest events of a topic, and its subscribers.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), tidings_client::ClientError> {
    /// let client = tidings_client::Client::new("http://127.0.0.1:8080", None)?;
    /// for event in client.topic("chat").await?.events {
    ///     println!("{} {}", event.time, event.data);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn topic(&self, topic: &str) -> Result<TopicSummary, ClientError> {
        self.ask(Method::GET, topic, SUMMARY_BYTES_MAX).await
    }

    /// Deletes every event of a topic that the credential covers. A topic without events is no
    /// error, so a deletion can be repeated.
    pub async fn delete(&self, topic: &str) -> Result<Deletion, ClientError> {
        self.ask(Method::DELETE, topic, REPLY_BYTES_MAX).await
    }

    async fn ask<T: for<'a> Deserialize<'a>>(
        &self,
        method: Method,
        topic: &str,
        reply_bytes_max: usize,
    ) -> Result<T, ClientError> {
        let request = Request {
            may_become_get: method == Method::GET,
            method,
            url: self.topic_url(topic)?,
            headers: HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]),
            private_headers: self.private_headers(),
            body: None,
        };
        let answer = async {
            let response = self.http.send(request).await?;
            let reply = read_all(response, reply_bytes_max).await;
            reply.and_then(|reply| serde_json::from_slice(&reply).ok()).ok_or(ClientError::UnreadableReply)
        };
        timeout(REQUEST_TIMEOUT, answer).await.unwrap_or(Err(ClientError::Silent(REQUEST_TIMEOUT)))
    }
}
