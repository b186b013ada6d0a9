//! The client for browsers as a script, so that a page needs no package and no other server.
//!
//! It has two paths: `/tidings.js` is always the script of this hub; the one with a part of its hash
//! never changes, and pages that give its integrity load it from there.

use std::sync::LazyLock;

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::conditional::has_version;

/// Made by `tools/page-script.mjs`, as is its integrity.
const SCRIPT: &str = include_str!("client.js");

/// What the attribute `integrity` of the script is (Subresource Integrity, section 3.1).
pub(super) const INTEGRITY: &str = include_str!("client.integrity");

/// Always the script of this hub.
pub(crate) const PATH: &str = "/tidings.js";

/// How many characters of the hash are in the other path.
const HASH_CHARS: usize = 16;

/// The script with this hash, and nothing else.
pub(crate) static HASHED_PATH: LazyLock<String> = LazyLock::new(|| {
    let hash = INTEGRITY.trim_start_matches("sha384-").chars().filter(char::is_ascii_alphanumeric);
    format!("/tidings-{}.js", hash.take(HASH_CHARS).collect::<String>())
});

/// Whether there is a script at this path.
pub(crate) fn is_path(path: &str) -> bool {
    path == PATH || path == *HASHED_PATH
}

/// The script. It is the same for every page, so pages of all origins may load it.
pub(crate) async fn script(request: Request) -> Response {
    let etag = format!("\"{INTEGRITY}\"");
    let is_fixed = request.uri().path() != PATH;
    let caching = if is_fixed { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static(caching)),
        (header::ETAG, HeaderValue::from_str(&etag).expect("base64 is visible ASCII")),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("cross-origin")),
    ];
    if has_version(request.headers(), &etag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, SCRIPT).into_response()
}

/// The tag that loads the script of the hub at this URL.
pub(super) fn tag(base: &str) -> String {
    format!(
        "<script src=\"{base}{}\" integrity=\"{INTEGRITY}\" crossorigin=\"anonymous\"></script>",
        *HASHED_PATH
    )
}
