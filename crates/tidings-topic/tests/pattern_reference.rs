//! Patterns, and an index of them, match the same as the crate `urlpattern` with ordinary regular
//! expressions.

use proptest::prelude::*;
use regex::bytes::RegexBuilder;
use tidings_topic::{Matcher, Pattern, PatternIndex, PatternLimits, Topic, TopicUrls, Validator};
use url::Url;
use urlpattern::{
    UrlPatternInit, UrlPatternMatchInput, UrlPatternOptions, parser::RegexSyntax, regexp::RegExp,
};

const HUB_URL: &str = "https://hub.example/.well-known/mercure";

/// Compiles at once and without a size limit, and matches without shortcuts.
struct Reference(regex::bytes::Regex);

impl RegExp for Reference {
    fn syntax() -> RegexSyntax {
        RegexSyntax::Rust
    }

    fn parse(pattern: &str, _flags: &str, _force_eval: bool) -> Result<Self, ()> {
        RegexBuilder::new(pattern).unicode(false).build().map(Self).map_err(|_| ())
    }

    fn matches<'a>(&self, text: &'a str) -> Option<Vec<Option<&'a str>>> {
        self.0.is_match(text.as_bytes()).then(Vec::new)
    }

    fn pattern_string(&self) -> &str {
        self.0.as_str()
    }
}

fn hub_url() -> Url {
    HUB_URL.parse().expect("a URL")
}

fn reference(text: &str) -> Option<urlpattern::UrlPattern<Reference>> {
    let init = UrlPatternInit::parse_constructor_string::<Reference>(text, Some(hub_url())).ok()?;
    urlpattern::UrlPattern::parse(init, UrlPatternOptions::default()).ok()
}

fn reference_matches(pattern: &urlpattern::UrlPattern<Reference>, topic: &Topic) -> bool {
    hub_url()
        .join(topic.as_str())
        .is_ok_and(|url| pattern.test(UrlPatternMatchInput::Url(url)).expect("a URL can be matched"))
}

/// Pieces of patterns and topics that are likely to match each other.
const PIECES: &[&str] = &[
    "https://hub.example",
    "https://a.example",
    "https://a.example:8443",
    "https://user:secret@a.example",
    "http://",
    "//a.example",
    "file:///",
    "urn:",
    "data:",
    "/",
    "/a",
    "/a",
    "/b",
    "/ab",
    "a",
    "b",
    "é",
    "%C3%A9",
    "%2F",
    "..",
    "?q=1",
    "?",
    "#f",
    "-",
    ".txt",
    "12",
    " ",
];

/// Further pieces for patterns.
const PATTERN_PIECES: &[&str] = &[
    "*",
    "*",
    ":x",
    "/:x",
    "/:y",
    ":x(\\d+)",
    "/:z([a-c]+)",
    "(a|b)",
    "(.*)",
    "{/a}?",
    "{/a}*",
    "{s}?",
    "http{s}?://",
    "https://*",
    "*://*",
    ":s://:h",
    "(\\w{1,3})",
    "\\",
    "+",
    "{",
    "}",
    "(?:a)",
    "[::1]",
    "]",
];

fn topic_text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 1..6).prop_map(|pieces| pieces.concat())
}

fn pattern_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![prop::sample::select(PIECES), prop::sample::select(PATTERN_PIECES)];
    prop::collection::vec(piece, 1..7).prop_map(|pieces| pieces.concat())
}

fn topics() -> impl Strategy<Value = Vec<Topic>> {
    let texts = prop::collection::vec(topic_text(), 1..4);
    texts.prop_map(|texts| texts.iter().filter_map(|text| Topic::from_stored(text)).collect())
}

fn compiled(validator: &Validator, text: &str) -> Option<Pattern> {
    match validator.pattern(text) {
        Ok(Matcher::Pattern(pattern)) => Some(pattern),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_pattern_matches_as_the_reference_does(text in pattern_text(), topics in topics()) {
        let validator = Validator::new(hub_url());
        let Ok(matcher) = validator.pattern(&text) else {
            // A stray bracket is refused before parsing, because the parser would panic.
            prop_assert!(text.contains(']') || reference(&text).is_none(), "{} is refused", text);
            return Ok(());
        };
        if matcher == Matcher::Any {
            return Ok(());
        }
        let reference = reference(&text);
        prop_assert!(reference.is_some(), "{} is accepted", text);
        for topic in &topics {
            let expected = reference.as_ref().is_some_and(|pattern| reference_matches(pattern, topic));
            prop_assert_eq!(matcher.matches(topic), expected, "{} {}", text, topic);
        }
    }

    #[test]
    fn an_index_matches_as_each_of_its_patterns_does(
        texts in prop::collection::vec(pattern_text(), 1..30),
        taken_out in prop::collection::vec(any::<bool>(), 30),
        topics in prop::collection::vec(topics(), 1..6),
    ) {
        let validator = Validator::new(hub_url());
        let limits = PatternLimits { count_max: usize::MAX, weight_max: u32::MAX };
        let mut index = PatternIndex::default();
        let mut patterns: Vec<Pattern> = Vec::new();
        for pattern in texts.iter().filter_map(|text| compiled(&validator, text)) {
            if !patterns.contains(&pattern) {
                prop_assert_eq!(index.insert(pattern.clone(), pattern.clone(), limits), Ok(()));
                patterns.push(pattern);
            }
        }
        let mut taken_out = taken_out.into_iter();
        patterns.retain(|pattern| !taken_out.next().is_some_and(|out| out && index.remove(pattern).is_some()));
        prop_assert_eq!(index.len(), patterns.len());
        for topics in topics {
            let topics = TopicUrls::new(&topics);
            let mut found: Vec<_> = Vec::new();
            index.for_each_match(&topics, |pattern| found.push(pattern.as_str()));
            let one_by_one = patterns.iter().filter(|pattern| Matcher::Pattern((*pattern).clone()).matches_any(&topics));
            let mut expected: Vec<_> = one_by_one.map(Pattern::as_str).collect();
            found.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(found, expected, "{:?}", topics);
        }
    }
}
