//! Patterns on which the pattern parser would panic.
//!
//! `urlpattern` 0.6 counts the brackets of an IPv6 address in the host of a pattern and subtracts
//! one for an unmatched `]`, as in `https://]/`: the subtraction overflows, which panics in debug
//! builds. No host contains an unmatched bracket, so such patterns are refused before parsing.
//! Every pattern that is refused here is invalid to the parser as well, or can match no URL.

/// Whether the host of this pattern contains an unmatched `]`. For a pattern that is invalid before
/// its host, or has no visible host, either answer is correct.
pub(crate) fn has_stray_bracket(pattern: &str) -> bool {
    let mut rest = pattern.chars();
    let mut host_begun = false;
    let mut brackets_open = 0_u32;
    let mut braces_open = 0_u32;
    while let Some(next) = rest.next() {
        // An escaped character is treated like a plain one, except that it opens no group.
        let (character, escaped) = match next {
            '\\' => (rest.next().unwrap_or('\\'), true),
            plain => (plain, false),
        };
        match character {
            '(' if !escaped => match after_regexp(rest.as_str()) {
                Some(after) => rest = after.chars(),
                None => return true,
            },
            '{' if !escaped => braces_open += 1,
            '}' if !escaped => braces_open = braces_open.saturating_sub(1),
            _ if braces_open > 0 => {}
            ':' => {
                if let Some(after) = after_slash(rest.as_str()).and_then(after_slash) {
                    rest = after.chars();
                    brackets_open = 0;
                }
                host_begun = true;
            }
            '@' => brackets_open = 0,
            '/' | '#' if host_begun => return false,
            '[' => brackets_open += 1,
            ']' if host_begun && brackets_open == 0 => return true,
            ']' => brackets_open = brackets_open.saturating_sub(1),
            _ => {}
        }
    }
    false
}

fn after_slash(text: &str) -> Option<&str> {
    text.strip_prefix('\\').unwrap_or(text).strip_prefix('/')
}

/// The text after the group `(…)` whose content begins here; `None` if the group is invalid (URL
/// Pattern, "Tokenizing": ASCII, not empty, inner groups begin with `?`).
fn after_regexp(content: &str) -> Option<&str> {
    let mut depth = 1_u32;
    let mut rest = content.chars();
    while let Some(character) = rest.next() {
        match character {
            '\\' => {
                rest.next()?;
            }
            '(' if rest.as_str().starts_with('?') => depth += 1,
            '(' => return None,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    let after = rest.as_str();
    let group = &content[..content.len() - after.len()];
    let valid = depth == 0 && group != ")" && !group.starts_with('?') && group.is_ascii();
    valid.then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unmatched_bracket_in_a_host_is_found() {
        for pattern in [
            "https://]/",
            "https:]",
            "https:\\//]",
            "https:/\\/]",
            "https://[::1]]/",
            "https://[@]/",
            "https://user:[@a]/",
            "https://([)]/",
            "https://(]",
            "https://\\]/",
            ":scheme://]/",
            "{https}://a]:80/",
            "https://{[}]/",
        ] {
            assert!(has_stray_bracket(pattern), "{pattern}");
        }
    }

    #[test]
    fn brackets_outside_the_host_are_accepted() {
        for pattern in [
            "/a]b",
            "a]",
            "https://example.com/a]b",
            "https://[::1]:8080/]",
            "https://([a-z]+).example.com/",
            "https://{[::1]}/",
            "http{s}?://*/:id([0-9]+)?a[]=:b",
            "*",
        ] {
            assert!(!has_stray_bracket(pattern), "{pattern}");
        }
    }
}
