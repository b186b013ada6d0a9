//! The settings of authentication, as an operator writes them.

use std::{
    fmt,
    num::{NonZeroU32, NonZeroU64},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidings_topic::{Grants, Invalid, Matcher, Validator};
use url::Url;

use crate::CookieName;

/// The credentials that the hub accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// The keys of servers.
    #[serde(rename = "key")]
    pub keys: Vec<KeyConfig>,
    /// The issuers whose tokens are accepted, at most [`ISSUERS_MAX`](crate::ISSUERS_MAX).
    #[serde(rename = "issuer")]
    pub issuers: Vec<IssuerConfig>,
    /// The secrets that tickets are made with; the first one makes new ones.
    #[serde(rename = "ticket_secret")]
    pub ticket_secrets: Vec<TicketSecretConfig>,
    /// The cookie in which a browser may present a credential. On a hub whose public URL is `http:`
    /// on this machine, the same name without `__Secure-` or `__Host-` counts as well, because not
    /// all browsers store such cookies there.
    pub cookie_name: CookieName,
}

/// A key: a secret and its permissions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// The name in logs.
    pub name: String,
    /// The secret to present. [`generate_key_secret`](crate::generate_key_secret) generates one.
    pub secret: Secret,
    /// The topics that may be published.
    #[serde(default)]
    pub publish: Vec<MatcherText>,
    /// The topics of which private events may be received.
    #[serde(default)]
    pub subscribe: Vec<MatcherText>,
    /// Whether it may operate the hub: read its metrics and use its administrative routes.
    /// Administration includes no permission on topics.
    #[serde(default)]
    pub admin: bool,
    /// Most streams that are open with it at the same time, on one hub. Default: no limit.
    #[serde(default)]
    pub streams_max: Option<NonZeroU32>,
}

/// An issuer whose tokens are accepted: its name, its keys, and the bounds of its tokens. It has at
/// least one key, of any source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The `iss` that a token must have. No two issuers have the same. Tokens of the older revision
    /// need none, and this is only a name for them.
    pub issuer: String,
    /// The form of its tokens.
    #[serde(default)]
    pub revision: MercureRevision,
    /// A token must name one of these in its `aud`: absolute URLs, usually the one public URL of
    /// the hub. Without effect for tokens of the older revision.
    pub audiences: Vec<String>,
    /// The algorithms that are accepted. Empty means the one that matches each key: `HS256` for a
    /// shared secret.
    #[serde(default)]
    pub algorithms: Vec<Algorithm>,
    /// Keys of the configuration, at most [`ISSUER_KEYS_MAX`](crate::ISSUER_KEYS_MAX).
    #[serde(default, rename = "key")]
    pub keys: Vec<IssuerKeyConfig>,
    /// The text of a JSON Web Key Set (RFC 7517) with further keys.
    #[serde(default)]
    pub jwks: Option<String>,
    /// Where the issuer publishes further keys, which can change.
    #[serde(default)]
    pub jwks_url: Option<JwksUrl>,
    /// The topics that tokens of this issuer may allow to publish. Default: all.
    #[serde(default = "everything")]
    pub publish: Vec<MatcherText>,
    /// The topics of which tokens of this issuer may allow to receive private events. Default: all.
    #[serde(default = "everything")]
    pub subscribe: Vec<MatcherText>,
    /// Longest time that a stream with a token of this issuer is open, in seconds. Then its client
    /// reconnects, and presents its token again. Default: until the token expires.
    #[serde(default)]
    pub stream_lifetime_secs_max: Option<NonZeroU64>,
}

impl Default for IssuerConfig {
    /// Without a name and keys, and with all permissions.
    fn default() -> Self {
        Self {
            issuer: String::new(),
            revision: MercureRevision::Current,
            audiences: Vec::new(),
            algorithms: Vec::new(),
            keys: Vec::new(),
            jwks: None,
            jwks_url: None,
            publish: everything(),
            subscribe: everything(),
            stream_lifetime_secs_max: None,
        }
    }
}

fn everything() -> Vec<MatcherText> {
    vec!["*".into()]
}

/// A revision of the Mercure protocol, which decides about the form of tokens and parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(try_from = "String", into = "&'static str")]
pub enum MercureRevision {
    /// `1.0`: tokens in the form of RFC 9068 with `authorization_details`.
    #[default]
    Current,
    /// `0.x`: any signed token with the claim `mercure`. It need not expire, and what else it was
    /// made for is not checked.
    Older,
}

impl MercureRevision {
    /// As it is written in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Current => "1.0",
            Self::Older => "0.x",
        }
    }
}

impl FromStr for MercureRevision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Current, Self::Older]
            .into_iter()
            .find(|revision| revision.name() == name)
            .ok_or_else(|| "is not a revision of the Mercure protocol: use 1.0 or 0.x".to_owned())
    }
}

impl TryFrom<String> for MercureRevision {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse().map_err(|reason| format!("`{}` {reason}", name.escape_debug()))
    }
}

impl From<MercureRevision> for &'static str {
    fn from(revision: MercureRevision) -> Self {
        revision.name()
    }
}

/// A key of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerKeyConfig {
    /// The `kid` of the tokens that are signed with it. A key without one verifies only tokens
    /// without one.
    #[serde(default)]
    pub kid: Option<String>,
    /// A public key in PEM, or the shared secret of an HMAC algorithm.
    pub key: Secret,
}

/// A secret that tickets are made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketSecretConfig {
    /// The name that tickets carry: 1 to 64 letters, digits, `-` and `_`.
    pub id: String,
    /// At least 32 bytes, used as they are, without decoding. It is no key's and no issuer's.
    pub secret: Secret,
}

/// The URL of a JSON Web Key Set, and how it may be fetched. This crate fetches nothing: see
/// [`RemoteKeys`](crate::RemoteKeys).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwksUrl {
    /// `https:`, or `http:` on this machine; without user name, password and fragment.
    pub url: Url,
    /// Allows `http:` everywhere. A machine between the hub and the issuer can then replace the keys,
    /// and make tokens.
    #[serde(default)]
    pub allow_http: bool,
    /// Allows addresses of this machine and of private networks.
    #[serde(default)]
    pub allow_private: bool,
    /// The longest time from one fetch to the next, in seconds, at most
    /// [`REFRESH_SECS_MAX`](crate::REFRESH_SECS_MAX).
    #[serde(default = "JwksUrl::refresh_secs_default")]
    pub refresh_secs: u64,
    /// The shortest time between two fetches that tokens with an unknown `kid` cause, and between
    /// two fetches that the `Cache-Control` of the response asks for, in seconds.
    #[serde(default = "JwksUrl::refresh_secs_min_default")]
    pub refresh_secs_min: u64,
}

impl JwksUrl {
    /// With the default settings.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            allow_http: false,
            allow_private: false,
            refresh_secs: Self::refresh_secs_default(),
            refresh_secs_min: Self::refresh_secs_min_default(),
        }
    }

    /// Ten minutes.
    pub fn refresh_secs_default() -> u64 {
        600
    }

    /// Half a minute.
    pub fn refresh_secs_min_default() -> u64 {
        30
    }
}

/// How a token may be signed. There is no `none`, so that no configuration can allow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(try_from = "String", into = "&'static str")]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSASSA-PKCS1-v1_5 with SHA-256, keys of 2048 bits or more.
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All supported algorithms.
    pub const ALL: [Self; 6] = [Self::Hs256, Self::Hs384, Self::Hs512, Self::Rs256, Self::Es256, Self::EdDsa];

    /// The name in the `alg` of a token (RFC 7518, section 3.1; RFC 8037, section 3.1).
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The minimum length of a shared secret in bytes, the size of the hash (RFC 7518, section
    /// 3.2); `None` for algorithms with a public key.
    pub fn secret_bytes_min(self) -> Option<usize> {
        match self {
            Self::Hs256 => Some(32),
            Self::Hs384 => Some(48),
            Self::Hs512 => Some(64),
            Self::Rs256 | Self::Es256 | Self::EdDsa => None,
        }
    }

    pub(crate) fn library_name(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Hs384 => jsonwebtoken::Algorithm::HS384,
            Self::Hs512 => jsonwebtoken::Algorithm::HS512,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("no such algorithm: use one of {known}")
        })
    }
}

impl TryFrom<String> for Algorithm {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<Algorithm> for &'static str {
    fn from(algorithm: Algorithm) -> Self {
        algorithm.name()
    }
}

/// A text that is never printed: `Debug` and `Serialize` write `[hidden]` instead.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text that is printed in place of a secret.
    pub const HIDDEN: &str = "[hidden]";

    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Self::HIDDEN)
    }
}

/// A matcher as written in a configuration or on a command line: the prefixes `exact:` and
/// `pattern:` choose the kind. Without a prefix, `*` alone is every topic, a text that contains `*`
/// is a URL Pattern, and any other text is one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatcherText {
    /// The one topic of this name; `*` is every topic.
    Exact(String),
    /// A URL Pattern; `*` is every topic.
    Pattern(String),
}

impl MatcherText {
    /// Checks and compiles it.
    pub fn matcher(&self, validator: &Validator) -> Result<Matcher, Invalid> {
        match self {
            Self::Exact(text) => validator.exact(text),
            Self::Pattern(text) => validator.pattern(text),
        }
    }

    pub(crate) fn grants(texts: &[Self], validator: &Validator) -> Result<Grants, Invalid> {
        texts.iter().map(|text| text.matcher(validator)).collect()
    }
}

impl From<&str> for MatcherText {
    fn from(text: &str) -> Self {
        if let Some(exact) = text.strip_prefix("exact:") {
            Self::Exact(exact.to_owned())
        } else if let Some(pattern) = text.strip_prefix("pattern:") {
            Self::Pattern(pattern.to_owned())
        } else if text != "*" && text.contains('*') {
            Self::Pattern(text.to_owned())
        } else {
            Self::Exact(text.to_owned())
        }
    }
}

impl fmt::Display for MatcherText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, text) = match self {
            Self::Exact(text) => ("exact:", text),
            Self::Pattern(text) => ("pattern:", text),
        };
        let plain = Self::from(text.as_str()) == *self;
        write!(f, "{}{text}", if plain { "" } else { word })
    }
}

impl Serialize for MatcherText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MatcherText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| text.as_str().into())
    }
}
