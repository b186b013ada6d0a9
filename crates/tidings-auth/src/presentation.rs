//! Where a request carries its credential.
//!
//! A hub looks into the header `Authorization` alone. Other servers take credentials from the URL and from cookies, and a client
//! that was made for one of them must not be served as if it had none: what it may not receive would be missing without a word. So
//! the names by which these carry one are a closed list, and what is found under them is refused, unread.

use http::{HeaderMap, header};
use url::form_urlencoded;

use crate::{AuthError, CREDENTIAL_BYTES_MAX};

/// The parameters of a query that are credentials elsewhere. A URL ends up in logs and histories, so a hub takes none from there.
pub const CREDENTIAL_PARAMETERS: [&str; 5] = ["authorization", "access_token", "token", "jwt", "ticket"];

/// The cookies that are credentials elsewhere: those of the Mercure protocol, in its older and its current revision. All others
/// belong to the application.
pub const CREDENTIAL_COOKIES: [&str; 2] = ["mercureAuthorization", "__Secure-mercure_access_token"];

/// Schemes that a proxy in front may use for itself, and pass on. They present nothing that concerns a hub.
const SCHEMES_OF_PROXIES: [&str; 4] = ["Basic", "Digest", "Negotiate", "NTLM"];

/// The credential of a request, `None` without one.
pub(crate) fn credential<'a>(
    headers: &'a HeaderMap,
    query: Option<&str>,
) -> Result<Option<&'a str>, AuthError> {
    let in_header = in_header(headers)?;
    match (in_header, in_url(query)) {
        // RFC 6750, section 2: not more than one method in a request.
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

/// Refuses a request with a credential in its URL, for hubs that ask for none.
pub fn refuse_in_url(query: Option<&str>) -> Result<(), AuthError> {
    in_url(query).map_or(Ok(()), |name| Err(misplaced(&format!("parameter `{name}`"))))
}

fn misplaced(place: &str) -> AuthError {
    AuthError::Missing(format!(
        "the {place} is no place where this hub looks for a credential: send it in the header `Authorization: Bearer …`"
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

// RFC 6265, section 4.2.1: pairs with `; ` between them. HTTP/2 may send each in a field of its own (RFC 9113, section 8.2.3). A
// cookie without a value is one that the application has cleared.
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

// RFC 6750, section 2.1: `Bearer` 1*SP b64token; RFC 9110, section 11.1: the name of the scheme is case-insensitive. The one that tries
// the scheme of a proxy has presented nothing that concerns us and is asked for a Bearer credential where one is needed (RFC 6750,
// section 3.1). Any other was meant for us.
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
        AuthError::invalid_request("the header `Authorization: Bearer` has characters that no credential has")
    })
}

/// RFC 6750, section 2.1: `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
pub(crate) fn is_b64token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}
