//! The secrets that tickets are made with.

use std::{collections::HashSet, fmt};

use aws_lc_rs::hmac;

use crate::{AuthConfig, CREDENTIAL_BYTES_MAX, ConfigError, TicketSecretConfig};

/// Minimum length of a secret in bytes, the size of the hash; a shorter one is refused at the start.
const SECRET_BYTES_MIN: usize = 32;
/// Most secrets of one hub. A rotation needs two.
const SECRETS_MAX: usize = 16;
/// Longest id of a secret, in bytes.
const ID_BYTES_MAX: usize = 64;

/// A secret that tickets are made with, ready for use.
#[derive(Clone)]
pub struct TicketSecret {
    id: String,
    key: hmac::Key,
}

impl TicketSecret {
    /// Checks the configuration of one secret.
    pub fn new(config: &TicketSecretConfig) -> Result<Self, ConfigError> {
        let TicketSecretConfig { id, secret } = config;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(is_plain) {
            return Err(refuse(
                config,
                "id",
                format!("is not a name for a secret: use 1 to {ID_BYTES_MAX} letters, digits, `-` and `_`"),
            ));
        }
        let length = secret.expose().len();
        if length < SECRET_BYTES_MIN {
            return Err(refuse(
                config,
                "secret",
                format!(
                    "has {length} bytes; at least {SECRET_BYTES_MIN} are needed (`tidings ticket secret` generates one)"
                ),
            ));
        }
        if length > CREDENTIAL_BYTES_MAX {
            return Err(refuse(
                config,
                "secret",
                format!("has {length} bytes; the limit is {CREDENTIAL_BYTES_MAX}"),
            ));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        Ok(Self { id: id.clone(), key })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn sign(&self, message: &str) -> hmac::Tag {
        hmac::sign(&self.key, message.as_bytes())
    }

    /// Compares in constant time.
    pub(super) fn verifies(&self, message: &str, mac: &[u8]) -> bool {
        hmac::verify(&self.key, message.as_bytes(), mac).is_ok()
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketSecret").field("id", &self.id).finish_non_exhaustive()
    }
}

/// All secrets of a hub. One that is also a key's would let the holder of that key make tickets for
/// topics that the key does not cover.
pub(super) fn all(config: &AuthConfig) -> Result<Vec<TicketSecret>, ConfigError> {
    let configs = &config.ticket_secrets;
    if configs.len() > SECRETS_MAX {
        return Err(ConfigError::new(
            "ticket_secret",
            format!("there are {} secrets; the limit is {SECRETS_MAX}", configs.len()),
        ));
    }
    let mut ids = HashSet::new();
    let mut secrets = HashSet::new();
    for one in configs {
        if !ids.insert(one.id.as_str()) {
            return Err(refuse(one, "id", "is used twice: each secret needs its own"));
        }
        if !secrets.insert(one.secret.expose()) {
            return Err(refuse(one, "secret", "is that of another id: each needs its own"));
        }
        if let Some(key) = config.keys.iter().find(|key| key.secret == one.secret) {
            let reason = format!(
                "is that of the key `{}`: its holder could make tickets for every topic, so use another secret",
                key.name.escape_debug()
            );
            return Err(refuse(one, "secret", reason));
        }
        let mut of_issuers = config.issuers.iter().flat_map(|issuer| &issuer.keys);
        if of_issuers.any(|key| key.key == one.secret) {
            return Err(refuse(one, "secret", "is that of an issuer: use another secret"));
        }
    }
    configs.iter().map(TicketSecret::new).collect()
}

fn refuse(config: &TicketSecretConfig, field: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError::new(format!("ticket_secret.{}.{field}", config.id.escape_debug()), reason)
}
