//! Finds the credential in a request.
//!
//! A hub reads the header `Authorization`, the parameter `ticket` for tickets only, and one cookie,
//! in this order; on request also where the older revision of the Mercure protocol has tokens. A
//! weaker one is not looked at where there is a stronger one. Other servers read
//! credentials elsewhere, and a client made for one of them must not be served as an anonymous one:
//! private events would be missing silently. So the names of such parameters and cookies are a
//! closed list, and a request with one of them is refused; its value is not read.

mod cookies;

use std::borrow::Cow;

use http::{HeaderMap, header};
use url::form_urlencoded;

use crate::{AuthError, CREDENTIAL_BYTES_MAX, CredentialPlace, ticket::has_ticket_shape};

pub(crate) use cookies::CookieNames;
pub use cookies::{COOKIE_NAME, CREDENTIAL_COOKIES, CookieName};

/// Query parameters that are credentials on other servers. URLs end up in logs and histories, so a
/// hub accepts none there.
pub const CREDENTIAL_PARAMETERS: [&str; 4] = ["authorization", "access_token", "token", "jwt"];

/// The query parameter for a ticket, which is short-lived and allows only to subscribe.
pub const TICKET_PARAMETER: &str = "ticket";

/// The query parameter in which the older revision of the Mercure protocol has tokens.
const OLDER_PARAMETER: &str = "authorization";

/// Where a request may present its credential.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum CredentialPlaces {
    /// In the header `Authorization`, in the parameter `ticket`, and in the cookie of the
    /// configuration.
    #[default]
    Current,
    /// Also in the parameter `authorization` and in the cookie `mercureAuthorization`, as in the
    /// older revision of the Mercure protocol, and tokens of that revision only. The header counts
    /// first, then the parameter, then the cookies.
    WithOlder,
}

/// Schemes that a reverse proxy may use for itself, and forward. They present no credential for a
/// hub.
const SCHEMES_OF_PROXIES: [&str; 4] = ["Basic", "Digest", "Negotiate", "NTLM"];

/// A credential, and where the request presents it.
pub(crate) struct Presented<'a> {
    pub(crate) credential: Cow<'a, str>,
    pub(crate) place: CredentialPlace,
    /// The name of a place in which only a token of the older revision of the Mercure protocol may
    /// be.
    pub(crate) older_only: Option<&'static str>,
}

/// The credential of a request, `None` without one.
pub(crate) fn find<'a>(
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    cookies: &CookieNames,
    places: CredentialPlaces,
) -> Result<Option<Presented<'a>>, AuthError> {
    let presented =
        |credential: Cow<'a, str>, place| Ok(Some(Presented { credential, place, older_only: None }));
    let older = |credential: Cow<'a, str>, place, name| {
        Ok(Some(Presented { credential, place, older_only: Some(name) }))
    };
    let with_older = places == CredentialPlaces::WithOlder;
    let in_header = in_header(headers)?;
    let foreign = foreign_parameter(query).filter(|name| !(with_older && *name == OLDER_PARAMETER));
    match (in_header, foreign) {
        // RFC 6750, section 2: no more than one method per request.
        (Some(_), Some(name)) => {
            return Err(AuthError::invalid_request(format!(
                "there are two credentials, in the header `Authorization` and in the parameter `{name}`: leave the parameter out"
            )));
        }
        (None, Some(name)) => return Err(misplaced(&format!("parameter `{name}`"))),
        // The Mercure protocol, "Authorization": the header wins over the cookie.
        (Some(credential), None) => return presented(credential.into(), CredentialPlace::Header),
        (None, None) => {}
    }
    if with_older && let Some(token) = single_parameter(query, OLDER_PARAMETER)? {
        checked(token.as_bytes(), "the parameter `authorization`")?;
        return older(token, CredentialPlace::Parameter, "parameter `authorization`");
    }
    if let Some(ticket) = in_ticket_parameter(query)? {
        return presented(ticket, CredentialPlace::Parameter);
    }
    if let Some((name, value)) = cookies.find(headers)? {
        let credential = checked(value, &format!("the cookie `{name}`"))?;
        return presented(credential.into(), CredentialPlace::Cookie);
    }
    if with_older && let Some(value) = cookies::of_older_revision(headers)? {
        let credential = checked(value, "the cookie `mercureAuthorization`")?;
        return older(credential.into(), CredentialPlace::Cookie, "cookie `mercureAuthorization`");
    }
    cookies::foreign(headers).map_or(Ok(None), |name| Err(misplaced(&format!("cookie `{name}`"))))
}

/// Refuses a request with a credential in its URL, for hubs without keys, which can check none.
pub fn refuse_in_url(query: Option<&str>) -> Result<(), AuthError> {
    if parameters(query).any(|(name, _)| name == TICKET_PARAMETER) {
        return Err(AuthError::Missing(
            "this hub has no [[ticket_secret]], so it cannot check the parameter `ticket`: leave it out"
                .to_owned(),
        ));
    }
    foreign_parameter(query).map_or(Ok(()), |name| Err(misplaced(&format!("parameter `{name}`"))))
}

/// The error for a credential in a place that is not read, such as "parameter `token`".
pub(crate) fn misplaced(place: &str) -> AuthError {
    AuthError::Missing(format!(
        "this hub does not read a credential from the {place}: send it in the header `Authorization: Bearer …`"
    ))
}

fn in_header(headers: &HeaderMap) -> Result<Option<&str>, AuthError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(AuthError::invalid_request("there are several headers `Authorization`: send one"));
    }
    bearer(value.as_bytes())
}

fn parameters(query: Option<&str>) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
}

fn foreign_parameter(query: Option<&str>) -> Option<&'static str> {
    parameters(query).find_map(|(name, _)| CREDENTIAL_PARAMETERS.into_iter().find(|known| *known == name))
}

/// The value of a parameter that may be given once, and not without a value.
fn single_parameter<'a>(query: Option<&'a str>, wanted: &str) -> Result<Option<Cow<'a, str>>, AuthError> {
    let mut values = parameters(query).filter(|(name, _)| name == wanted).map(|(_, value)| value);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(AuthError::invalid_request(format!(
            "the parameter `{wanted}` is given more than once: give it once"
        )));
    }
    if value.is_empty() {
        return Err(AuthError::invalid_request(format!("the parameter `{wanted}` is empty")));
    }
    Ok(Some(value))
}

fn in_ticket_parameter(query: Option<&str>) -> Result<Option<Cow<'_, str>>, AuthError> {
    let Some(ticket) = single_parameter(query, TICKET_PARAMETER)? else { return Ok(None) };
    if !has_ticket_shape(&ticket) {
        return Err(misplaced("parameter `ticket` unless it is a ticket"));
    }
    Ok(Some(ticket))
}

// RFC 6750, section 2.1: `Bearer` 1*SP b64token; RFC 9110, section 11.1: the name of the scheme is
// case-insensitive. A request with the scheme of a proxy presents no credential for the hub, and
// receives a Bearer challenge where one is required (RFC 6750, section 3.1). Any other scheme is
// taken for a credential.
fn bearer(value: &[u8]) -> Result<Option<&str>, AuthError> {
    let (scheme, rest) = match value.iter().position(|&byte| byte == b' ') {
        Some(space) => value.split_at(space),
        None => (value, &b""[..]),
    };
    if SCHEMES_OF_PROXIES.iter().any(|known| scheme.eq_ignore_ascii_case(known.as_bytes())) {
        return Ok(None);
    }
    if !scheme.eq_ignore_ascii_case(b"Bearer") {
        return Err(AuthError::invalid_request(
            "the header `Authorization` is not of the scheme `Bearer`: write it as `Authorization: Bearer …`",
        ));
    }
    let credential = rest.trim_ascii();
    if credential.is_empty() {
        return Err(AuthError::invalid_request("the header `Authorization: Bearer` has no credential"));
    }
    checked(credential, "the header `Authorization: Bearer`").map(Some)
}

/// The bytes of a credential as text. `place` names where they were.
fn checked<'a>(credential: &'a [u8], place: &str) -> Result<&'a str, AuthError> {
    if credential.len() > CREDENTIAL_BYTES_MAX {
        return Err(AuthError::invalid_token(format!(
            "the credential is longer than {CREDENTIAL_BYTES_MAX} bytes"
        )));
    }
    let text = std::str::from_utf8(credential).ok().filter(|text| is_b64token(text));
    text.ok_or_else(|| {
        AuthError::invalid_request(format!("{place} has characters that a credential cannot contain"))
    })
}

/// RFC 6750, section 2.1: `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
pub(crate) fn is_b64token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}
