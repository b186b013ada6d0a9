//! JSON in the body of a request, for routes that take one object.

use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// Longest message of the parser that is passed on, in characters: it may quote the input.
const MESSAGE_CHARS_MAX: usize = 160;

/// Reads one object. `example` is a correct body.
pub(crate) fn read_object<T: DeserializeOwned>(body: &str, example: &str) -> Result<T, Problem> {
    let unreadable = |message: &str| {
        let message: String = message.chars().take(MESSAGE_CHARS_MAX).flat_map(char::escape_debug).collect();
        Problem::bad_request("body", format!("The body is not a JSON object like `{example}`: {message}."))
    };
    // The parser would also take a list of the values in their order.
    if !body.trim_ascii_start().starts_with('{') {
        return Err(unreadable("it does not begin with `{`"));
    }
    serde_json::from_str(body).map_err(|error| unreadable(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, PartialEq, Debug)]
    #[serde(deny_unknown_fields)]
    struct Point {
        x: u8,
    }

    #[test]
    fn only_an_object_with_the_known_fields_is_read() {
        assert_eq!(read_object::<Point>(" {\"x\":1}\n", "{}").expect("valid"), Point { x: 1 });
        for (body, part) in [
            ("", "`{`"),
            ("[1]", "`{`"),
            ("x=1", "`{`"),
            ("{\"x\":1", "EOF"),
            ("{\"x\":1,\"y\":2}", "unknown field `y`"),
            ("{\"x\":-1}", "invalid value"),
        ] {
            let refused = read_object::<Point>(body, "{\"x\":1}").expect_err(body);
            assert!(refused.detail().contains(part) && refused.detail().contains("like `{"), "{refused:?}");
        }
    }
}
