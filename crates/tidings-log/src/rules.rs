//! Retention that depends on the topic.

use std::time::Duration;

use tidings_topic::{Matcher, Topic, TopicUrls};

/// How long the events are kept that one matcher means, in addition to what holds for the whole log.
///
/// An event falls under the first rule that matches **any** of its topics, and under no other; what no rule matches is kept as long as the log
/// keeps anything. The bounds hold for everything together that falls under the rule: `count_max` of the pattern `/rooms/:room` is the number of
/// events of all rooms, that of an exact topic the number of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetentionRule {
    /// Which events it is about: one topic, a URL Pattern, or `*`.
    pub matcher: Matcher,
    /// Greatest age of an event by the clock.
    pub age_max: Option<Duration>,
    /// Most bytes of events, measured as the log measures its own bound.
    pub bytes_max: Option<u64>,
    /// Most events.
    pub count_max: Option<u64>,
}

impl RetentionRule {
    /// Most rules of one log.
    pub const COUNT_MAX: usize = 100;

    /// The rule that an event with these topics falls under.
    pub(crate) fn of(rules: &[Self], topics: &[Topic]) -> Option<usize> {
        let topics = TopicUrls::new(topics);
        rules.iter().position(|rule| rule.matcher.matches_any(&topics))
    }
}
