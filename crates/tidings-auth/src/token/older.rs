//! Tokens of the older revision of the Mercure protocol (0.x).
//!
//! Such a token has no type of its own, and states neither its issuer nor its audience: every token
//! of the right signature is one, whatever it was made for. It is therefore checked only with keys
//! that the operator marked for this revision, never with those of other issuers, and no key of this
//! revision verifies anything else. It need not expire.

use std::{num::NonZeroU64, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Value, value::RawValue};
use tidings_topic::{Grants, PatternSyntax, Validator};

use super::{
    bounds::Bounds,
    claims::{self, PermissionClaims, optional_seconds},
    details::{GRANTS_MAX, Permissions},
    header::Header,
    issuer::{check_not_before, configured_keys, expired, refuse},
    key::{VerificationKey, keys_for},
    parts::Parts,
};
use crate::{
    Access, AuthError, ConfigError, IssuerConfig, Subject, access::SubscribeDetail, member::not_null,
};

/// Most keys of this revision in all issuers: a token names no issuer, so each may be tried.
pub const OLDER_KEYS_MAX: usize = 8;

/// An issuer of such tokens, by the name that the operator gave it.
#[derive(Debug)]
pub(super) struct OlderIssuer {
    name: Arc<str>,
    keys: Vec<VerificationKey>,
    bounds: Bounds,
    stream_lifetime_secs_max: Option<NonZeroU64>,
    validator: Validator,
}

/// Whether a token, valid or not, is of this revision: it has a `mercure` claim and no
/// `authorization_details`, or neither of them and not the type of the current revision.
pub(super) fn is_older(parts: Parts<'_>) -> bool {
    let Some(PermissionClaims { details, mercure }) = claims::permission_claims(parts.claims) else {
        return false;
    };
    let is_access_token = || Header::decode(parts.header).is_some_and(|header| header.is_access_token());
    !details && (mercure || !is_access_token())
}

/// What this token allows at this time.
pub(super) fn verify(
    issuers: &[OlderIssuer],
    parts: Parts<'_>,
    now_unix_secs: u64,
) -> Result<Access, AuthError> {
    let header = Header::decode(parts.header)
        .ok_or_else(|| AuthError::invalid_token("the header of the token does not conform to RFC 7515"))?;
    header.refuse_extensions()?;
    let issuer = issuers.iter().find(|issuer| issuer.has_signed(parts, &header)).ok_or_else(|| {
        AuthError::invalid_token(
            "the token is of the older revision of the Mercure protocol (0.x), and no key for this revision verifies its signature",
        )
    })?;
    issuer.access(Claims::decode(parts.claims)?, now_unix_secs)
}

/// The claims that a hub reads. A claim of the wrong type, or a duplicate one, makes the claims
/// invalid.
#[derive(Deserialize)]
struct Claims {
    #[serde(default, deserialize_with = "granted")]
    mercure: Option<Granted>,
    #[serde(default, rename = "https://mercure.rocks/", deserialize_with = "granted")]
    mercure_by_url: Option<Granted>,
    #[serde(default, deserialize_with = "optional_seconds")]
    exp: Option<u64>,
    #[serde(default, deserialize_with = "optional_seconds")]
    nbf: Option<u64>,
    #[serde(default, deserialize_with = "optional_seconds")]
    iat: Option<u64>,
    #[serde(default, deserialize_with = "not_null")]
    sub: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    jti: Option<String>,
}

/// The `mercure` claim. What it does not name it does not allow; libraries write an empty list as
/// `null`, too.
#[derive(Deserialize, Default)]
struct Granted {
    #[serde(default)]
    publish: Option<Vec<String>>,
    #[serde(default)]
    subscribe: Option<Vec<String>>,
    /// Of the holder's subscriptions; one that is not an object is not shown.
    #[serde(default)]
    payload: Option<Value>,
}

/// An object. PHP writes an empty one as `[]`.
fn granted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Granted>, D::Error> {
    let text = Box::<RawValue>::deserialize(deserializer)?;
    match text.get() {
        "null" | "[]" => Ok(None),
        // Serde would read a list as the members in their order.
        text if text.starts_with('{') => serde_json::from_str(text).map(Some).map_err(D::Error::custom),
        _ => Err(D::Error::custom("not an object")),
    }
}

impl Claims {
    fn decode(encoded: &str) -> Result<Self, AuthError> {
        let json = URL_SAFE_NO_PAD.decode(encoded).ok();
        let claims: Option<Self> = json.and_then(|json| serde_json::from_slice(&json).ok());
        let claims = claims.ok_or_else(|| {
            AuthError::invalid_token(
                "the claims of the token are not those of the older revision of the Mercure protocol (0.x): `mercure` has the lists \
                 `publish` and `subscribe`",
            )
        })?;
        if claims.mercure.is_some() && claims.mercure_by_url.is_some() {
            return Err(AuthError::invalid_token(
                "the token has the claims `mercure` and `https://mercure.rocks/`: leave one of them out",
            ));
        }
        Ok(claims)
    }
}

impl OlderIssuer {
    pub(super) fn new(config: &IssuerConfig, validator: &Validator) -> Result<Self, ConfigError> {
        let refuse = |field, reason: &str| refuse(&config.issuer, field, reason);
        if config.issuer.is_empty() {
            return Err(refuse("iss", "is empty: give the issuer a name, for logs and revocations"));
        }
        for (field, is_given) in
            [("jwks_file", config.jwks.is_some()), ("jwks_url", config.jwks_url.is_some())]
        {
            if is_given {
                return Err(refuse(
                    field,
                    "is not for tokens of the older revision (0.x), which name no issuer: give the key itself",
                ));
            }
        }
        let keys = configured_keys(config)?;
        if keys.is_empty() {
            return Err(refuse("key", "is missing: give a secret or a public key"));
        }
        let bounds = Bounds::new(&config.publish, &config.subscribe, validator)
            .map_err(|(field, reason)| refuse(field, &reason))?;
        Ok(Self {
            name: config.issuer.as_str().into(),
            keys,
            bounds,
            stream_lifetime_secs_max: config.stream_lifetime_secs_max,
            validator: validator.clone(),
        })
    }

    // RFC 8725, section 3.1: the algorithm is one that the operator allowed for the key.
    fn has_signed(&self, parts: Parts<'_>, header: &Header) -> bool {
        let keys = keys_for(&self.keys, None, header.kid.as_deref());
        keys.into_iter().any(|key| {
            let algorithm = key.algorithm(&header.alg);
            algorithm.is_some_and(|algorithm| key.verifies(algorithm, parts.message, parts.signature))
        })
    }

    fn access(&self, claims: Claims, now_unix_secs: u64) -> Result<Access, AuthError> {
        if claims.exp.is_some_and(|expires_at| now_unix_secs >= expires_at) {
            return Err(expired());
        }
        check_not_before(claims.nbf, now_unix_secs)?;
        let granted = claims.mercure.or(claims.mercure_by_url).unwrap_or_default();
        let permissions = self.bounds.apply(self.permissions(granted)?);
        let subject = Subject::Token(claims.sub.as_deref().map(Into::into));
        let access = Access::new(subject, permissions.publish, permissions.subscribe);
        let mut access =
            access.of_issuer(&self.name).with_id(claims.jti).until(claims.exp, permissions.details);
        access.is_of_older_revision = true;
        access.issued_at = claims.iat;
        access.limits.stream_lifetime_secs_max = self.stream_lifetime_secs_max;
        Ok(access)
    }

    fn permissions(&self, granted: Granted) -> Result<Permissions, AuthError> {
        let Granted { publish, subscribe, payload } = granted;
        let (publish, subscribe) = (publish.unwrap_or_default(), subscribe.unwrap_or_default());
        if publish.len() + subscribe.len() > GRANTS_MAX {
            return Err(AuthError::invalid_token(format!("the token names more than {GRANTS_MAX} topics")));
        }
        let subscribe = self.grants(&subscribe)?;
        let payload = payload.and_then(|payload| match payload {
            Value::Object(members) => Some(members),
            _ => None,
        });
        let details = vec![SubscribeDetail { topics: Grants::NONE, payload, is_for_all: true }];
        Ok(Permissions { publish: self.grants(&publish)?, subscribe, details })
    }

    fn grants(&self, selectors: &[String]) -> Result<Grants, AuthError> {
        let matchers = selectors.iter().map(|text| self.validator.matcher(PatternSyntax::UriTemplate, text));
        matchers.collect::<Result<_, _>>().map_err(|invalid| {
            AuthError::invalid_token(format!(
                "a topic of the token's claim `mercure` cannot be used: {invalid}"
            ))
        })
    }
}
