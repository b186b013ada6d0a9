//! Patterns that the pattern parser must not see.
//!
//! `urlpattern` 0.6 counts the brackets of an IPv6 address in the host of a pattern and subtracts one for a `]` that closes nothing,
//! as in `https://]/`: a panic where overflow is checked, as in every debug build. No host has such a bracket, so nothing is
//! lost by refusing the pattern first. What is refused here is refused by the parser as well, or can match no URL.

/// Whether a `]` in the host of this pattern closes nothing. What makes a pattern invalid before the parser comes to its host, or
/// hides its host, may be answered either way.
pub(crate) fn has_stray_bracket(pattern: &str) -> bool {
    let mut rest = pattern.chars();
    let mut host_begun = false;
    let mut brackets_open = 0_u32;
    let mut braces_open = 0_u32;
    while let Some(next) = rest.next() {
        // An escaped character counts like the plain one, except that it opens no group.
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

/// What follows the group `(…)` whose content begins here; `None` where no valid group does (URL Pattern, "Tokenizing": ASCII, not
/// empty, inner groups begin with `?`).
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
    fn a_bracket_that_closes_nothing_in_a_host_is_found() {
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
    fn brackets_elsewhere_are_left_alone() {
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
