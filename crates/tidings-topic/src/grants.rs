//! What a credential allows, and what one subscription receives.

use std::{
    slice,
    sync::{Arc, LazyLock},
};

use crate::{Event, Matcher, Topic, TopicUrls};

/// The topics that a credential covers. Empty by default: no right. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Grants(Option<Arc<[Matcher]>>);

impl Grants {
    /// No right on anything.
    pub const NONE: Self = Self(None);

    /// Every topic.
    pub fn all() -> Self {
        static ALL: LazyLock<Grants> = LazyLock::new(|| Grants::from_iter([Matcher::Any]));
        ALL.clone()
    }

    /// Whether this covers every topic there can be, by way of `*`.
    pub fn is_all(&self) -> bool {
        self.matchers().contains(&Matcher::Any)
    }

    /// Whether nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.matchers().is_empty()
    }

    /// The matchers of which one has to match.
    pub fn matchers(&self) -> &[Matcher] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether this topic is covered.
    pub fn covers(&self, topic: &Topic) -> bool {
        self.cover_any(slice::from_ref(topic))
    }

    /// Whether at least one topic is covered: the right to receive a private event (Mercure protocol).
    pub fn cover_any(&self, topics: &[Topic]) -> bool {
        self.cover_any_of(&TopicUrls::new(topics))
    }

    fn cover_any_of(&self, topics: &TopicUrls<'_>) -> bool {
        self.matchers().iter().any(|matcher| matcher.matches_any(topics))
    }

    /// The work that judging one topic can take, see [`UrlPattern::weight`](crate::UrlPattern::weight).
    pub fn weight(&self) -> u32 {
        weight_of(self.matchers())
    }

    /// Whether every topic is covered: the right to publish (Mercure protocol).
    pub fn cover_all(&self, topics: &[Topic]) -> bool {
        topics.iter().all(|topic| self.covers(topic))
    }
}

impl FromIterator<Matcher> for Grants {
    fn from_iter<I: IntoIterator<Item = Matcher>>(matchers: I) -> Self {
        let matchers: Arc<[Matcher]> = matchers.into_iter().collect();
        Self((!matchers.is_empty()).then_some(matchers))
    }
}

/// What one subscription receives: events that a matcher matches and that the grants allow.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Filter {
    /// What was asked for; one match is enough (Mercure protocol).
    pub matchers: Vec<Matcher>,
    /// What private events may be received.
    pub grants: Grants,
}

impl Filter {
    /// Everything that is public.
    pub fn everything_public() -> Self {
        Self { matchers: vec![Matcher::Any], grants: Grants::NONE }
    }

    /// Whether the event was asked for and may be received.
    pub fn accepts(&self, event: &Event) -> bool {
        self.accepts_topics(&event.topics, event.private)
    }

    /// As [`accepts`](Self::accepts), for an event of which only the topics and the privacy are known any more.
    pub fn accepts_topics(&self, topics: &[Topic], private: bool) -> bool {
        let topics = TopicUrls::new(topics);
        self.routes(&topics) && (!private || self.grants.cover_any_of(&topics))
    }

    /// Whether a matcher matches, whatever the grants say.
    fn routes(&self, topics: &TopicUrls<'_>) -> bool {
        self.matchers.iter().any(|matcher| matcher.matches_any(topics))
    }

    /// The work that judging one topic can take, see [`UrlPattern::weight`](crate::UrlPattern::weight).
    pub fn weight(&self) -> u32 {
        weight_of(&self.matchers).saturating_add(self.grants.weight())
    }
}

fn weight_of(matchers: &[Matcher]) -> u32 {
    matchers.iter().map(Matcher::weight).fold(0, u32::saturating_add)
}
