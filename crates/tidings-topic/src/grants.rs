//! Grants of a credential and filters of a subscription.

use std::{
    slice,
    sync::{Arc, LazyLock},
};

use crate::{Event, Matcher, Topic, TopicUrls};

/// The topics that a credential covers. Empty by default: no permission. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Grants(Option<Arc<[Matcher]>>);

impl Grants {
    /// No permission for any topic.
    pub const NONE: Self = Self(None);

    /// Every topic.
    pub fn all() -> Self {
        static ALL: LazyLock<Grants> = LazyLock::new(|| Grants::from_iter([Matcher::Any]));
        ALL.clone()
    }

    /// Whether this covers every possible topic, by `*`.
    pub fn is_all(&self) -> bool {
        self.matchers().contains(&Matcher::Any)
    }

    /// Whether no topic is covered.
    pub fn is_empty(&self) -> bool {
        self.matchers().is_empty()
    }

    /// The matchers. A topic is covered if one of them matches it.
    pub fn matchers(&self) -> &[Matcher] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether this topic is covered.
    pub fn covers(&self, topic: &Topic) -> bool {
        self.cover_any(slice::from_ref(topic))
    }

    /// Whether at least one topic is covered: the permission to receive a private event (Mercure
    /// protocol).
    pub fn cover_any(&self, topics: &[Topic]) -> bool {
        self.cover_any_of(&TopicUrls::new(topics))
    }

    fn cover_any_of(&self, topics: &TopicUrls<'_>) -> bool {
        self.matchers().iter().any(|matcher| matcher.matches_any(topics))
    }

    /// The maximum cost of checking one topic; see
    /// [`Pattern::weight`](crate::Pattern::weight).
    pub fn weight(&self) -> u32 {
        weight_of(self.matchers())
    }

    /// Whether every topic is covered: the permission to publish (Mercure protocol).
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
    /// The requested matchers; one match is enough (Mercure protocol).
    pub matchers: Vec<Matcher>,
    /// The grants, which decide which private events may be received.
    pub grants: Grants,
}

impl Filter {
    /// A filter that accepts every public event.
    pub fn everything_public() -> Self {
        Self { matchers: vec![Matcher::Any], grants: Grants::NONE }
    }

    /// Whether a matcher matches the event and the grants allow it.
    pub fn accepts(&self, event: &Event) -> bool {
        self.accepts_topics(&event.topics, event.private)
    }

    /// As [`accepts`](Self::accepts), for an event of which only the topics and the privacy are
    /// still known.
    pub fn accepts_topics(&self, topics: &[Topic], private: bool) -> bool {
        let topics = TopicUrls::new(topics);
        self.routes(&topics) && (!private || self.grants.cover_any_of(&topics))
    }

    /// Whether a matcher matches, regardless of the grants.
    fn routes(&self, topics: &TopicUrls<'_>) -> bool {
        self.matchers.iter().any(|matcher| matcher.matches_any(topics))
    }

    /// The maximum cost of checking one topic; see
    /// [`Pattern::weight`](crate::Pattern::weight).
    pub fn weight(&self) -> u32 {
        weight_of(&self.matchers).saturating_add(self.grants.weight())
    }
}

fn weight_of(matchers: &[Matcher]) -> u32 {
    matchers.iter().map(Matcher::weight).fold(0, u32::saturating_add)
}
