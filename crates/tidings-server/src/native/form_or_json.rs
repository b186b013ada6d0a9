//! A body that is a form, or a JSON object of the same names.

use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    json_body::read_object,
    problem::Problem,
    publishing::{ContentType, utf8},
    query::Parameters,
};

/// The media types of such a body.
pub(super) const MEDIA_TYPES: &str = "application/x-www-form-urlencoded, application/json";

pub(super) enum FormOrJson<T> {
    Form(Parameters),
    Json(T),
}

/// Reads a body. `what` begins a sentence: "A ticket is". `example` is a correct JSON object.
pub(super) fn read<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: &[u8],
    what: &str,
    example: &str,
) -> Result<FormOrJson<T>, Problem> {
    let content_type = ContentType::of(headers);
    let is = |name: &str| content_type.media_type.eq_ignore_ascii_case(name) && content_type.is_utf8;
    if is("application/x-www-form-urlencoded") {
        return Parameters::parse(body).map(FormOrJson::Form);
    }
    if is("application/json") {
        return read_object(utf8(body)?, example).map(FormOrJson::Json);
    }
    // RFC 10008: a QUERY without a type is malformed, whatever its body looks like.
    let has_type = headers.contains_key(header::CONTENT_TYPE);
    let status = if has_type { StatusCode::UNSUPPORTED_MEDIA_TYPE } else { StatusCode::BAD_REQUEST };
    let detail = format!(
        "{what} a form (`application/x-www-form-urlencoded`) or JSON (`application/json`), in UTF-8; `Content-Type` says which."
    );
    Err(Problem::new(status, "content_type", detail))
}

/// A string or a list of strings.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a string or a list of strings is expected")]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl From<OneOrMany> for Vec<String> {
    fn from(given: OneOrMany) -> Self {
        match given {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        }
    }
}
