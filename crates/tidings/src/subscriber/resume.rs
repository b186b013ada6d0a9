//! Where a request wants to continue: how browsers, polyfills and other clients name the last event
//! they saw.
//!
//! Browsers send the header `Last-Event-ID` when they reconnect, and cannot send it when they
//! connect first; polyfills and other clients put the id into a parameter, each under its own name.

use http::{HeaderMap, HeaderName, HeaderValue};
use tidings_topic::{ParseSinceError, Since};

use crate::subscriber::subscribe::Subscribe;

/// Where a request asks to start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Requested {
    /// The request has no cursor.
    Nothing,
    /// It has a cursor without a value.
    Empty,
    /// At this position.
    Start(Since),
}

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The names that polyfills and clients in use give to the parameter that replaces the header,
/// which they cannot set.
const ID_PARAMETERS: [&str; 5] =
    ["lastEventId", "Last-Event-ID", "lastEventID", "last_event_id", "evs_last_event_id"];

impl Requested {
    /// Reads the id of an event, or `earliest`, from the headers and the decoded parameters of a
    /// request.
    ///
    /// The header `Last-Event-ID` takes precedence over every parameter: a browser that reconnects
    /// sends a fresh header with the URL that it had all along. Otherwise the last parameter that
    /// has a value counts.
    pub fn id<'a>(headers: &HeaderMap, parameters: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Self {
        let mut in_header = headers.get_all(LAST_EVENT_ID).iter();
        if let Some(id) = in_header.find(|id| !id.is_empty()).map(text_of) {
            return Self::Start(Since::from_last_event_id(&id));
        }
        let mut in_parameters =
            parameters.filter(|(name, _)| ID_PARAMETERS.contains(name)).map(|(_, value)| value).peekable();
        if !headers.contains_key(LAST_EVENT_ID) && in_parameters.peek().is_none() {
            return Self::Nothing;
        }
        let last = in_parameters.filter(|value| !value.is_empty()).last();
        last.map_or(Self::Empty, |id| Self::Start(Since::from_last_event_id(id)))
    }

    /// As [`id`](Self::id), and where there is no id, the value of the parameter `since`
    /// ([`Since`]). A `since` that cannot be parsed is an error even where an id takes precedence:
    /// the next request may come without one.
    pub fn id_or_word<'a>(
        headers: &HeaderMap,
        parameters: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    ) -> Result<Self, ParseSinceError> {
        let id = Self::id(headers, parameters.clone());
        let words = parameters.filter(|(name, _)| *name == "since");
        let word = words.map(|(_, word)| word.parse()).last().transpose()?;
        Ok(match (id, word) {
            (Self::Nothing | Self::Empty, Some(since)) => Self::Start(since),
            (id, _) => id,
        })
    }

    /// The start, which is [`Since::Now`] where the request has no cursor.
    pub fn since(self) -> Since {
        match self {
            Self::Nothing | Self::Empty => Since::Now,
            Self::Start(since) => since,
        }
    }
}

impl Subscribe {
    /// Starts where the request asks to ([`Requested::id_or_word`]), if it has a cursor; otherwise
    /// nothing changes. With it a browser that lost its connection misses nothing. A `since` that
    /// cannot be parsed is an error of [`Hub::subscribe`](crate::Hub::subscribe).
    #[must_use]
    pub fn resume(mut self, headers: &HeaderMap, query: Option<&str>) -> Self {
        let parameters: Vec<_> = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
        let parameters = parameters.iter().map(|(name, value)| (&**name, &**value));
        match Requested::id_or_word(headers, parameters) {
            Ok(Requested::Start(since)) => self.since(since),
            Ok(Requested::Nothing | Requested::Empty) => self,
            Err(error) => {
                self.misread = Some(error);
                self
            }
        }
    }
}

/// WHATWG HTML, "Server-sent events": the header is UTF-8, not ASCII. Chromium sends it so; Node
/// sends `é` as Latin-1.
fn text_of(value: &HeaderValue) -> String {
    let latin_1 = || value.as_bytes().iter().copied().map(char::from).collect();
    std::str::from_utf8(value.as_bytes()).map_or_else(|_| latin_1(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(header: Option<&[u8]>, query: &str) -> Requested {
        read(header, query).expect("a word")
    }

    fn read(header: Option<&[u8]>, query: &str) -> Result<Requested, ParseSinceError> {
        let value = header.map(|id| HeaderValue::from_bytes(id).expect("a header value"));
        let fields = value.into_iter().map(|value| (LAST_EVENT_ID, value));
        let parameters: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        let parameters = parameters.iter().map(|(name, value)| (&**name, &**value));
        Requested::id_or_word(&fields.collect(), parameters)
    }

    fn id(text: &str) -> Requested {
        Requested::Start(Since::Id(text.to_owned()))
    }

    #[test]
    fn the_header_takes_precedence_over_every_parameter() {
        assert_eq!(requested(Some(b"fresh"), "lastEventId=stale&since=%231.a"), id("fresh"));
    }

    #[test]
    fn an_empty_cursor_names_no_id_but_counts_as_a_cursor() {
        assert_eq!(requested(Some(b""), "lastEventId=a"), id("a"));
        assert_eq!(requested(Some(b""), ""), Requested::Empty);
        assert_eq!(requested(None, "lastEventId="), Requested::Empty);
        assert_eq!(requested(None, "topic=a"), Requested::Nothing);
    }

    #[test]
    fn the_header_is_read_as_utf8_and_otherwise_as_latin_1() {
        assert_eq!(requested(Some("é😀".as_bytes()), ""), id("é😀"));
        assert_eq!(requested(Some(b"caf\xe9"), ""), id("café"));
    }

    #[test]
    fn every_polyfill_parameter_is_read_whatever_since_says() {
        for name in ID_PARAMETERS {
            assert_eq!(requested(None, &format!("{name}=%231.a&since=-50")), id("#1.a"), "{name}");
        }
    }

    #[test]
    fn the_last_parameter_that_is_not_empty_counts() {
        assert_eq!(requested(None, "lastEventId=a&evs_last_event_id=b&last_event_id="), id("b"));
    }

    #[test]
    fn only_the_since_parameter_accepts_start_values() {
        assert_eq!(requested(None, "topic=a&since=-50"), Requested::Start(Since::Last(50)));
        assert_eq!(requested(None, "since=earliest"), Requested::Start(Since::Earliest));
        assert_eq!(requested(None, "lastEventId=-50"), id("-50"));
        assert_eq!(requested(None, "lastEventId=now"), id("now"));
        assert_eq!(requested(None, "lastEventId=earliest"), Requested::Start(Since::Earliest));
        let since = [("since", "-50")].into_iter();
        assert_eq!(Requested::id(&HeaderMap::new(), since), Requested::Nothing, "where there are ids only");
    }

    #[test]
    fn an_invalid_since_is_refused_even_if_an_id_takes_precedence() {
        for query in
            ["since=", "since=10min", "since=order-42", "lastEventId=a&since=10min", "since=now&since=x"]
        {
            assert_eq!(read(None, query), Err(ParseSinceError), "{query}");
        }
        assert_eq!(read(Some(b"fresh"), "since=10min"), Err(ParseSinceError));
    }

    #[test]
    fn a_request_without_a_cursor_changes_nothing() {
        let subscribe = Subscribe::new([]).since(Since::Last(7)).resume(&HeaderMap::new(), None);
        assert_eq!(subscribe.since, Since::Last(7));
    }
}
