//! Compiling and matching any pattern ends with a result, never with a panic.

use proptest::prelude::*;
use tidings_topic::Validator;

/// Pieces of patterns, unusual ones included.
const PIECES: &[&str] = &[
    "https:",
    "http:",
    "ws:",
    "data:",
    "urn:",
    "//",
    "/",
    "\\",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    ":",
    ":name",
    "::1",
    "?",
    "*",
    "+",
    "#",
    "@",
    "!",
    ".",
    "..",
    "%2e",
    "%",
    "-",
    "|",
    "^",
    "$",
    "&",
    "=",
    "~",
    "`",
    "\"",
    "<",
    ">",
    "0",
    "80",
    "a",
    "b",
    "Z",
    "_",
    "é",
    "日本",
    "😀",
    "(?:",
    "(?i)",
    "[^/]",
    "\\d",
    "\\pL",
    "{2}",
    "{1000}",
    " ",
    "example.com",
    "127.0.0.1",
    "xn--",
    "users",
    "mercure",
];

fn pieces() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn a_pattern_made_of_odd_pieces_is_compiled_or_refused(pattern in pieces(), topic in pieces()) {
        let validator = Validator::default();
        if let (Ok(matcher), Ok(topic)) = (validator.pattern(&pattern), validator.topic(&topic)) {
            matcher.matches(&topic);
        }
    }

    #[test]
    fn any_text_is_compiled_or_refused(pattern in "\\PC{0,60}", topic in "\\PC{0,60}") {
        let validator = Validator::default();
        if let (Ok(matcher), Ok(topic)) = (validator.pattern(&pattern), validator.topic(&topic)) {
            matcher.matches(&topic);
        }
    }
}
