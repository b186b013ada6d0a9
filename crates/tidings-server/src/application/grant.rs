//! A response with the header `Tidings-Subscribe`: by it an application grants a stream of exactly
//! the topics that it names, private events included.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use tidings::Requested;
use tidings_auth::Access;
use url::form_urlencoded;

use crate::{
    access::unix_secs,
    app::App,
    native,
    problem::Problem,
    query::Parameters,
    revocation::Issued,
    slots::Slot,
    streams::{self, StreamRequest},
};

/// The header by which an application grants a stream.
const TIDINGS_SUBSCRIBE: HeaderName = HeaderName::from_static("tidings-subscribe");

/// What it may contain.
const PARAMETERS: [&str; 8] = ["topic", "pattern", "since", "until", "format", "hello", "expires", "label"];

/// Longest time after which a stream may expire: a year.
const EXPIRES_SECS_MAX: usize = 365 * 24 * 60 * 60;

/// Longest label of a stream, in bytes.
const LABEL_BYTES_MAX: usize = 256;

/// A stream that an application grants.
#[derive(Debug)]
pub(crate) struct Granted {
    /// The parameters of all fields together.
    parameters: Parameters,
    /// The cookies that it sets.
    cookies: Vec<HeaderValue>,
}

/// The stream that a response grants, if it is one that does, or what is wrong with it. Its body has
/// no meaning, and is not read.
pub(crate) fn granted(status: StatusCode, headers: &HeaderMap) -> Option<Result<Granted, String>> {
    if !headers.contains_key(TIDINGS_SUBSCRIBE) {
        return None;
    }
    if status != StatusCode::OK {
        return Some(Err(format!(
            "it answered {} with the header `Tidings-Subscribe`: a stream needs 200",
            status.as_u16()
        )));
    }
    Some(read(headers).map_err(|problem| malformed(&problem)))
}

fn read(headers: &HeaderMap) -> Result<Granted, Problem> {
    let fields: Vec<_> = headers.get_all(TIDINGS_SUBSCRIBE).iter().map(HeaderValue::as_bytes).collect();
    let parameters = Parameters::parse(&fields.join(&b'&'))?;
    parameters.refuse_unknown(&PARAMETERS, &[])?;
    Ok(Granted { parameters, cookies: headers.get_all(header::SET_COOKIE).iter().cloned().collect() })
}

fn malformed(problem: &Problem) -> String {
    format!("its `Tidings-Subscribe` is malformed: {}", problem.detail())
}

impl Granted {
    /// Opens it for the client that sends this request, or says what is wrong with it. A stream that
    /// the hub refuses to the client now has a response, too. `issued`: what was revoked when the
    /// application was asked.
    pub(crate) async fn open(
        self,
        app: &App,
        parts: &Parts,
        slot: Slot,
        issued: Issued,
    ) -> Result<Response, String> {
        let (access, request) = match stream_request(app, parts, &self.parameters).await {
            Ok(understood) => understood,
            // The limits of patterns are those of this client, and of this moment.
            Err(problem) if problem.is_temporary() => return Ok(problem.into_response()),
            Err(problem) => return Err(malformed(&problem)),
        };
        let opened = if parts.method == Method::HEAD {
            Ok(streams::without_stream(app))
        } else {
            streams::open(app, parts, slot, access, request, issued).await
        };
        let mut response = match opened {
            Ok(response) => response,
            Err(problem) => return Ok(problem.into_response()),
        };
        let cookies = self.cookies.into_iter().map(|cookie| (header::SET_COOKIE, cookie));
        response.headers_mut().extend(cookies.collect::<HeaderMap>());
        Ok(response)
    }
}

/// The stream that the application has granted.
async fn stream_request(
    app: &App,
    parts: &Parts,
    parameters: &Parameters,
) -> Result<(Access, StreamRequest), Problem> {
    let exact = parameters.values(&["topic"]);
    let matchers = streams::matchers(app, parts, &exact, &parameters.values(&["pattern"]), &[]).await?;
    if matchers.is_empty() {
        return Err(Problem::bad_request("topic", "It names no topic."));
    }
    app.hub.validator().matchers_count(matchers.len()).map_err(|invalid| Problem::of_matcher(&invalid))?;
    // Where the client is wins over where the application lets it begin: a browser that reconnects
    // continues, whatever the application says each time.
    let query = parts.uri.query().unwrap_or_default();
    let query: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    let query = query.iter().map(|(name, value)| (&**name, &**value)).filter(|(name, _)| *name != "since");
    let begin = parameters.iter().filter(|(name, _)| *name == "since");
    let start = Requested::id_or_word(&parts.headers, query.chain(begin))?;
    let expires_at = expires_secs(parameters)?.map(|secs| unix_secs().saturating_add(secs as u64));
    let access = Access::of_application(
        matchers.iter().cloned().collect(),
        expires_at,
        label(parameters)?.map(Into::into),
    );
    let request = StreamRequest {
        matchers,
        start,
        starts: native::starts(parameters)?,
        until: native::until(parameters)?,
        format: native::format(parameters)?,
        hello: parameters.switch("hello")?,
        cursor_headers: &[],
    };
    Ok((access, request))
}

/// After how many seconds the stream ends, and the application is asked again.
fn expires_secs(parameters: &Parameters) -> Result<Option<usize>, Problem> {
    parameters.number("expires", "a number of seconds", EXPIRES_SECS_MAX)
}

/// The name under which the stream can be revoked.
fn label(parameters: &Parameters) -> Result<Option<&str>, Problem> {
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
        let granted = granted(StatusCode::OK, &headers).expect("it has the header")?;
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
