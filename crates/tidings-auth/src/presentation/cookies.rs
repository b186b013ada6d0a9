//! Credentials in cookies.

use std::str::FromStr;

use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{AuthError, loopback::is_on_this_machine};

/// The cookie that a hub reads if no other is configured, as the Mercure protocol names it.
pub const COOKIE_NAME: &str = "__Secure-mercure_access_token";

/// Cookies that are credentials on other servers: those of the Mercure protocol, in its older and
/// its current revision. A hub that is configured to read others refuses these; all further ones
/// belong to the application.
pub const CREDENTIAL_COOKIES: [&str; 2] = [OLDER_COOKIE, COOKIE_NAME];

/// The cookie of the older revision of the Mercure protocol.
const OLDER_COOKIE: &str = "mercureAuthorization";

/// Prefixes with which browsers store a cookie from a secure origin only (RFC 6265bis, section
/// 4.1.3).
const SECURE_PREFIXES: [&str; 2] = ["__Secure-", "__Host-"];

/// The name of a cookie: letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CookieName(String);

impl Default for CookieName {
    fn default() -> Self {
        Self(COOKIE_NAME.to_owned())
    }
}

impl FromStr for CookieName {
    type Err = String;

    // RFC 6265, section 4.1.1, allows more; these are the characters that no framework quotes.
    fn from_str(name: &str) -> Result<Self, String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_plain) {
            return Err("is not the name of a cookie: use letters, digits, `-`, `_` and `.`".to_owned());
        }
        Ok(Self(name.to_owned()))
    }
}

impl TryFrom<String> for CookieName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<CookieName> for String {
    fn from(name: CookieName) -> Self {
        name.0
    }
}

/// The cookies that a hub reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct CookieNames(Vec<String>);

impl CookieNames {
    pub(crate) fn new(CookieName(name): CookieName, hub_url: &Url) -> Self {
        let plain = SECURE_PREFIXES.into_iter().find_map(|prefix| name.strip_prefix(prefix));
        let plain = plain.filter(|plain| !plain.is_empty() && is_for_development(hub_url)).map(str::to_owned);
        Self([name].into_iter().chain(plain).collect())
    }

    /// The one of the configuration; empty if there is no configuration.
    pub(crate) fn configured(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// The credential and the name of its cookie.
    pub(super) fn find<'a>(&self, headers: &'a HeaderMap) -> Result<Option<(&str, &'a [u8])>, AuthError> {
        single(headers, &self.0)
    }
}

/// The token in the cookie of the older revision of the Mercure protocol.
pub(super) fn of_older_revision(headers: &HeaderMap) -> Result<Option<&[u8]>, AuthError> {
    Ok(single(headers, &[OLDER_COOKIE])?.map(|(_, value)| value))
}

/// The one value of these cookies, and the name of its cookie. A cookie without a value was cleared by
/// the application. Two values for the hub would let a cookie of another path or domain decide whose
/// events a browser receives.
fn single<'h, 'n>(
    headers: &'h HeaderMap,
    names: &'n [impl AsRef<str>],
) -> Result<Option<(&'n str, &'h [u8])>, AuthError> {
    let mut found = None;
    for (name, value) in pairs(headers).filter(|(_, value)| !value.is_empty()) {
        let known = names.iter().map(AsRef::as_ref).find(|known: &&str| known.as_bytes() == name);
        let Some(known) = known else { continue };
        match found {
            None => found = Some((known, value)),
            Some((_, other)) if other == value => {}
            Some(_) => {
                return Err(AuthError::invalid_request(format!(
                    "there are two credentials in cookies `{known}`: clear one of them, which may be of another path or domain"
                )));
            }
        }
    }
    Ok(found)
}

/// Whether browsers reach this hub without TLS on their own machine.
fn is_for_development(hub_url: &Url) -> bool {
    hub_url.scheme() == "http" && is_on_this_machine(hub_url)
}

/// A cookie that is a credential on other servers.
pub(super) fn foreign(headers: &HeaderMap) -> Option<&'static str> {
    pairs(headers)
        .filter(|(_, value)| !value.is_empty())
        .find_map(|(name, _)| CREDENTIAL_COOKIES.into_iter().find(|known| known.as_bytes() == name))
}

// RFC 6265, section 4.2.1: pairs, separated by `; `. HTTP/2 may send each in a separate field (RFC
// 9113, section 8.2.3).
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs =
        headers.get_all(header::COOKIE).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b';'));
    pairs.filter_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        Some((pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii()))
    })
}
