//! An issuer: its keys, its audience, and the check of a token that names it.

use std::{collections::HashSet, net::IpAddr, num::NonZeroU64, sync::Arc};

use tidings_topic::Validator;
use tokio::sync::Semaphore;
use url::{Host, Url};

use super::{
    bounds::Bounds,
    claims::{self, Claims},
    details,
    header::Header,
    jwks,
    key::{VerificationKey, key_of, keys_for},
    parts::Parts,
    remote::{KeyWait, RemoteKeys},
};
use crate::{Access, Algorithm, AuthError, ConfigError, IssuerConfig, JwksUrl, Subject};

/// Most keys of an issuer in the configuration.
pub const ISSUER_KEYS_MAX: usize = 16;

/// Longest time between two fetches of the keys of an issuer, in seconds: a day.
pub const REFRESH_SECS_MAX: u64 = 24 * 60 * 60;

/// Most keys that are tried for a token without `kid`.
const KEYS_TRIED_MAX: usize = 8;

/// Tolerated clock skew of an issuer: a token may be used this long before its `nbf`. There is no
/// tolerance after its `exp`, because a stream ends by then (the Mercure protocol,
/// "Authorization").
const NOT_BEFORE_LEEWAY_SECS: u64 = 60;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Issuer {
    name: Arc<str>,
    audiences: Vec<String>,
    /// Those of the configuration, the key set in a file included.
    keys: Vec<VerificationKey>,
    remote: Option<RemoteKeys>,
    bounds: Bounds,
    stream_lifetime_secs_max: Option<NonZeroU64>,
    validator: Validator,
}

impl Issuer {
    pub(super) fn new(config: &IssuerConfig, validator: &Validator) -> Result<Self, ConfigError> {
        let refuse = |field, reason: String| refuse(&config.issuer, field, reason);
        if config.issuer.is_empty() {
            return Err(refuse("iss", "is empty: give the `iss` of the tokens".to_owned()));
        }
        check_audiences(&config.audiences).map_err(|reason| refuse("audience", reason))?;
        let keys = configured_keys(config)?;
        if let Some(source) = &config.jwks_url {
            check_source(source).map_err(|(field, reason)| refuse(field, reason))?;
        }
        if keys.is_empty() && config.jwks_url.is_none() {
            return Err(refuse("key", "is missing: give a secret, a public key, or a key set".to_owned()));
        }
        let has_key_for = |algorithm: &Algorithm| {
            config.jwks_url.is_some() && algorithm.secret_bytes_min().is_none()
                || keys.iter().any(|key| key.algorithms().contains(algorithm))
        };
        if let Some(unused) = config.algorithms.iter().find(|algorithm| !has_key_for(algorithm)) {
            return Err(refuse("algorithms", format!("no key of the issuer is for {unused}")));
        }
        let bounds = Bounds::new(&config.publish, &config.subscribe, validator)
            .map_err(|(field, reason)| refuse(field, reason))?;
        let name: Arc<str> = config.issuer.as_str().into();
        let remote = config.jwks_url.clone();
        let remote =
            remote.map(|source| RemoteKeys::new(Arc::clone(&name), source, config.algorithms.clone()));
        Ok(Self {
            name,
            audiences: config.audiences.clone(),
            keys,
            remote,
            bounds,
            stream_lifetime_secs_max: config.stream_lifetime_secs_max,
            validator: validator.clone(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn audiences(&self) -> &[String] {
        &self.audiences
    }

    pub(super) fn remote_keys(&self) -> Option<&RemoteKeys> {
        self.remote.as_ref()
    }

    /// What a token that names this issuer allows at this time.
    pub(super) fn verify(
        &self,
        parts: Parts<'_>,
        header: &Header,
        now_unix_secs: u64,
    ) -> Result<Access, AuthError> {
        // The signature comes before everything that depends on what the token claims.
        self.verify_signature(parts, header)?;
        let claims = Claims::decode(parts.claims).ok_or_else(claims::malformed)?;
        self.check(&claims, now_unix_secs)?;
        if claims.authorization_details.is_none() && claims::is_of_older_revision(parts.claims) {
            return Err(claims::older_revision());
        }
        let details = claims.authorization_details.unwrap_or_default();
        let permissions = self.bounds.apply(details::permissions(&details, &self.validator)?);
        let subject = Subject::Token(claims.sub.as_deref().map(Into::into));
        let access = Access::new(subject, permissions.publish, permissions.subscribe);
        let mut access =
            access.of_issuer(&self.name).with_id(claims.jti).until(Some(claims.exp), permissions.details);
        access.issued_at = claims.iat;
        access.limits.stream_lifetime_secs_max = self.stream_lifetime_secs_max;
        Ok(access)
    }

    /// The fetch that a token with this header should wait for.
    pub(super) fn wait(&self, header: &Header, capacity: &Arc<Semaphore>) -> Option<KeyWait> {
        let remote = self.remote.as_ref()?;
        let fetched = remote.current();
        let lacks_key = match &header.kid {
            Some(kid) => key_of(&self.keys, fetched.as_deref(), kid).is_none(),
            None => fetched.is_none(),
        };
        lacks_key.then(|| remote.wait(capacity))?
    }

    // RFC 8725, section 3.1: the algorithm is one that the operator allowed for the key; the header
    // only selects among those. Keys in or referenced by the header (`jwk`, `jku`, `x5u`, `x5c`)
    // are not read.
    fn verify_signature(&self, parts: Parts<'_>, header: &Header) -> Result<(), AuthError> {
        let remote = self.remote.as_ref().map(RemoteKeys::current);
        let fetched = remote.as_ref().and_then(Option::as_deref);
        let mut reason = "the issuer has no key with the `kid` of the token";
        let mut tried = 0;
        for key in keys_for(&self.keys, fetched, header.kid.as_deref()) {
            let Some(algorithm) = key.algorithm(&header.alg) else {
                if tried == 0 {
                    reason = "the `alg` of the token is not one that this hub accepts";
                }
                continue;
            };
            if key.verifies(algorithm, parts.message, parts.signature) {
                return Ok(());
            }
            reason = "the signature of the token is not that of the issuer";
            tried += 1;
            if tried == KEYS_TRIED_MAX {
                break;
            }
        }
        // The key may be one of those that have not been fetched.
        if remote.is_some() && fetched.is_none() {
            return Err(AuthError::KeysUnavailable(
                "the hub has not been able to fetch the keys of the token's issuer: try again later"
                    .to_owned(),
            ));
        }
        Err(AuthError::invalid_token(reason))
    }

    // RFC 9068, section 4, and RFC 7519, section 4.1.
    fn check(&self, claims: &Claims, now_unix_secs: u64) -> Result<(), AuthError> {
        if claims.iss != *self.name {
            return Err(claims::malformed());
        }
        if !self.audiences.iter().any(|audience| claims.aud.contains(audience)) {
            return Err(AuthError::invalid_token("the `aud` of the token does not name this hub"));
        }
        if now_unix_secs >= claims.exp {
            return Err(expired());
        }
        check_not_before(claims.nbf, now_unix_secs)
    }
}

pub(super) fn expired() -> AuthError {
    AuthError::Expired("the token has expired".to_owned())
}

pub(super) fn check_not_before(not_before: Option<u64>, now_unix_secs: u64) -> Result<(), AuthError> {
    let tolerated = now_unix_secs.saturating_add(NOT_BEFORE_LEEWAY_SECS);
    if not_before.is_some_and(|not_before| tolerated < not_before) {
        return Err(AuthError::invalid_token("the token is not valid yet"));
    }
    Ok(())
}

pub(super) fn refuse(issuer: &str, field: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError::new(format!("issuer.{}.{field}", issuer.escape_debug()), reason)
}

pub(super) fn configured_keys(config: &IssuerConfig) -> Result<Vec<VerificationKey>, ConfigError> {
    let refuse = |field, reason: String| refuse(&config.issuer, field, reason);
    if config.keys.len() > ISSUER_KEYS_MAX {
        return Err(refuse(
            "key",
            format!("there are {}; the limit is {ISSUER_KEYS_MAX}", config.keys.len()),
        ));
    }
    let keys = config.keys.iter().map(|key| VerificationKey::configured(key, &config.algorithms));
    let mut keys = keys.collect::<Result<Vec<_>, _>>().map_err(|reason| refuse("key", reason))?;
    if let Some(jwks) = &config.jwks {
        let published = jwks::parse(jwks.as_bytes(), &config.algorithms)
            .map_err(|error| refuse("jwks_file", error.to_string()))?;
        keys.extend(published);
    }
    let mut kids = HashSet::new();
    if keys.iter().filter_map(VerificationKey::kid).any(str::is_empty) {
        return Err(refuse("key", "has an empty `kid`: give the `kid` of the tokens, or none".to_owned()));
    }
    if let Some(twice) = keys.iter().filter_map(VerificationKey::kid).find(|kid| !kids.insert(*kid)) {
        return Err(refuse("key", format!("two keys have the `kid` `{}`", twice.escape_debug())));
    }
    Ok(keys)
}

// RFC 8707, section 2: an absolute URI without a fragment. A name like `hub` would be the same for
// every hub.
fn check_audiences(audiences: &[String]) -> Result<(), String> {
    if audiences.is_empty() {
        return Err("is missing: give the public URL of the hub".to_owned());
    }
    audiences.iter().try_for_each(|audience| match Url::parse(audience) {
        Ok(url) if url.has_host() && url.fragment().is_none() => Ok(()),
        _ => Err(format!(
            "`{}` is not an absolute URL, such as `https://example.com/.well-known/mercure`",
            audience.escape_debug()
        )),
    })
}

/// Fails with the name of the setting and a reason, which does not repeat the URL: it may hold a
/// password.
fn check_source(source: &JwksUrl) -> Result<(), (&'static str, String)> {
    let JwksUrl { url, refresh_secs, refresh_secs_min, .. } = source;
    let refuse = |reason: &str| Err(("jwks_url", reason.to_owned()));
    let is_local = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return refuse("has no host: give a URL like https://issuer.example/jwks.json"),
    };
    match url.scheme() {
        "https" => {}
        "http" if is_local || source.allow_http => {}
        "http" => {
            return refuse(
                "is http, so a machine on the way can replace the keys: use https, or set allow_http = true",
            );
        }
        _ => return refuse("is neither https nor http"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("has a user name or a password, which would end up in logs: public keys need none");
    }
    if url.fragment().is_some() {
        return refuse("has a fragment (`#`), which is never sent: remove it");
    }
    if !(1..=REFRESH_SECS_MAX).contains(refresh_secs) {
        return Err(("refresh_secs", format!("is {refresh_secs}; it must be from 1 to {REFRESH_SECS_MAX}")));
    }
    if !(1..=*refresh_secs).contains(refresh_secs_min) {
        let reason = format!("is {refresh_secs_min}; it must be from 1 to refresh_secs ({refresh_secs})");
        return Err(("refresh_secs_min", reason));
    }
    Ok(())
}
