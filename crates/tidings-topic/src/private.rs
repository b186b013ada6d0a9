//! Topics whose events are always private.

use crate::{Glob, Topic, TopicGlob, Validator};

/// The private topics of a hub: the setting `private_topics`, as the hub applies it.
///
/// Exact matchers compare the bytes of a topic, URL Patterns compare the URL that it resolves to.
/// Many topics resolve to the same URL, and a subscriber with a URL Pattern receives all of them.
/// Therefore a topic is private if a glob covers any form in which a matcher compares it:
///
/// - its text as it was published, byte by byte;
/// - the URL that it resolves to, based on the URL of the hub as for URL Patterns (WHATWG URL),
///   without user and password;
/// - that URL without query and fragment, which URL Patterns ignore unless they contain them.
///
/// Each glob is compared as it is written and also resolved in the same way. A topic that is not a
/// URL is compared only by its text: no URL Pattern matches it either.
///
/// ```
/// use tidings_topic::{PrivateTopics, Validator};
///
/// let validator = Validator::default();
/// let private = PrivateTopics::new(&["https://example.com/u/*".parse()?], &validator);
/// assert!(private.covers(&validator.topic("https://EXAMPLE.com:443/x/../u/1")?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct PrivateTopics {
    /// Each glob as it is written, and its resolved form.
    globs: Vec<Glob>,
    validator: Validator,
}

impl PrivateTopics {
    /// Prepares globs for a hub with this validator.
    pub fn new(globs: &[TopicGlob], validator: &Validator) -> Self {
        let written = globs.iter().map(|glob| Glob::of_stars(glob.as_str()));
        let resolved = globs.iter().filter_map(|glob| resolved(glob.as_str(), validator));
        Self { globs: written.chain(resolved).collect(), validator: validator.clone() }
    }

    /// Whether this topic is private.
    pub fn covers(&self, topic: &Topic) -> bool {
        if self.globs.is_empty() {
            return false;
        }
        let covers = |text: &str| self.globs.iter().any(|glob| glob.matches(text));
        covers(topic.as_str())
            || self.validator.resolved(topic.as_str()).is_some_and(|url| {
                covers(&url) || url.find(['?', '#']).is_some_and(|end| covers(&url[..end]))
            })
    }

    /// Whether one of these topics is private.
    pub fn cover_any(&self, topics: &[Topic]) -> bool {
        topics.iter().any(|topic| self.covers(topic))
    }
}

/// A glob as the URL that it resolves to. The parser may add a slash after a star that ends a host
/// name, which the star already matches.
fn resolved(glob: &str, validator: &Validator) -> Option<Glob> {
    let url = validator.resolved(glob)?;
    match url.rfind('*') {
        Some(star) if glob.ends_with('*') => Some(Glob::of_stars(&url[..=star])),
        _ => Some(Glob::of_stars(&url)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HUB_URL: &str = "https://hub.example/.well-known/mercure";

    fn covers(glob: &str, topic: &str) -> bool {
        let validator = Validator::new(HUB_URL.parse().expect("a URL"));
        let private = PrivateTopics::new(&[glob.parse().expect("a glob")], &validator);
        private.covers(&Topic::new_unchecked(topic))
    }

    #[test]
    fn a_private_topic_is_private_in_every_spelling_of_its_url() {
        for topic in [
            "https://ex.com/u/1",
            "https://ex.com:443/u/1",
            "HTTPS://EX.com/u/1",
            "https://ex.com/x/../u/1",
            "https://ex.com/./u/%2e/1",
            "https://somebody:secret@ex.com/u/1",
            "https:\\\\ex.com\\u\\1",
            " https://ex.com/u/1 ",
            "https://%65x.com/u/1",
            "//ex.com/u/1",
        ] {
            for glob in [
                "https://ex.com/u/*",
                "https://EX.com:443/u/*",
                "//ex.com/u/*",
                "https://*.com/u/*",
                "https://ex.com*",
                "HTTPS://ex.com*",
            ] {
                assert!(covers(glob, topic), "{glob} {topic}");
            }
            assert!(!covers("https://ex.com/v/*", topic), "{topic}");
            assert!(!covers("http://ex.com/u/*", topic), "{topic}");
        }
    }

    #[test]
    fn a_relative_topic_is_private_in_every_spelling_of_its_url() {
        for topic in [
            "user-1",
            "./user-1",
            "a/../user-1",
            "/.well-known/user-1",
            "https://hub.example/.well-known/user-1",
            "user-1?a",
            "user-1#a",
        ] {
            for glob in [
                "user-*",
                "user-1",
                "./user-*",
                "/.well-known/user-*",
                "https://hub.example/.well-known/user-*",
            ] {
                assert!(covers(glob, topic), "{glob} {topic}");
            }
            assert!(!covers("user-2", topic) && !covers("user", topic), "{topic}");
        }
    }

    #[test]
    fn a_topic_that_is_not_a_url_is_compared_by_its_text() {
        assert!(covers("http://[bad*", "http://[bad/1"));
        assert!(!covers("http://[bad*", "http://[BAD/1"));
        assert!(covers("https://ex.com:*", "https://ex.com:port/1"));
    }

    #[test]
    fn without_globs_nothing_is_private() {
        assert!(!PrivateTopics::default().covers(&Topic::new_unchecked("chat")));
    }

    proptest! {
        /// The glob of the same text covers every topic that a URL Pattern matches.
        #[test]
        fn a_glob_covers_every_topic_that_the_same_url_pattern_matches(
            text in prop::sample::select(&["https://ex.com/u/*", "https://ex.com/u/1", "user-*", "/a/*", "http://*.ex.com/u/*"][..]),
            scheme in prop::sample::select(&["https:", "HTTPS:", "http:", "hTTp:", ""][..]),
            authority in prop::sample::select(
                &["//ex.com", "//EX.com", "//ex.com:443", "//ex.com:80", "//a:b@ex.com", "//c@a.ex.com", "\\\\ex.com", "//%65x.com", ""][..]
            ),
            path in prop::collection::vec(
                prop::sample::select(&["/u", "/a", "/1", "/..", "/.", "/%2e%2e", "\\u", "/%75", "/", "user-1", "./user-2", "../a/3"][..]),
                0..5
            ),
            rest in prop::sample::select(&["", "?", "?a=/u/1", "#", "#a", "?a#b", " "][..]),
        ) {
            let topic = format!("{scheme}{authority}{}{rest}", path.concat());
            prop_assume!(!topic.is_empty());
            let validator = Validator::new(HUB_URL.parse().expect("a URL"));
            let pattern = validator.pattern(text).expect("a URL Pattern");
            let is_received = pattern.matches(&Topic::new_unchecked(&topic));
            prop_assert!(!is_received || covers(text, &topic), "{} {}", text, topic);
        }
    }
}
