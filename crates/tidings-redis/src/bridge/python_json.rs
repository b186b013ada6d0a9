//! JSON as Python's `json.dumps` writes it, which pages that use Flask-SSE expect.

use std::fmt::Write;

/// The same JSON with a space behind each comma and colon and none elsewhere, and nothing in
/// strings that is not ASCII. Numbers stay as they are written. The text has to be valid JSON.
pub(super) fn as_python_writes(json: &str) -> String {
    let mut written = String::with_capacity(json.len() + json.len() / 8);
    let mut rest = json;
    while let Some(next) = rest.chars().next() {
        if next == '"' {
            let end = end_of_string(rest);
            write_string(&mut written, &rest[..end]);
            rest = &rest[end..];
            continue;
        }
        rest = &rest[next.len_utf8()..];
        match next {
            ' ' | '\t' | '\r' | '\n' => {}
            ',' => written.push_str(", "),
            ':' => written.push_str(": "),
            other => written.push(other),
        }
    }
    written
}

/// Where the string at the start of this text ends, its quotation marks included.
fn end_of_string(text: &str) -> usize {
    let mut is_escaped = true; // the first mark opens
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn write_string(written: &mut String, literal: &str) {
    // A lone surrogate is JSON but no text; it is left as it was written.
    let Ok(text) = serde_json::from_str::<String>(literal) else { return written.push_str(literal) };
    written.push('"');
    for character in text.chars() {
        match character {
            '"' => written.push_str("\\\""),
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            '\u{8}' => written.push_str("\\b"),
            '\u{c}' => written.push_str("\\f"),
            ' '..='~' => written.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(written, "\\u{unit:04x}").expect("a string takes everything");
                }
            }
        }
    }
    written.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_spaced_and_escaped_as_in_python() {
        // The right side is what Python 3 prints for `json.dumps(json.loads(left))`.
        for (json, python) in [
            ("{\"a\":1,\"b\":[1,2.50,null,true]}", "{\"a\": 1, \"b\": [1, 2.50, null, true]}"),
            ("\n{ \"a\" :\t[ ] }", "{\"a\": []}"),
            ("\"a,b:c \\\" \\\\ \\/\"", "\"a,b:c \\\" \\\\ /\""),
            ("\"gr\u{fc}\u{df}e \u{1f5de}\"", "\"gr\\u00fc\\u00dfe \\ud83d\\uddde\""),
            ("\"\\u00fc\\n\\u0007\\u007f\"", "\"\\u00fc\\n\\u0007\\u007f\""),
            ("42", "42"),
            ("\"\"", "\"\""),
            ("\"\\ud800\"", "\"\\ud800\""),
        ] {
            assert_eq!(as_python_writes(json), python);
        }
    }
}
