//! The members of the JOSE header of a token that may be read.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use crate::member::{not_null, presence};

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
    /// RFC 7515, section 4.1.4: a string. There is only one key, so it selects nothing.
    #[serde(default, rename = "kid", deserialize_with = "not_null")]
    _kid: Option<String>,
}

impl Header {
    pub(super) fn decode(encoded: &str) -> Option<Self> {
        let json = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        serde_json::from_slice(&json).ok()
    }
}
