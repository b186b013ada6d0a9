//! The members of the JOSE header of a token that may be read.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use crate::{
    AuthError,
    member::{not_null, presence},
};

/// The members that decide how a token is read. A member of the wrong type, or a duplicate one (RFC
/// 7515, section 4), makes the header invalid.
#[derive(Deserialize)]
pub(super) struct Header {
    #[serde(default)]
    pub(super) typ: Option<String>,
    pub(super) alg: String,
    /// Whatever it contains, `null` included, it requires an extension that is not supported.
    #[serde(default, deserialize_with = "presence")]
    pub(super) crit: bool,
    /// RFC 7797, section 6: another encoding of the claims, which must be critical.
    #[serde(default, deserialize_with = "presence")]
    pub(super) b64: bool,
    /// RFC 7515, section 4.1.4: a string, which selects among the keys of the issuer.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) kid: Option<String>,
}

impl Header {
    // RFC 9068, section 4: the type distinguishes an access token from every other JWT of the same
    // issuer. RFC 7515, section 4.1.11: a critical extension that is not supported makes the token
    // invalid; none is supported.
    pub(super) fn check(&self) -> Result<(), AuthError> {
        if !self.is_access_token() {
            return Err(AuthError::invalid_token("the `typ` of the token is not `at+jwt`"));
        }
        self.refuse_extensions()
    }

    pub(super) fn is_access_token(&self) -> bool {
        self.typ.as_deref().is_some_and(|typ| {
            typ.eq_ignore_ascii_case("at+jwt") || typ.eq_ignore_ascii_case("application/at+jwt")
        })
    }

    pub(super) fn refuse_extensions(&self) -> Result<(), AuthError> {
        if self.crit || self.b64 {
            return Err(AuthError::invalid_token("the token has critical extensions that are not supported"));
        }
        Ok(())
    }

    pub(super) fn decode(encoded: &str) -> Option<Self> {
        let json = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        serde_json::from_slice(&json).ok()
    }
}
