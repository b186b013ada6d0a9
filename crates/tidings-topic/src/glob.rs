//! Topic globs in the configuration: `user-*`.

mod pattern;

use std::{fmt, str::FromStr};

pub use self::pattern::Glob;
use crate::Topic;

/// A set of topics in a setting, as in `private_topics = ["user-*"]`. `*` matches any run of
/// characters, even an empty one, at any place; every other character matches itself. A glob is
/// compared with the text of a topic; [`PrivateTopics`](crate::PrivateTopics) also compares it with
/// the URL that the topic resolves to.
///
/// Subscribers never send globs: matchers on the wire are exact topics or URL Patterns. URL
/// Patterns are unsuitable here because they match only topics that resolve to a URL, and the
/// meaning of `*` depends on the URL component. A setting for privacy must not depend on that.
///
/// ```
/// use tidings_topic::{TopicGlob, Validator};
///
/// let private: TopicGlob = "user-*".parse()?;
/// assert!(private.matches(&Validator::default().topic("user-42")?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TopicGlob(Glob);

/// The text is not a topic glob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseTopicGlobError {
    /// The text is empty.
    #[error("is empty: use a topic, or a glob such as `user-*`")]
    Empty,
    /// The text is longer than [`TopicGlob::BYTES_MAX`].
    #[error("has more than {} bytes", TopicGlob::BYTES_MAX)]
    TooLong,
    /// The text contains a control character. No topic does, so the glob would match nothing.
    #[error("contains a control character, which no topic does")]
    Control,
}

impl TopicGlob {
    /// The longest text, in bytes.
    pub const BYTES_MAX: usize = 1024;

    /// Whether the glob matches this topic.
    pub fn matches(&self, topic: &Topic) -> bool {
        self.0.matches(topic.as_str())
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for TopicGlob {
    type Err = ParseTopicGlobError;

    fn from_str(text: &str) -> Result<Self, ParseTopicGlobError> {
        if text.is_empty() {
            return Err(ParseTopicGlobError::Empty);
        }
        if text.len() > Self::BYTES_MAX {
            return Err(ParseTopicGlobError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(ParseTopicGlobError::Control);
        }
        Ok(Self(Glob::of_stars(text)))
    }
}

impl fmt::Display for TopicGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TopicGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicGlob({:?})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn meant(glob: &str, topic: &str) -> bool {
        glob.parse::<TopicGlob>().unwrap().matches(&Topic::new_unchecked(topic))
    }

    #[test]
    fn a_glob_without_a_star_matches_only_itself() {
        assert!(meant("chat", "chat"));
        assert!(!meant("chat", "chats"));
        assert!(!meant("chat", "Chat"));
    }

    #[test]
    fn a_star_matches_any_run_of_characters_at_any_place() {
        assert!(meant("user-*", "user-42"));
        assert!(meant("user-*", "user-"));
        assert!(meant("user-*", "user-a/b?c#d é"));
        assert!(!meant("user-*", "users-42"));
        assert!(meant("*-private", "room-private"));
        assert!(!meant("*-private", "room-private-not"));
        assert!(meant("user-*-inbox", "user-42-inbox"));
        assert!(!meant("user-*-inbox", "user-inbox"));
        assert!(meant("a*b*c", "a-b-b-c"));
        assert!(!meant("a*b*c", "a-c-b"));
        assert!(meant("*", "anything"));
        assert!(meant("a**b", "ab"));
    }

    #[test]
    fn prefix_and_suffix_do_not_overlap() {
        assert!(!meant("aa*aa", "aaa"));
        assert!(meant("aa*aa", "aaaa"));
        assert!(!meant("a*a*a", "aa"));
    }

    #[test]
    fn a_glob_that_can_match_nothing_is_refused() {
        assert_eq!("".parse::<TopicGlob>(), Err(ParseTopicGlobError::Empty));
        assert_eq!("a\nb".parse::<TopicGlob>(), Err(ParseTopicGlobError::Control));
        let longest = "a".repeat(TopicGlob::BYTES_MAX);
        assert!(longest.parse::<TopicGlob>().is_ok());
        assert_eq!((longest + "a").parse::<TopicGlob>(), Err(ParseTopicGlobError::TooLong));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_regular_expression(glob in "[ab*é]{1,8}", topic in "[abé]{1,12}") {
            let expression = glob.split('*').map(regex::escape).collect::<Vec<_>>().join(".*");
            let expected = regex::Regex::new(&format!("^(?:{expression})$")).unwrap().is_match(&topic);
            prop_assert_eq!(meant(&glob, &topic), expected);
        }
    }
}
