//! What a subscriber requests.

use std::{sync::Arc, time::Duration};

use tidings_topic::{Filter, Grants, Matcher, ParseSinceError, Since, Until};

use crate::{edits::EditProof, error::Error, feed::encode::Format, hub::Hub, presence::Payloads};

/// A request to subscribe: topics and patterns as text, where to start, and which private events
/// may be received. [`Hub::subscribe`] and [`Hub::listen`] check it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tidings::Error> {
/// use tidings::{Hub, Since, Subscribe};
///
/// let hub = Hub::in_memory().await;
/// let request = Subscribe::topics(["news", "user-42"])
///     .since(Since::Last(20))
///     .topic_since("typing", Since::Now)
///     .grant(["user-42"]);
/// let subscription = hub.subscribe(request).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Subscribe {
    wanted: Vec<Wanted>,
    grants: Grants,
    /// Topics to be added to the grants.
    granted: Vec<String>,
    pub(crate) since: Since,
    pub(crate) until: Option<Until>,
    pub(crate) format: Format,
    pub(crate) hello: bool,
    /// What proves a request to change the topics, and the secret that `hello` contains for it.
    pub(crate) editable: Option<(EditProof, Option<String>)>,
    pub(crate) label: Option<String>,
    pub(crate) payloads: Option<Payloads>,
    pub(crate) expires_in: Option<Duration>,
    pub(crate) lifetime_max: Option<Duration>,
    /// A request to resume that could not be parsed: [`Hub::subscribe`] refuses it.
    pub(crate) misread: Option<ParseSinceError>,
}

/// A topic or pattern, and where it starts, if not where the others do.
#[derive(Clone, Debug)]
struct Wanted {
    what: Text,
    since: Option<Since>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Text {
    Topic(String),
    Pattern(String),
    Matcher(Matcher),
}

/// A request whose texts are valid.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) filter: Arc<Filter>,
    /// Matchers with the same start, in the order of the request; together they are the filter.
    pub(crate) starts: Vec<(Since, Arc<Filter>)>,
}

impl Subscribe {
    /// A subscription to these topics, with public events that are published from now on. The topic
    /// `*` stands for all topics.
    pub fn topics(topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        topics
            .into_iter()
            .fold(Self::default(), |request, topic| request.wants(Text::Topic(topic.into()), None))
    }

    /// The same, for matchers that were made before.
    #[doc(hidden)]
    pub fn new(matchers: impl IntoIterator<Item = Matcher>) -> Self {
        matchers
            .into_iter()
            .fold(Self::default(), |request, matcher| request.wants(Text::Matcher(matcher), None))
    }

    /// Adds the topics that this [URL Pattern](https://urlpattern.spec.whatwg.org) matches, such as
    /// `/users/:id`.
    #[must_use]
    pub fn pattern(self, pattern: impl Into<String>) -> Self {
        self.wants(Text::Pattern(pattern.into()), None)
    }

    /// Adds a topic that starts elsewhere than the others: the last messages of one topic, and of
    /// another only what is published from now on.
    ///
    /// A subscription that [resumes](Self::resume) after an id continues all its topics there.
    /// Any start is possible but an id.
    #[must_use]
    pub fn topic_since(self, topic: impl Into<String>, since: Since) -> Self {
        self.wants(Text::Topic(topic.into()), Some(since))
    }

    /// Adds a pattern that starts elsewhere than the others; see [`topic_since`](Self::topic_since).
    #[must_use]
    pub fn pattern_since(self, pattern: impl Into<String>, since: Since) -> Self {
        self.wants(Text::Pattern(pattern.into()), Some(since))
    }

    /// The same, for a matcher that was made before.
    #[doc(hidden)]
    #[must_use]
    pub fn matcher_since(self, matcher: Matcher, since: Since) -> Self {
        self.wants(Text::Matcher(matcher), Some(since))
    }

    fn wants(mut self, what: Text, since: Option<Since>) -> Self {
        match self.wanted.iter_mut().find(|wanted| wanted.what == what) {
            Some(known) => known.since = since.or(known.since.take()),
            None => self.wanted.push(Wanted { what, since }),
        }
        self
    }

    /// Where to start; by default with events that are published from now on.
    #[must_use]
    pub fn since(mut self, since: Since) -> Self {
        self.since = since;
        self
    }

    /// Where to end: the subscription then is a finite read. It ends, after a notice of kind `end`
    /// with the id of its end, when everything from its start to there has been sent; nothing is
    /// received live, and [`Hub::presence`] does not count it.
    ///
    /// An end before the start is a read without events. An id that the hub does not know is
    /// [`Error::UntilUnknown`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tidings::Error> {
    /// use futures_util::StreamExt;
    /// use tidings::{Hub, NewEvent, Since, Subscribe, Until};
    ///
    /// let hub = Hub::in_memory().await;
    /// hub.publish(NewEvent::new("chat", "hello")).await?;
    /// let request = Subscribe::topics(["chat"]).since(Since::Earliest).until(Until::Now);
    /// let subscription = hub.subscribe(request).await?;
    /// let end = subscription.end().expect("it is finite");
    /// let read: Vec<_> = subscription.collect().await;
    /// assert_eq!(read.len(), 3, "the preface, the event and the notice");
    /// let next = Subscribe::topics(["chat"]).since(Since::Id(end.to_string())).until(Until::Now);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn until(mut self, until: Until) -> Self {
        self.until = Some(until);
        self
    }

    /// Private events on these topics may be received, in addition to those that were granted
    /// before; `*` stands for all topics. A grant alone does not subscribe.
    #[must_use]
    pub fn grant(mut self, topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.granted.extend(topics.into_iter().map(Into::into));
        self
    }

    /// Which private events may be received, as matchers.
    #[doc(hidden)]
    #[must_use]
    pub fn grants(mut self, grants: Grants) -> Self {
        self.grants = grants;
        self
    }

    /// How events are written.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Begins with a notice of kind `hello` that names the connection, which the client can send
    /// along when it publishes ([`NewEvent::except`](crate::NewEvent::except)).
    #[must_use]
    pub fn hello(mut self, hello: bool) -> Self {
        self.hello = hello;
        self
    }

    /// The topics can be changed with this proof while the stream is open
    /// ([`Hub::edit`](crate::Hub::edit)), unless it is a finite read. The notice of kind `hello`
    /// contains the secret, if the proof is of one.
    #[doc(hidden)]
    #[must_use]
    pub fn editable(mut self, proof: EditProof, secret: Option<String>) -> Self {
        self.editable = Some((proof, secret));
        self
    }

    /// A name for this subscriber, such as that of its user, for [`Hub::presence`].
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// What the credential says about the subscriptions, for [`Hub::presence`].
    #[doc(hidden)]
    #[must_use]
    pub fn payloads(mut self, payloads: Payloads) -> Self {
        self.payloads = Some(payloads);
        self
    }

    /// Ends the stream after this time, because the credential expires then.
    #[must_use]
    pub fn expires_in(mut self, expires_in: Duration) -> Self {
        self.expires_in = Some(expires_in);
        self
    }

    /// Ends the stream with a `reconnect` notice when it is older than this, jittered by up to a
    /// quarter downwards, unless
    /// [`HubBuilder::lifetime_max`](crate::HubBuilder::lifetime_max) ends it earlier.
    #[must_use]
    pub fn lifetime_max(mut self, lifetime: Duration) -> Self {
        self.lifetime_max = Some(lifetime);
        self
    }

    /// Makes matchers of the texts.
    pub(crate) async fn check(&mut self, hub: &Hub) -> Result<Checked, Error> {
        let validator = hub.validator();
        if let Some(error) = self.misread {
            return Err(error.into());
        }
        if self.wanted.is_empty() {
            return Err(Error::NoTopics);
        }
        // Counted before anything is compiled.
        validator.matchers_count(self.wanted.len())?;
        let mut grants = std::mem::take(&mut self.grants);
        if !self.granted.is_empty() {
            let granted = self.granted.iter().map(|topic| validator.exact(topic));
            let granted = granted.collect::<Result<Vec<_>, _>>()?;
            grants = grants.matchers().iter().cloned().chain(granted).collect();
        }
        let with = |matchers| Arc::new(Filter { matchers, grants: grants.clone() });
        let mut starts: Vec<(Since, bool, Vec<Matcher>)> = Vec::new();
        let mut matchers = Vec::new();
        for Wanted { what, since } in std::mem::take(&mut self.wanted) {
            let matcher = match what {
                Text::Topic(topic) => validator.exact(&topic)?,
                Text::Pattern(pattern) => hub.pattern(&pattern).await?,
                Text::Matcher(matcher) => matcher,
            };
            // An id is where everything continues.
            let own = since.filter(|_| !matches!(self.since, Since::Id(_)));
            if matches!(own, Some(Since::Id(_))) {
                return Err(Error::TopicSinceId);
            }
            // The last events of a topic are counted for it alone.
            let alone = matches!(own, Some(Since::Last(_)));
            let since = own.unwrap_or_else(|| self.since.clone());
            matchers.push(matcher.clone());
            match starts.iter_mut().find(|(known, other, _)| !alone && !*other && *known == since) {
                Some((_, _, group)) => group.push(matcher),
                None => starts.push((since, alone, vec![matcher])),
            }
        }
        let starts = starts.into_iter().map(|(since, _, matchers)| (since, with(matchers))).collect();
        Ok(Checked { filter: with(matchers), starts })
    }
}

/// A subscription to one topic.
impl From<&str> for Subscribe {
    fn from(topic: &str) -> Self {
        Self::topics([topic])
    }
}

/// A subscription to one topic.
impl From<String> for Subscribe {
    fn from(topic: String) -> Self {
        Self::topics([topic])
    }
}

#[doc(hidden)]
impl From<Filter> for Subscribe {
    fn from(filter: Filter) -> Self {
        Self::new(filter.matchers).grants(filter.grants)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_requested_twice_counts_once() {
        let hub = Hub::in_memory().await;
        let chat = hub.validator().exact("chat").expect("a topic");
        let mut request = Subscribe::new([chat.clone(), chat.clone()]);
        assert_eq!(request.check(&hub).await.expect("valid").filter.matchers, [chat]);
        let mut request =
            Subscribe::topics(["chat", "typing", "chat"]).topic_since("typing", Since::Earliest);
        let checked = request.check(&hub).await.expect("valid");
        assert_eq!(checked.filter.matchers.len(), 2);
        assert_eq!(checked.starts[1].0, Since::Earliest);
    }

    #[tokio::test]
    async fn an_id_is_the_start_of_every_topic() {
        let hub = Hub::in_memory().await;
        let id = Since::Id("order-1".to_owned());
        let mut request = Subscribe::topics(["chat"]).topic_since("typing", Since::Now).since(id.clone());
        let checked = request.check(&hub).await.expect("valid");
        assert_eq!(checked.starts.len(), 1);
        assert_eq!(checked.starts[0].0, id);
    }
}
