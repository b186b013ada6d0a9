//! Where a request wants to go on: how browsers and polyfills say which event they saw last.

use std::borrow::Cow;

use http::HeaderMap;
use tidings_topic::Since;

use crate::subscribe::Subscribe;

/// How the polyfills and clients in use name the parameter that stands in for the header, which they cannot set.
const LAST_EVENT_ID_PARAMETERS: [&str; 5] =
    ["lastEventId", "Last-Event-ID", "lastEventID", "last_event_id", "evs_last_event_id"];

impl Subscribe {
    /// Starts where the request says, if it says so; otherwise nothing changes. With it a browser that lost its connection misses nothing.
    ///
    /// The header `Last-Event-ID` wins over every parameter: a browser that reconnects sends a fresh one with the URL that it had all
    /// along. Then comes the last of the parameters by which polyfills send it, then `since`, with the words of [`Since`].
    #[must_use]
    pub fn resume(self, headers: &HeaderMap, query: Option<&str>) -> Self {
        match requested_start(headers, query.unwrap_or_default()) {
            Some(since) => self.since(since),
            None => self,
        }
    }
}

fn requested_start(headers: &HeaderMap, query: &str) -> Option<Since> {
    // WHATWG HTML, "Server-sent events": the header is UTF-8, not ASCII. Other bytes name no event, so that the gap is told.
    let header = headers.get("last-event-id").map(|id| String::from_utf8_lossy(id.as_bytes()));
    if let Some(id) = header.filter(|id| !id.is_empty()) {
        return Some(Since::from_last_event_id(&id));
    }
    let last_of = |names: &[&str]| -> Option<Cow<'_, str>> {
        let parameters = form_urlencoded::parse(query.as_bytes());
        parameters
            .filter(|(name, value)| names.contains(&&**name) && !value.is_empty())
            .last()
            .map(|(_, value)| value)
    };
    if let Some(id) = last_of(&LAST_EVENT_ID_PARAMETERS) {
        return Some(Since::from_last_event_id(&id));
    }
    last_of(&["since"])?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn start(header: Option<&[u8]>, query: &str) -> Option<Since> {
        let value = header.map(|id| HeaderValue::from_bytes(id).expect("a header value"));
        let fields = value.into_iter().map(|value| (HeaderName::from_static("last-event-id"), value));
        requested_start(&fields.collect(), query)
    }

    fn id(text: &str) -> Since {
        Since::Id(text.to_owned())
    }

    #[test]
    fn the_header_wins_over_every_parameter() {
        assert_eq!(start(Some(b"fresh"), "lastEventId=stale&since=stale"), Some(id("fresh")));
    }

    #[test]
    fn an_empty_header_says_nothing() {
        assert_eq!(start(Some(b""), "lastEventId=a"), Some(id("a")));
        assert_eq!(start(Some(b""), ""), None);
    }

    #[test]
    fn the_header_is_read_as_utf8() {
        assert_eq!(start(Some("é😀".as_bytes()), ""), Some(id("é😀")));
        assert_eq!(start(Some(b"\xff"), ""), Some(id("\u{fffd}")));
    }

    #[test]
    fn every_polyfill_finds_its_parameter() {
        for name in LAST_EVENT_ID_PARAMETERS {
            assert_eq!(start(None, &format!("x=1&{name}=%231.a&since=now")), Some(id("#1.a")), "{name}");
        }
    }

    #[test]
    fn the_last_parameter_that_is_not_empty_counts() {
        assert_eq!(start(None, "lastEventId=a&evs_last_event_id=b&last_event_id="), Some(id("b")));
    }

    #[test]
    fn a_first_visit_says_where_to_start_with_since() {
        assert_eq!(start(None, "topic=a&since=-50"), Some(Since::Last(50)));
        assert_eq!(start(None, "since=earliest"), Some(Since::Earliest));
        assert_eq!(start(None, "since=&topic=a"), None);
    }

    #[test]
    fn a_request_that_says_nothing_changes_nothing() {
        let subscribe = Subscribe::new([]).since(Since::Last(7)).resume(&HeaderMap::new(), None);
        assert_eq!(subscribe.since, Since::Last(7));
    }
}
