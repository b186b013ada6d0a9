//! The JOSE header of a token, as far as it may be looked at.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What decides how a token is read. A member that stands there twice makes the header unreadable.
#[derive(Deserialize)]
pub(super) struct Header {
    #[serde(default)]
    pub(super) typ: Option<String>,
    pub(super) alg: String,
    /// Whatever it contains, it asks for something that we do not do.
    #[serde(default)]
    pub(super) crit: Option<Box<RawValue>>,
}

impl Header {
    pub(super) fn decode(encoded: &str) -> Option<Self> {
        let json = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        serde_json::from_slice(&json).ok()
    }
}
