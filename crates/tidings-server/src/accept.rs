//! Content negotiation. The native API never answers 406: a client that accepts none of its forms
//! gets the stream.

use std::cmp::Ordering;

use http::{HeaderMap, HeaderValue, header};

/// A representation of the resource at one URL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// `text/event-stream`.
    Stream,
    /// `application/json`.
    Json,
    /// `text/html`.
    Page,
}

/// The form that these headers request (RFC 9110, section 12.5.1). A client that names
/// `text/event-stream` gets it whatever else it names: htmx 4 also names `text/html`. A browser
/// that navigates names only `text/html`.
pub(crate) fn wanted_form(headers: &HeaderMap) -> Form {
    let mut best = (Form::Stream, 0.0);
    for range in ranges(headers) {
        let form = match range.media_type.to_ascii_lowercase().as_str() {
            "text/event-stream" if range.quality > 0.0 => return Form::Stream,
            "application/json" => Form::Json,
            "text/html" => Form::Page,
            _ => continue,
        };
        if range.quality > best.1 {
            best = (form, range.quality);
        }
    }
    best.0
}

/// Whether a client names this media type, as every EventSource names `text/event-stream` and every
/// browser `text/html`.
pub(crate) fn names(headers: &HeaderMap, media_type: &str) -> bool {
    ranges(headers).any(|range| range.quality > 0.0 && range.media_type.eq_ignore_ascii_case(media_type))
}

/// Whether a client accepts an event stream.
pub(crate) fn accepts_stream(headers: &HeaderMap) -> bool {
    ranges(headers).next().is_none()
        || preference(headers, "text/event-stream", None).is_some_and(|preference| preference.quality > 0.0)
}

/// Whether a client names OpenMetrics and does not prefer the text format of Prometheus. A client
/// that names neither gets the text format, which every tool reads.
pub(crate) fn prefers_openmetrics(headers: &HeaderMap) -> bool {
    let text = preference(headers, "text/plain", Some("0.0.4")).map_or(0.0, |preference| preference.quality);
    let openmetrics = preference(headers, "application/openmetrics-text", Some("1.0.0"));
    openmetrics.is_some_and(|openmetrics| {
        openmetrics.specificity == EXACT && openmetrics.quality > 0.0 && openmetrics.quality >= text
    })
}

/// The client's preference for a media type.
#[derive(PartialEq, PartialOrd)]
struct Preference {
    specificity: u8,
    quality: f32,
}

/// The range names the media type itself.
const EXACT: u8 = 2;

/// RFC 9110, section 12.5.1: of the ranges that match, the most specific one counts. A range with
/// another version does not match.
fn preference(headers: &HeaderMap, media_type: &str, version: Option<&str>) -> Option<Preference> {
    let fitting = ranges(headers).filter_map(|range| {
        let named = range.media_type.to_ascii_lowercase();
        let specificity = match named.strip_suffix("/*") {
            Some("*") => 0,
            Some(kind) if media_type.split('/').next() == Some(kind) => 1,
            None if named == "*" => 0,
            None if named == media_type => EXACT,
            _ => return None,
        };
        let fits =
            specificity < EXACT || version.is_none() || range.version.is_none() || range.version == version;
        fits.then_some(Preference { specificity, quality: range.quality })
    });
    fitting.max_by(|one, other| one.partial_cmp(other).unwrap_or(Ordering::Equal))
}

/// Whether a refusal is shown as a page: a browser navigates.
pub(crate) fn wants_page(headers: &HeaderMap) -> bool {
    // Most programs accept `*/*`, which needs no parsing.
    let takes_anything = |accept: &HeaderValue| accept.as_bytes() == b"*/*";
    headers.get(header::ACCEPT).is_some_and(|accept| !takes_anything(accept))
        && wanted_form(headers) == Form::Page
}

struct MediaRange<'a> {
    media_type: &'a str,
    version: Option<&'a str>,
    quality: f32,
}

fn ranges(headers: &HeaderMap) -> impl Iterator<Item = MediaRange<'_>> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let named = values.flat_map(|value| value.split(',')).filter(|range| !range.trim().is_empty());
    named.map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let (mut version, mut quality) = (None, 1.0);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim_end() {
                "q" | "Q" => quality = value.trim_start().parse().unwrap_or(0.0),
                name if name.eq_ignore_ascii_case("version") => {
                    version = Some(value.trim().trim_matches('"'));
                }
                _ => {}
            }
        }
        MediaRange { media_type, version, quality }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(accept: &'static str) -> Form {
        wanted_form(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
    }

    #[test]
    fn a_page_or_json_is_sent_only_to_clients_that_name_it() {
        for accept in [
            "",
            "*/*",
            "text/event-stream",
            "text/*",
            "image/png",
            "text/html;q=0",
            "application/json;q=nonsense",
        ] {
            assert_eq!(form(accept), Form::Stream, "{accept}");
        }
        assert_eq!(wanted_form(&HeaderMap::new()), Form::Stream);
        assert_eq!(form("application/json"), Form::Json);
        assert_eq!(form("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), Form::Page);
        assert_eq!(form("text/html;q=0.5, Application/JSON"), Form::Json);
    }

    fn headers(accept: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))])
    }

    #[test]
    fn the_most_specific_range_decides_about_a_stream() {
        for accept in [
            "",
            ",",
            "text/event-stream",
            "Text/Event-Stream;charset=utf-8",
            "text/*",
            "*/*;q=0.1",
            "*",
            "text/html, */*;q=.2",
            "text/*;q=0, text/event-stream",
            "*/*;q=0, text/*;q=0.5",
            "text/event-stream;q=0, text/event-stream;q=1",
        ] {
            assert!(accepts_stream(&headers(accept)), "{accept}");
        }
        assert!(accepts_stream(&HeaderMap::new()));
        for accept in [
            "text/event-stream;q=0",
            "text/event-stream ; q = 0.000",
            "*/*, text/event-stream;q=0",
            "text/*, text/event-stream;q=0",
            "*/*;q=0",
            "application/json",
            "text/html, application/*",
            "text/event-stream;q=nonsense",
        ] {
            assert!(!accepts_stream(&headers(accept)), "{accept}");
        }
    }

    #[test]
    fn openmetrics_is_sent_if_named_and_not_less_preferred() {
        for accept in [
            "application/openmetrics-text",
            "application/openmetrics-text;version=1.0.0",
            "application/openmetrics-text; version=\"1.0.0\"; charset=utf-8",
            "application/openmetrics-text, text/plain",
            // Prometheus 3 and Prometheus 2.
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        ] {
            assert!(prefers_openmetrics(&headers(accept)), "{accept}");
        }
        assert!(!prefers_openmetrics(&HeaderMap::new()));
        for accept in [
            "",
            "*/*",
            "application/*",
            "text/plain",
            "text/plain;version=0.0.4;q=1,*/*;q=0.1",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.5, text/plain;q=0.6",
            "application/openmetrics-text;q=0.5, */*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ] {
            assert!(!prefers_openmetrics(&headers(accept)), "{accept}");
        }
    }

    #[test]
    fn a_client_that_names_the_stream_gets_it() {
        assert_eq!(form("text/html, text/event-stream"), Form::Stream);
        assert_eq!(form("application/json, text/event-stream;q=0.1"), Form::Stream);
    }
}
