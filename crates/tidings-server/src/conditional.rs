//! Conditional requests: the client may have the response already.

use http::{HeaderMap, header};

/// RFC 9110, section 13.1.2: the client has this version.
pub(crate) fn has_version(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|known| {
        let known = known.trim();
        known == "*" || known.trim_start_matches("W/") == etag
    })
}
