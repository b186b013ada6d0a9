//! Where a request carries its credential.
//!
//! Today that is the header `Authorization` alone. A cookie, when it comes, is looked for here and only if the header is absent;
//! never the URL, which ends up in logs.

use http::{HeaderMap, header::AUTHORIZATION};

use crate::{AuthError, CREDENTIAL_BYTES_MAX};

/// The credential of a request, `None` without one.
pub(crate) fn credential(headers: &HeaderMap) -> Result<Option<&str>, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(AuthError::invalid_request("there are several headers `Authorization`: send one"));
    }
    bearer(value.as_bytes())
}

// RFC 6750, section 2.1: `Bearer` 1*SP b64token; RFC 9110, section 11.1: the name of the scheme is case-insensitive. Whoever tries
// another scheme has presented nothing that concerns us and is asked for a Bearer credential (RFC 6750, section 3.1): a proxy in
// front may use Basic for itself.
fn bearer(value: &[u8]) -> Result<Option<&str>, AuthError> {
    let (scheme, rest) = match value.iter().position(|&byte| byte == b' ') {
        Some(space) => value.split_at(space),
        None => (value, &b""[..]),
    };
    if !scheme.eq_ignore_ascii_case(b"Bearer") {
        return Ok(None);
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
