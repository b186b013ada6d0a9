//! Which form of an answer a client asks for. Nobody is ever told 406: whoever accepts none of our forms gets the stream.

use http::{HeaderMap, header};

/// A form of what can be had at one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// `text/event-stream`.
    Stream,
    /// `application/json`.
    Json,
    /// `text/html`.
    Page,
}

/// The form that these headers ask for (RFC 9110, section 12.5.1). A client that names `text/event-stream` gets it whatever
/// else it names: htmx 4 names `text/html` too. A browser that navigates names `text/html` only.
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

/// Whether a client names `text/html`, as browsers do.
pub(crate) fn accepts_html(headers: &HeaderMap) -> bool {
    ranges(headers).any(|range| range.quality > 0.0 && range.media_type.eq_ignore_ascii_case("text/html"))
}

struct MediaRange<'a> {
    media_type: &'a str,
    quality: f32,
}

fn ranges(headers: &HeaderMap) -> impl Iterator<Item = MediaRange<'_>> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        MediaRange { media_type, quality: quality.map_or(1.0, |digits| digits.parse().unwrap_or(0.0)) }
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn form(accept: &'static str) -> Form {
        wanted_form(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
    }

    #[test]
    fn only_who_names_a_page_or_json_gets_one() {
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

    #[test]
    fn who_names_the_stream_gets_it_whatever_else_is_named() {
        assert_eq!(form("text/html, text/event-stream"), Form::Stream);
        assert_eq!(form("application/json, text/event-stream;q=0.1"), Form::Stream);
    }
}
