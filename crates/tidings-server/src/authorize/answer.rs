//! What the response of an application means: a stream, or a response for the client.

use std::time::Duration;

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::body::Incoming;

use super::{client::Failure, request::end_to_end};
use crate::{
    BodyError, ClientAddress,
    app::App,
    problem::{Problem, excerpt},
    query::Parameters,
};

/// The header by which an application grants a stream.
const TIDINGS_SUBSCRIBE: HeaderName = HeaderName::from_static("tidings-subscribe");

/// What it may contain.
const PARAMETERS: [&str; 7] = ["topic", "pattern", "since", "format", "hello", "expires", "label"];

/// Most bytes of the body of a response for the client. A larger one is answered with 502.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Longest time after which a stream may expire: a year.
const EXPIRES_SECS_MAX: u64 = 365 * 24 * 60 * 60;

/// Longest label of a stream, in bytes.
const LABEL_BYTES_MAX: usize = 256;

/// What an application has answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// The client receives a stream.
    Subscribe(Granted),
    /// The client receives this.
    Other(Response),
}

/// A stream that an application grants.
#[derive(Debug)]
pub(super) struct Granted {
    /// The parameters of all fields together.
    pub(super) parameters: Parameters,
    /// The cookies that it sets.
    pub(super) cookies: Vec<HeaderValue>,
}

/// Reads a response for this client. `time` bounds its body.
pub(super) async fn read(
    app: &App,
    response: http::Response<Incoming>,
    client: ClientAddress,
    time: Duration,
) -> Result<Answer, Failure> {
    let (parts, body) = response.into_parts();
    if parts.status.is_informational() {
        return Err(Failure::Malformed(format!(
            "it answered {}, which is not the end of an answer",
            parts.status
        )));
    }
    if parts.headers.contains_key(TIDINGS_SUBSCRIBE) {
        if parts.status != StatusCode::OK {
            return Err(Failure::Malformed(format!(
                "it answered {} with the header `Tidings-Subscribe`: a stream needs 200",
                parts.status.as_u16()
            )));
        }
        // The body has no meaning, and is not read.
        return granted(&parts.headers).map(Answer::Subscribe);
    }
    let secs = time.as_secs().max(1);
    let body =
        app.responses.read_for_another(body, Some(client), BODY_BYTES_MAX, secs).await.map_err(|error| {
            match error {
                BodyError::TooLarge => {
                    Failure::Malformed(format!("its response has more than {BODY_BYTES_MAX} bytes"))
                }
                BodyError::TimedOut => Failure::TimedOut,
                BodyError::NoMemory | BodyError::NoMemoryForAddress => Failure::NoMemory,
                BodyError::Broken => Failure::Broken("its body ends early".to_owned()),
            }
        })?;
    let mut passed_on = Response::new(Body::from(body));
    *passed_on.status_mut() = parts.status;
    *passed_on.headers_mut() = end_to_end(&parts.headers);
    let headers = passed_on.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    // Which pages may read a response of the hub, only the hub decides.
    let cors: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    for name in cors {
        headers.remove(name);
    }
    Ok(Answer::Other(passed_on))
}

fn granted(headers: &HeaderMap) -> Result<Granted, Failure> {
    let fields: Vec<_> = headers.get_all(TIDINGS_SUBSCRIBE).iter().map(HeaderValue::as_bytes).collect();
    let parameters = Parameters::parse(&fields.join(&b'&')).map_err(|problem| malformed(&problem))?;
    parameters.refuse_unknown(&PARAMETERS, &[]).map_err(|problem| malformed(&problem))?;
    Ok(Granted { parameters, cookies: headers.get_all(header::SET_COOKIE).iter().cloned().collect() })
}

/// The header has a value without a meaning.
pub(super) fn malformed(problem: &Problem) -> Failure {
    Failure::Malformed(format!("its `Tidings-Subscribe` is malformed: {}", problem.detail()))
}

/// After how many seconds the stream ends, and the application is asked again.
pub(super) fn expires_secs(parameters: &Parameters) -> Result<Option<u64>, Problem> {
    let Some(text) = parameters.single("expires")? else { return Ok(None) };
    let secs = text.parse().ok().filter(|secs| (1..=EXPIRES_SECS_MAX).contains(secs));
    secs.map(Some).ok_or_else(|| {
        Problem::bad_request(
            "expires",
            format!(
                "The value {} of `expires` is not a number of seconds from 1 to {EXPIRES_SECS_MAX}.",
                excerpt(text)
            ),
        )
    })
}

/// The name under which the stream can be revoked.
pub(super) fn label(parameters: &Parameters) -> Result<Option<&str>, Problem> {
    let Some(label) = parameters.single("label")? else { return Ok(None) };
    if label.is_empty() || label.len() > LABEL_BYTES_MAX {
        return Err(Problem::bad_request(
            "label",
            format!("The `label` has {} bytes: it needs 1 to {LABEL_BYTES_MAX}.", label.len()),
        ));
    }
    Ok(Some(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_fields(fields: &[&str]) -> Result<Vec<(String, String)>, String> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(TIDINGS_SUBSCRIBE, HeaderValue::from_bytes(field.as_bytes()).expect("a value"));
        }
        let granted = granted(&headers).map_err(|failure| failure.to_string())?;
        Ok(granted.parameters.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn several_fields_are_one_form() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            read_fields(&["topic=a+b&topic=%C3%A9", "label=x", ""]),
            Ok(vec![pair("topic", "a b"), pair("topic", "é"), pair("label", "x")])
        );
        assert_eq!(read_fields(&["topic=grüße"]), Ok(vec![pair("topic", "grüße")]));
    }

    #[test]
    fn a_malformed_header_names_what_is_wrong() {
        for (field, part) in [
            ("topics=a", "`topics` is unknown. Did you mean `topic`?"),
            ("channel=a", "`channel` is unknown"),
            ("topic=%zz", "%25"),
            ("topic=%ff", "UTF-8"),
        ] {
            let refused = read_fields(&[field]).unwrap_err();
            assert!(refused.contains(part), "{field}: {refused}");
        }
    }

    #[test]
    fn expiry_and_label_have_bounds() {
        let read = |text: &str| Parameters::parse(text.as_bytes()).expect("a form");
        assert_eq!(expires_secs(&read("topic=a")).ok(), Some(None));
        assert_eq!(expires_secs(&read("expires=3600")).ok(), Some(Some(3_600)));
        for wrong in
            ["expires=", "expires=0", "expires=-1", "expires=1h", "expires=31536001", "expires=1&expires=2"]
        {
            assert!(expires_secs(&read(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(label(&read("label=user-42")).ok(), Some(Some("user-42")));
        for wrong in ["label=", &format!("label={}", "x".repeat(257)), "label=a&label=b"] {
            assert!(label(&read(wrong)).is_err(), "{wrong}");
        }
    }
}
