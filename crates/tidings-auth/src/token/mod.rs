//! Access tokens of the trusted issuers: compact JWS in the form of RFC 9068.
//!
//! A token is checked in this order: its type, its `iss`, which selects one issuer of the
//! configuration, its `kid` and `alg`, which select among the keys of this issuer, the signature, and
//! then everything else. So a key of one issuer never verifies a token of another (RFC 8725, section
//! 3.10), whatever the `kid` is, and before the signature is verified nothing in a token has an
//! effect besides this selection.
//!
//! - [`issuer`]: an issuer and its check of a token.
//! - [`key`]: a key and its algorithms. [`jwks`]: keys that an issuer publishes. [`remote`]: those
//!   that are fetched.
//! - [`older`]: tokens of the older revision of the Mercure protocol, and their issuers.
//! - [`parts`], [`header`], [`claims`], [`details`]: the parts of a token. [`bounds`]: what of its permissions
//!   remains.

mod bounds;
mod claims;
mod details;
mod header;
mod issuer;
mod jwks;
mod key;
mod older;
mod parts;
mod remote;

use std::{collections::HashMap, sync::Arc};

use tidings_topic::Validator;
use tokio::sync::Semaphore;

use crate::{
    Access, AuthConfig, AuthError, ConfigError, MercureRevision,
    resource::{ProtectedResource, is_authorization_server},
};

pub(crate) use details::DETAIL_TYPE;
pub use issuer::{ISSUER_KEYS_MAX, REFRESH_SECS_MAX};
pub use jwks::{JWKS_BYTES_MAX, JWKS_KEYS_MAX, JwksError};
pub(crate) use key::signing_key;
pub use older::OLDER_KEYS_MAX;
pub use remote::{Fetching, KeyWait, RemoteKeys};

use header::Header;
use issuer::Issuer;
use older::OlderIssuer;
use parts::Parts;
use remote::waiting_capacity;

/// Most issuers of one hub.
pub const ISSUERS_MAX: usize = 100;

/// Whether a credential is a token: three parts, two dots. No key has this form.
pub(crate) fn has_token_shape(credential: &str) -> bool {
    credential.bytes().filter(|&byte| byte == b'.').count() == 2
}

/// The issuers whose tokens are accepted. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Issuers {
    /// Those of the current revision of the Mercure protocol.
    current: Arc<[Issuer]>,
    older: Arc<[OlderIssuer]>,
    waiting: Arc<Semaphore>,
}

impl Default for Issuers {
    /// None.
    fn default() -> Self {
        Self { current: Arc::default(), older: Arc::default(), waiting: waiting_capacity() }
    }
}

impl Issuers {
    pub(crate) fn new(config: &AuthConfig, validator: &Validator) -> Result<Self, ConfigError> {
        let configs = &config.issuers;
        if configs.len() > ISSUERS_MAX {
            let reason = format!("there are {} issuers; the limit is {ISSUERS_MAX}", configs.len());
            return Err(ConfigError::new("issuer", reason));
        }
        let of = |revision| configs.iter().filter(move |config| config.revision == revision);
        let current = of(MercureRevision::Current).map(|config| Issuer::new(config, validator));
        let current = current.collect::<Result<Arc<_>, _>>()?;
        let older = of(MercureRevision::Older).map(|config| OlderIssuer::new(config, validator));
        let older = older.collect::<Result<Arc<_>, _>>()?;
        let older_keys: usize = of(MercureRevision::Older).map(|config| config.keys.len()).sum();
        if older_keys > OLDER_KEYS_MAX {
            let reason = format!(
                "has {older_keys} keys with `revision = \"0.x\"`; the limit is {OLDER_KEYS_MAX}, because each may be tried for a token"
            );
            return Err(ConfigError::new("issuer", reason));
        }
        // The holder of a secret can make tokens, so it belongs to one issuer.
        let mut owners: HashMap<&str, &str> = HashMap::new();
        for (index, issuer) in configs.iter().enumerate() {
            let refuse = |field, reason: String| Err(issuer::refuse(&issuer.issuer, field, reason));
            if configs[..index].iter().any(|other| other.issuer == issuer.issuer) {
                return refuse(
                    "iss",
                    "is used twice: give all keys of an issuer in one [[issuer]]".to_owned(),
                );
            }
            for key in issuer.keys.iter().map(|key| key.key.expose()).filter(|key| !key::is_pem(key)) {
                if owners.insert(key, &issuer.issuer).is_some_and(|owner| owner != issuer.issuer) {
                    let reason = "is the shared secret of another issuer, which could make tokens of this one: use another secret";
                    return refuse("key", reason.to_owned());
                }
                if config.keys.iter().any(|server| server.secret.expose() == key) {
                    let reason =
                        "is the secret of a [[key]], whose holder could make tokens: use another secret";
                    return refuse("key", reason.to_owned());
                }
            }
        }
        Ok(Self { current, older, waiting: waiting_capacity() })
    }

    /// What a client needs to know to obtain a token that it may also present in this cookie.
    pub(crate) fn protected_resource(&self, cookie: &str) -> Option<ProtectedResource> {
        let mut identifiers = Vec::new();
        for audience in self.current.iter().flat_map(Issuer::audiences) {
            if !identifiers.contains(audience) {
                identifiers.push(audience.clone());
            }
        }
        let names = self.current.iter().map(Issuer::name);
        (!identifiers.is_empty()).then(|| ProtectedResource {
            identifiers,
            authorization_servers: names
                .filter(|name| is_authorization_server(name))
                .map(str::to_owned)
                .collect(),
            detail_type: DETAIL_TYPE,
            cookie: cookie.to_owned(),
        })
    }

    /// What this token allows at this time.
    pub(crate) fn verify(&self, token: &str, now_unix_secs: u64) -> Result<Access, AuthError> {
        if self.current.is_empty() && self.older.is_empty() {
            return Err(AuthError::invalid_token("this hub accepts no tokens: no issuer is configured"));
        }
        let parts =
            Parts::of(token).ok_or_else(|| AuthError::invalid_token("the token is not a JSON Web Token"))?;
        if !self.older.is_empty() && older::is_older(parts) {
            return older::verify(&self.older, parts, now_unix_secs);
        }
        let verified =
            self.select(parts).and_then(|(issuer, header)| issuer.verify(parts, &header, now_unix_secs));
        verified.map_err(|error| {
            // The most helpful error, whichever was found first.
            if claims::is_of_older_revision(parts.claims) { claims::older_revision() } else { error }
        })
    }

    /// Whether a token, valid or not, is of the older revision of the Mercure protocol.
    pub(crate) fn is_older(token: &str) -> bool {
        Parts::of(token).is_some_and(older::is_older)
    }

    /// The fetch that this token should wait for before it is verified: its issuer has no key for it
    /// yet, and keys are being fetched, or can be now.
    pub(crate) fn wait(&self, token: &str) -> Option<KeyWait> {
        let (issuer, header) = self.select(Parts::of(token)?).ok()?;
        issuer.wait(&header, &self.waiting)
    }

    /// The keys that have to be fetched.
    pub(crate) fn remote_keys(&self) -> impl Iterator<Item = &RemoteKeys> {
        self.current.iter().filter_map(Issuer::remote_keys)
    }

    /// The issuer that a token names, and its header.
    fn select(&self, parts: Parts<'_>) -> Result<(&Issuer, Header), AuthError> {
        let header = Header::decode(parts.header).ok_or_else(|| {
            AuthError::invalid_token("the header of the token does not conform to RFC 7515")
        })?;
        header.check()?;
        let named = claims::named_issuer(parts.claims).ok_or_else(claims::malformed)?;
        let issuer = self.current.iter().find(|issuer| issuer.name() == named).ok_or_else(|| {
            AuthError::invalid_token("the `iss` of the token is not an issuer that this hub trusts")
        })?;
        Ok((issuer, header))
    }
}
