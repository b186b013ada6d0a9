//! The claims of a token, with their required types.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer};
use serde_json::{Number, value::RawValue};

use crate::{
    AuthError,
    member::{not_null, presence},
};

/// The claims that a hub reads (RFC 9068, section 2.2; RFC 9396, section 9). A claim of the wrong
/// type, `null` included, or a duplicate claim makes the claims invalid.
#[derive(Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) aud: Audience,
    #[serde(deserialize_with = "seconds")]
    pub(super) exp: u64,
    #[serde(default, deserialize_with = "optional_seconds")]
    pub(super) nbf: Option<u64>,
    #[serde(default, deserialize_with = "optional_seconds")]
    pub(super) iat: Option<u64>,
    #[serde(default, deserialize_with = "not_null")]
    pub(super) sub: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    pub(super) jti: Option<String>,
    /// Kept as text, because each is parsed only if its type is ours. Without this claim a token
    /// allows nothing.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) authorization_details: Option<Vec<Box<RawValue>>>,
}

/// The one claim that is read before the signature is verified: it selects the issuer whose keys may
/// verify it.
#[derive(Deserialize)]
struct Issued {
    iss: String,
}

/// The issuer that a token, valid or not, names. A duplicate `iss` names none.
pub(super) fn named_issuer(encoded: &str) -> Option<String> {
    let json = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    serde_json::from_slice::<Issued>(&json).ok().map(|issued| issued.iss)
}

/// Which claims with permissions a token has.
#[derive(Clone, Copy)]
pub(super) struct PermissionClaims {
    /// `authorization_details`.
    pub(super) details: bool,
    /// `mercure`, of the older revision of the Mercure protocol, in either spelling.
    pub(super) mercure: bool,
}

#[derive(Deserialize)]
struct Revision {
    #[serde(default, deserialize_with = "presence")]
    authorization_details: bool,
    #[serde(default, deserialize_with = "presence")]
    mercure: bool,
    #[serde(default, rename = "https://mercure.rocks/", deserialize_with = "presence")]
    mercure_by_url: bool,
}

/// The permission claims of a token, valid or not. `None`: it has no claims that can be read.
pub(super) fn permission_claims(encoded: &str) -> Option<PermissionClaims> {
    let json = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    let revision: Revision = serde_json::from_slice(&json).ok()?;
    Some(PermissionClaims {
        details: revision.authorization_details,
        mercure: revision.mercure || revision.mercure_by_url,
    })
}

/// Whether a token, valid or not, has only the permissions claim of the older revision.
pub(super) fn is_of_older_revision(encoded: &str) -> bool {
    permission_claims(encoded).is_some_and(|claims| claims.mercure && !claims.details)
}

pub(super) fn malformed() -> AuthError {
    AuthError::invalid_token("the claims of the token do not conform to RFC 9068")
}

pub(super) fn older_revision() -> AuthError {
    AuthError::invalid_token(
        "the token has no `authorization_details`: its claim `mercure` is that of the older revision of the Mercure protocol, which this \
         hub reads with `mercure_revisions = [\"1.0\", \"0.x\"]` and an [[issuer]] with `revision = \"0.x\"`",
    )
}

/// RFC 7519, section 4.1.3: one name or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Claims {
    pub(super) fn decode(encoded: &str) -> Option<Self> {
        let json = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        serde_json::from_slice(&json).ok()
    }
}

impl Audience {
    pub(super) fn contains(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Several(several) => several.iter().any(|one| one == name),
        }
    }
}

// RFC 7519, section 2: a NumericDate is a number, possibly with a fraction. A date before 1970
// counts as 1970.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = Number::deserialize(deserializer)?;
    Ok(number.as_u64().unwrap_or_else(|| {
        let fractional = number.as_f64().unwrap_or(0.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it saturates at both ends"
        )]
        let whole = fractional as u64;
        whole
    }))
}

pub(super) fn optional_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    seconds(deserializer).map(Some)
}
