//! Finds the credential in a request.
//!
//! A hub only reads the header `Authorization`. Other servers accept credentials in the URL and in
//! cookies, and a client made for one of them must not be served as an anonymous one: private
//! events would be missing silently. So the names of such parameters and cookies are a closed list,
//! and a request with one of them is refused; its value is not read.

use http::{HeaderMap, header};
use url::form_urlencoded;

use crate::{AuthError, CREDENTIAL_BYTES_MAX};

/// Query parameters that are credentials on other servers. URLs end up in logs and histories, so a
/// hub accepts none there.
pub const CREDENTIAL_PARAMETERS: [&str; 5] = ["authorization", "access_token", "token", "jwt", "ticket"];

/// Cookies that are credentials on other servers: those of the Mercure protocol, in its older and
/// its current revision. All others belong to the application.
pub const CREDENTIAL_COOKIES: [&str; 2] = ["mercureAuthorization", "__Secure-mercure_access_token"];

/// Schemes that a reverse proxy may use for itself, and forward. They present no credential for a
/// hub.
const SCHEMES_OF_PROXIES: [&str; 4] = ["Basic", "Digest", "Negotiate", "NTLM"];

/// The credential of a request, `None` without one.
pub(crate) fn credential<'a>(
    headers: &'a HeaderMap,
    query: Option<&str>,
) -> Result<Option<&'a str>, AuthError> {
    let in_header = in_header(headers)?;
    match (in_header, in_url(query)) {
        // RFC 6750, section 2: no more than one method per request.
        (Some(_), Some(name)) => Err(AuthError::invalid_request(format!(
            "there are two credentials, in the header `Authorization` and in the parameter `{name}`: leave the parameter out"
        ))),
        (None, Some(name)) => Err(misplaced(&format!("parameter `{name}`"))),
        // The Mercure protocol, "Authorization": the header wins over the cookie.
        (Some(credential), None) => Ok(Some(credential)),
        (None, None) => {
            in_cookie(headers).map_or(Ok(None), |name| Err(misplaced(&format!("cookie `{name}`"))))
        }
    }
}

/// Refuses a request with a credential in its URL, for hubs that require none.
pub fn refuse_in_url(query: Option<&str>) -> Result<(), AuthError> {
    in_url(query).map_or(Ok(()), |name| Err(misplaced(&format!("parameter `{name}`"))))
}

fn misplaced(place: &str) -> AuthError {
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

fn in_url(query: Option<&str>) -> Option<&'static str> {
    let names = form_urlencoded::parse(query?.as_bytes()).map(|(name, _)| name);
    names.into_iter().find_map(|name| CREDENTIAL_PARAMETERS.into_iter().find(|known| *known == name))
}

// RFC 6265, section 4.2.1: pairs, separated by `; `. HTTP/2 may send each in a separate field (RFC
// 9113, section 8.2.3). A cookie without a value was cleared by the application.
fn in_cookie(headers: &HeaderMap) -> Option<&'static str> {
    let pairs =
        headers.get_all(header::COOKIE).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b';'));
    pairs.into_iter().find_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        let known = CREDENTIAL_COOKIES.into_iter().find(|known| known.as_bytes() == name);
        known.filter(|_| !value.is_empty())
    })
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
    if credential.len() > CREDENTIAL_BYTES_MAX {
        return Err(AuthError::invalid_token(format!(
            "the credential is longer than {CREDENTIAL_BYTES_MAX} bytes"
        )));
    }
    let text = std::str::from_utf8(credential).ok().filter(|text| is_b64token(text));
    text.map(Some).ok_or_else(|| {
        AuthError::invalid_request(
            "the header `Authorization: Bearer` has characters that a credential cannot contain",
        )
    })
}

/// RFC 6750, section 2.1: `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
pub(crate) fn is_b64token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}
