//! Turns the headers of a request into its permissions.

use http::HeaderMap;
use tidings_topic::Validator;

use crate::{
    Access, AuthConfig, AuthError, ConfigError,
    keys::Keys,
    presentation,
    token::{Issuer, has_token_shape},
};

/// Checks credentials against the keys and the issuer of a hub. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Authenticator {
    keys: Keys,
    issuer: Option<Issuer>,
}

impl Authenticator {
    /// Checks the configuration and prepares it. The validator checks every matcher, here and in
    /// tokens.
    pub fn new(config: AuthConfig, validator: &Validator) -> Result<Self, ConfigError> {
        let AuthConfig { keys, issuer } = config;
        Ok(Self {
            keys: Keys::new(&keys, validator)?,
            issuer: issuer.map(|issuer| Issuer::new(issuer, validator)).transpose()?,
        })
    }

    /// What the credential of a request with these headers and this query allows. `None` is a
    /// request without one; an invalid credential, or one in a place that a hub does not read, is
    /// an error, never `None`.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        now_unix_secs: u64,
    ) -> Result<Option<Access>, AuthError> {
        let credential = presentation::credential(headers, query)?;
        credential.map(|credential| self.check(credential, now_unix_secs)).transpose()
    }

    /// What this credential allows, wherever it was presented.
    pub fn check(&self, credential: &str, now_unix_secs: u64) -> Result<Access, AuthError> {
        if has_token_shape(credential) {
            let issuer = self.issuer.as_ref().ok_or_else(|| {
                AuthError::invalid_token("this hub accepts no tokens: no issuer is configured")
            })?;
            return issuer.verify(credential, now_unix_secs);
        }
        self.keys.find(credential).ok_or_else(|| AuthError::invalid_token("the key is not known to this hub"))
    }
}
