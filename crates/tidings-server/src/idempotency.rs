//! The header `Idempotency-Key`: the publisher's name for one publication.
//!
//! The draft "The Idempotency-Key HTTP Header Field" makes its value a string of RFC 9651, which is
//! quoted; most programs send the bare characters. Both forms are accepted and mean the same key. A
//! publication with a key that was used before publishes nothing; its body is not compared with the
//! first one. Keys are scoped by credential ([`Access::scoped`]), so tenants of one hub cannot
//! collide.

use http::{HeaderMap, HeaderName};
use tidings::IdempotencyKey;
use tidings_auth::Access;

use crate::problem::Problem;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// The key of this request, as the log stores it.
pub(crate) fn idempotency_key(
    headers: &HeaderMap,
    access: &Access,
) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refuse("is present more than once: a publication has one key"));
    }
    let key = read_key(value.as_bytes()).map_err(refuse)?;
    let scoped = IdempotencyKey::new(&access.scoped(&key));
    Ok(Some(scoped.expect("a scoped key is 43 visible characters")))
}

fn refuse(why: &str) -> Problem {
    Problem::bad_request("idempotency_key", format!("The header `Idempotency-Key` {why}."))
}

/// Parses the value; the error explains what is wrong with it.
fn read_key(value: &[u8]) -> Result<String, &'static str> {
    let value = value.trim_ascii();
    let key = match value.strip_prefix(b"\"") {
        Some(quoted) => read_quoted(quoted)?,
        None if value.iter().all(u8::is_ascii_graphic) => value.iter().copied().map(char::from).collect(),
        None => return Err("has spaces or characters beyond ASCII: put it in quotes, or leave them out"),
    };
    match key.len() {
        0 => Err("is empty: give this publication a key of its own, such as a UUID, or leave the header out"),
        1..=KEY_BYTES_MAX => Ok(key),
        _ => Err("is longer than 255 characters: a UUID has 36"),
    }
}

/// RFC 9651, section 4.2.5: visible ASCII and spaces up to the closing quote; a backslash escapes a
/// quote or a backslash.
fn read_quoted(rest: &[u8]) -> Result<String, &'static str> {
    let mut key = String::new();
    let mut bytes = rest.iter().copied();
    loop {
        let character = match bytes.next() {
            Some(b'"') if bytes.len() == 0 => return Ok(key),
            Some(b'"') => return Err("continues after its closing quote"),
            Some(b'\\') => bytes.next().filter(|escaped| matches!(escaped, b'"' | b'\\')),
            Some(b' ') => Some(b' '),
            Some(byte) => Some(byte).filter(u8::is_ascii_graphic),
            None => return Err("has no closing quote"),
        };
        key.push(character.map(char::from).ok_or("has a character that a quoted string cannot contain")?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_key_equals_the_bare_key() {
        for (value, key) in [
            ("k-1", "k-1"),
            ("\"k-1\"", "k-1"),
            (" k-1 ", "k-1"),
            ("\"two words\"", "two words"),
            (r#""a \"b\" \\""#, r#"a "b" \"#),
            (r#"a"b\"#, r#"a"b\"#),
        ] {
            assert_eq!(read_key(value.as_bytes()).as_deref(), Ok(key), "{value}");
        }
        assert_eq!(read_key("k".repeat(255).as_bytes()), Ok("k".repeat(255)));
    }

    #[test]
    fn an_invalid_key_is_refused_with_the_reason() {
        for (value, why) in [
            ("", "empty"),
            ("\"\"", "empty"),
            ("a b", "quotes"),
            ("a, b", "quotes"),
            ("é", "ASCII"),
            ("\"", "no closing quote"),
            ("\"a", "no closing quote"),
            ("\"a\\\"", "no closing quote"),
            ("\"a\\b\"", "character"),
            ("\"é\"", "character"),
            ("\"a\"; b=1", "after its closing quote"),
            ("\"a\", \"b\"", "after its closing quote"),
            (&"k".repeat(256), "255"),
            (&format!("\"{}\"", "k".repeat(256)), "255"),
        ] {
            let refused = read_key(value.as_bytes()).expect_err(value);
            assert!(refused.contains(why), "{value}: {refused}");
        }
    }
}
