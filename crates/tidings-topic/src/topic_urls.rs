//! The topics of one event, each parsed as a URL at most once.

use std::{borrow::Cow, cell::OnceCell, sync::Arc};

use url::Url;

use crate::{
    Topic,
    pattern::{Pattern, same_url},
};

/// The topics of one event while they are compared with many matchers. The first pattern parses
/// their URLs for all others.
#[derive(Debug)]
pub struct TopicUrls<'t> {
    topics: &'t [Topic],
    urls: OnceCell<(Arc<Url>, Urls)>,
}

/// The URL of each topic, if it is one.
type Urls = Vec<Option<Url>>;

impl<'t> TopicUrls<'t> {
    /// Wraps the topics without parsing them.
    pub fn new(topics: &'t [Topic]) -> Self {
        Self { topics, urls: OnceCell::new() }
    }

    /// The topics as they were published.
    pub fn topics(&self) -> &'t [Topic] {
        self.topics
    }

    /// Whether one of the topics matches.
    ///
    /// The Mercure protocol, "Topic matchers": a relative topic is resolved against the URL of the
    /// hub; a topic that is not a URL matches no URL Pattern.
    pub(crate) fn match_pattern(&self, pattern: &Pattern) -> bool {
        match pattern.hub_url() {
            Some(hub_url) => self.based_on(hub_url).iter().flatten().any(|url| pattern.matches_url(url)),
            None => self.topics.iter().any(|topic| pattern.matches_text(topic.as_str())),
        }
    }

    /// The URLs of the topics, based on a hub URL. URLs for a second hub URL, which is rare, are
    /// not cached.
    pub(crate) fn based_on(&self, hub_url: &Arc<Url>) -> Cow<'_, Urls> {
        let resolve = || self.topics.iter().map(|topic| hub_url.join(topic.as_str()).ok()).collect();
        let (base, urls) = self.urls.get_or_init(|| (Arc::clone(hub_url), resolve()));
        if same_url(base, hub_url) { Cow::Borrowed(urls) } else { Cow::Owned(resolve()) }
    }
}
