//! What to subscribe to at a hub.

use crate::{Client, ClientError, EventSource, Subscription};

/// What to subscribe to. Without topics and patterns the hub decides, as configured with `tidings
/// serve --stream`.
///
/// ```
/// use tidings_client::Subscribe;
///
/// // The last fifty messages of a room and everything that follows, and all alerts from now on.
/// let room = Subscribe::new().topic("rooms/7").since("-50");
/// let alerts = Subscribe::new().pattern("/alerts/:severity").json();
/// ```
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
    /// Subscribes. Nothing is sent before the stream is polled.
    pub fn subscribe(&self, subscribe: &Subscribe) -> Result<Subscription, ClientError> {
        self.event_source(subscribe).open()
    }

    /// The stream of a subscription before it is opened, for settings that [`EventSource`] has.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use tidings_client::{Client, Subscribe};
    ///
    /// # fn example() -> Result<(), tidings_client::ClientError> {
    /// let client = Client::new("http://127.0.0.1:8080", None)?;
    /// let chat = client
    ///     .event_source(&Subscribe::new().topic("chat"))
    ///     .idle_timeout(Duration::from_secs(20))
    ///     .event_bytes_max(64 * 1024)
    ///     .open()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn event_source(&self, subscribe: &Subscribe) -> EventSource {
        let mut url = self.stream_url();
        // The hub's hello notice has an id. Without it, events published between a subscription
        // from now on and a disconnect before its first event would be lost.
        url.query_pairs_mut().extend_pairs(&subscribe.parameters).append_pair("hello", "true");
        let source =
            EventSource::at_hub(self.http.clone(), url.into()).last_event_id(&subscribe.last_event_id);
        match &self.token {
            Some(token) => source.token(token.clone()),
            None => source,
        }
    }
}
