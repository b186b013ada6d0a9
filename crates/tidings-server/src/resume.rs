//! Where a returning subscriber says how far it got.
//!
//! Browsers send the header `Last-Event-ID` when they reconnect, and cannot send it when they connect first; polyfills and other
//! clients put the id into a parameter, each under its own name. The header always wins: a page that was opened with a cursor in its URL
//! sends that old value along for ever. Both together are normal, never an error.

use http::HeaderMap;
use tidings::Since;

use crate::query::Parameters;

const HEADER: &str = "last-event-id";

/// The names under which clients send the id of the last event.
const ID_PARAMETERS: [&str; 5] =
    ["lastEventId", "Last-Event-ID", "lastEventID", "last_event_id", "evs_last_event_id"];

/// The name of our own, which knows words besides ids.
const WORD_PARAMETER: &str = "since";

/// The friendly face knows both.
const FRIENDLY_PARAMETERS: [&str; 6] =
    [WORD_PARAMETER, "lastEventId", "Last-Event-ID", "lastEventID", "last_event_id", "evs_last_event_id"];

/// The cursor of a request, if it has one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    /// There is none.
    Nothing,
    /// There is one without a value.
    Empty,
    /// There is one.
    For(Since),
}

impl Asked {
    pub(crate) fn since(self) -> Since {
        match self {
            Self::Nothing | Self::Empty => Since::Now,
            Self::For(since) => since,
        }
    }
}

/// The cursor on the friendly face: ids under all names, and the words of `since`.
pub(crate) fn friendly_cursor(headers: &HeaderMap, parameters: &Parameters) -> Asked {
    cursor(headers, parameters, &FRIENDLY_PARAMETERS)
}

/// The cursor on the Mercure face: `earliest` and ids.
pub(crate) fn mercure_cursor(headers: &HeaderMap, parameters: &Parameters) -> Asked {
    cursor(headers, parameters, &ID_PARAMETERS)
}

fn cursor(headers: &HeaderMap, parameters: &Parameters, names: &[&str]) -> Asked {
    if let Some(value) = headers.get_all(HEADER).iter().find(|value| !value.is_empty()) {
        return Asked::For(Since::from_last_event_id(&field_text(value.as_bytes())));
    }
    match parameters.last_non_empty(names) {
        Some((WORD_PARAMETER, word)) => word.parse().map_or(Asked::Empty, Asked::For),
        Some((_, id)) => Asked::For(Since::from_last_event_id(id)),
        None if headers.contains_key(HEADER) || names.iter().any(|name| parameters.contains(name)) => {
            Asked::Empty
        }
        None => Asked::Nothing,
    }
}

/// The text of a header's bytes. Chromium sends an id as the UTF-8 that it was received as, Node sends `é` as Latin-1.
fn field_text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().copied().map(char::from).collect(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn friendly(header: Option<&[u8]>, query: &str) -> Asked {
        let value = header.map(|bytes| HeaderValue::from_bytes(bytes).expect("a field value"));
        let headers =
            value.map(|value| ("last-event-id".parse().expect("a name"), value)).into_iter().collect();
        friendly_cursor(&headers, &Parameters::parse(query.as_bytes()).expect("a query"))
    }

    fn id(id: &str) -> Asked {
        Asked::For(Since::Id(id.to_owned()))
    }

    #[test]
    fn the_header_wins_over_every_parameter() {
        assert_eq!(friendly(Some(b"new"), "since=earliest&lastEventId=old"), id("new"));
    }

    #[test]
    fn an_empty_header_is_no_cursor() {
        assert_eq!(friendly(Some(b""), "lastEventId=a"), id("a"));
        assert_eq!(friendly(Some(b""), ""), Asked::Empty);
        assert_eq!(friendly(None, "since="), Asked::Empty);
        assert_eq!(friendly(None, "topic=a"), Asked::Nothing);
    }

    #[test]
    fn the_last_spelling_with_a_value_counts() {
        for name in ID_PARAMETERS {
            assert_eq!(friendly(None, &format!("since=earliest&{name}=a&lastEventId=")), id("a"), "{name}");
        }
        assert_eq!(friendly(None, "lastEventId=a&since=-50"), Asked::For(Since::Last(50)));
    }

    #[test]
    fn only_since_knows_words() {
        assert_eq!(friendly(None, "lastEventId=-50"), id("-50"));
        assert_eq!(friendly(None, "lastEventId=now"), id("now"));
        assert_eq!(friendly(None, "lastEventId=earliest"), Asked::For(Since::Earliest));
        let parameters = Parameters::parse(b"since=-50").expect("a query");
        assert_eq!(mercure_cursor(&HeaderMap::new(), &parameters), Asked::Nothing);
    }

    #[test]
    fn an_id_is_read_as_utf8_and_otherwise_as_latin_1() {
        assert_eq!(friendly(Some("caf\u{e9}".as_bytes()), ""), id("café"));
        assert_eq!(friendly(Some(b"caf\xe9"), ""), id("café"));
    }
}
