//! Creates and inspects tokens, for applications and the command line.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use crate::{
    Algorithm, CREDENTIAL_BYTES_MAX, ConfigError, MatcherText, Secret,
    keys::random_text,
    token::{DETAIL_TYPE, signing_key},
};

/// A key that signs tokens.
pub struct SigningKey {
    algorithm: Algorithm,
    kid: Option<String>,
    key: jsonwebtoken::EncodingKey,
}

/// The claims of a token to create.
#[derive(Clone, Debug, PartialEq)]
pub struct NewToken {
    /// `iss`: the issuer.
    pub issuer: String,
    /// `aud`: the hub.
    pub audience: String,
    /// `sub`: the holder.
    pub subject: String,
    /// `iat`: the present time, in seconds since 1970.
    pub issued_at: u64,
    /// `exp`: when it ends.
    pub expires_at: u64,
    /// The topics that may be published.
    pub publish: Vec<MatcherText>,
    /// The topics of which private events may be received.
    pub subscribe: Vec<MatcherText>,
    /// The payload of the holder's subscriptions, shown by the hub to other clients.
    pub payload: Option<Map<String, Value>>,
}

/// The claims of a token of the older revision (0.x) of the Mercure protocol to create. It names
/// neither an issuer nor a hub.
#[derive(Clone, Debug, PartialEq)]
pub struct NewOlderToken {
    /// `sub`: the holder.
    pub subject: String,
    /// `iat`: the present time, in seconds since 1970.
    pub issued_at: u64,
    /// `exp`: when it ends.
    pub expires_at: u64,
    /// What may be published: `*`, topics, and URI Templates.
    pub publish: Vec<String>,
    /// What private events may be received of, in the same form.
    pub subscribe: Vec<String>,
    /// The payload of the holder's subscriptions, shown by the hub to other clients.
    pub payload: Option<Map<String, Value>>,
}

/// Why no token was created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MintError {
    /// It would be longer than any hub accepts.
    #[error("the token would have {0} bytes; hubs accept at most {CREDENTIAL_BYTES_MAX}")]
    TooLong(usize),
    /// The key cannot sign.
    #[error("the key cannot sign")]
    Signing,
}

/// The decoded parts of a token. Nothing is verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspected {
    /// The JOSE header.
    pub header: Map<String, Value>,
    /// The claims.
    pub claims: Map<String, Value>,
}

/// The text is not a signed JSON Web Token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a JSON Web Token: it must have three parts in base64url, separated by dots")]
pub struct NotAToken;

impl SigningKey {
    /// Takes a shared secret or a private key in PEM. Without an algorithm, it chooses the one that
    /// matches, `HS256` for a secret.
    pub fn new(key: &Secret, algorithm: Option<Algorithm>) -> Result<Self, ConfigError> {
        let (algorithm, key) =
            signing_key(key, algorithm).map_err(|reason| ConfigError::new("key", reason))?;
        Ok(Self { algorithm, kid: None, key })
    }

    /// Writes this `kid` into the header of its tokens, by which a hub finds the key of the issuer.
    #[must_use]
    pub fn with_kid(self, kid: Option<String>) -> Self {
        Self { kid, ..self }
    }

    /// The algorithm of the signatures.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// Creates an access token in the form of RFC 9068, whose `authorization_details` are those of the
/// Mercure protocol.
pub fn mint(token: &NewToken, key: &SigningKey) -> Result<String, MintError> {
    let claims = json!({
        "iss": token.issuer,
        "aud": token.audience,
        "sub": token.subject,
        "client_id": token.subject,
        "iat": token.issued_at,
        "exp": token.expires_at,
        "jti": random_text::<16>(),
        "authorization_details": details(token),
    });
    signed("at+jwt", &claims, key)
}

/// Creates a token with the claim `mercure`, for hubs before 1.0 and for issuers of that revision.
pub fn mint_older(token: &NewOlderToken, key: &SigningKey) -> Result<String, MintError> {
    let mut mercure = json!({ "publish": token.publish, "subscribe": token.subscribe });
    if let Some(payload) = &token.payload {
        mercure["payload"] = Value::Object(payload.clone());
    }
    let claims = json!({
        "sub": token.subject,
        "iat": token.issued_at,
        "exp": token.expires_at,
        "jti": random_text::<16>(),
        "mercure": mercure,
    });
    signed("JWT", &claims, key)
}

fn signed(token_type: &str, claims: &Value, key: &SigningKey) -> Result<String, MintError> {
    let mut header = json!({ "typ": token_type, "alg": key.algorithm.name() });
    if let Some(kid) = &key.kid {
        header["kid"] = json!(kid);
    }
    let message = format!("{}.{}", encode(&header), encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key.key, key.algorithm.library_name())
        .map_err(|_| MintError::Signing)?;
    let minted = format!("{message}.{signature}");
    if minted.len() > CREDENTIAL_BYTES_MAX {
        return Err(MintError::TooLong(minted.len()));
    }
    Ok(minted)
}

/// Decodes a token without verifying it.
pub fn inspect(token: &str) -> Result<Inspected, NotAToken> {
    let [header, claims, _] = token.trim().split('.').collect::<Vec<_>>()[..] else {
        return Err(NotAToken);
    };
    Ok(Inspected { header: decode(header)?, claims: decode(claims)? })
}

fn details(token: &NewToken) -> Vec<Value> {
    let detail = |action: &str, matchers: &[MatcherText]| {
        let topics: Vec<Value> = matchers.iter().map(topic).collect();
        json!({ "type": DETAIL_TYPE, "actions": [action], "topics": topics })
    };
    let mut details = Vec::new();
    if !token.publish.is_empty() {
        details.push(detail("publish", &token.publish));
    }
    if !token.subscribe.is_empty() {
        let mut subscribe = detail("subscribe", &token.subscribe);
        if let Some(payload) = &token.payload {
            subscribe["payload"] = Value::Object(payload.clone());
        }
        details.push(subscribe);
    }
    details
}

fn topic(matcher: &MatcherText) -> Value {
    match matcher {
        MatcherText::Exact(text) => json!({ "match": text }),
        MatcherText::Pattern(text) => json!({ "match": text, "match_type": "urlpattern" }),
    }
}

fn encode(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

fn decode(part: &str) -> Result<Map<String, Value>, NotAToken> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| NotAToken)?;
    serde_json::from_slice(&json).map_err(|_| NotAToken)
}
