//! Retention rules by topic.

use std::time::Duration;

use tidings_topic::{Matcher, Topic, TopicUrls};

/// How long events that one matcher matches are kept, in addition to the limits of the whole log.
///
/// The first rule that matches **any** topic of an event applies to it, and no other rule does.
/// Events that no rule matches are subject only to the limits of the log. A limit applies to all
/// events under the rule together: with the pattern `/rooms/:room`, `count_max` counts the events
/// of all rooms; with an exact topic, those of that topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetentionRule {
    /// Which events the rule applies to: one topic, a URL Pattern, or `*`.
    pub matcher: Matcher,
    /// Greatest age of an event by the clock.
    pub age_max: Option<Duration>,
    /// Most bytes of events, measured as the log measures its own limit.
    pub bytes_max: Option<u64>,
    /// Most events.
    pub count_max: Option<u64>,
}

impl RetentionRule {
    /// Most rules of one log.
    pub const COUNT_MAX: usize = 100;

    /// The rule that applies to an event with these topics.
    pub(crate) fn of(rules: &[Self], topics: &[Topic]) -> Option<usize> {
        let topics = TopicUrls::new(topics);
        rules.iter().position(|rule| rule.matcher.matches_any(&topics))
    }
}
