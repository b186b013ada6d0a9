//! The keys of servers.

use std::{collections::HashSet, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use tidings_topic::Validator;

use crate::{
    Access, CREDENTIAL_BYTES_MAX, ConfigError, KeyConfig, MatcherText, Subject, presentation::is_b64token,
    ticket::has_ticket_shape, token::has_token_shape,
};

/// Minimum length of a secret in bytes; a shorter one is refused at the start.
const SECRET_BYTES_MIN: usize = 16;

/// Most keys of one hub: every credential is compared with all of them.
const KEYS_MAX: usize = 1_000;

/// A new secret for a key: `tk_` and 32 random bytes in base64url.
pub fn generate_key_secret() -> String {
    format!("tk_{}", random_text::<32>())
}

/// `BYTES` random bytes of the operating system in base64url.
pub(crate) fn random_text<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// All keys of the hub. Secrets are kept only as digests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys(Arc<[Key]>);

#[derive(Debug)]
struct Key {
    digest: [u8; 32],
    access: Access,
}

impl Keys {
    pub(crate) fn new(configs: &[KeyConfig], validator: &Validator) -> Result<Self, ConfigError> {
        if configs.len() > KEYS_MAX {
            return Err(ConfigError::new(
                "key",
                format!("there are {} keys; the limit is {KEYS_MAX}", configs.len()),
            ));
        }
        let mut names = HashSet::new();
        let mut digests = HashSet::new();
        let mut keys = Vec::with_capacity(configs.len());
        for config in configs {
            let setting = |field: &str| format!("key.{}.{field}", config.name.escape_debug());
            if config.name.is_empty() || config.name.chars().any(char::is_control) {
                return Err(ConfigError::new(setting("name"), "is empty or has control characters"));
            }
            if !names.insert(config.name.as_str()) {
                return Err(ConfigError::new(setting("name"), "is used twice: each key needs its own"));
            }
            check_secret(config.secret.expose())
                .map_err(|reason| ConfigError::new(setting("secret"), reason))?;
            let digest = digest_of(config.secret.expose());
            if !digests.insert(digest) {
                return Err(ConfigError::new(
                    setting("secret"),
                    "is that of another key: each key needs its own",
                ));
            }
            let grants = |field: &str, texts: &[MatcherText]| {
                MatcherText::grants(texts, validator)
                    .map_err(|invalid| ConfigError::new(setting(field), invalid.to_string()))
            };
            let subject = Subject::Key(config.name.as_str().into());
            let publish = grants("publish", &config.publish)?;
            let subscribe = grants("subscribe", &config.subscribe)?;
            let mut access = Access::new(subject, publish, subscribe);
            access.admin = config.admin;
            access.limits.streams_max = config.streams_max;
            keys.push(Key { digest, access });
        }
        Ok(Self(keys.into()))
    }

    /// What the key with this secret may do. Takes constant time, whichever key matches and however
    /// much of a secret is correct: all digests are compared completely.
    pub(crate) fn find(&self, secret: &str) -> Option<Access> {
        let presented = digest_of(secret);
        let none = u64::MAX;
        let found = (0u64..).zip(self.0.iter()).fold(none, |found, (index, key)| {
            u64::conditional_select(&found, &index, key.digest.ct_eq(&presented))
        });
        let found = usize::try_from(found).ok()?;
        self.0.get(found).map(|key| key.access.clone())
    }
}

fn check_secret(secret: &str) -> Result<(), String> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err(format!(
            "has {} bytes; at least {SECRET_BYTES_MIN} are needed (`tidings key new` generates one)",
            secret.len()
        ));
    }
    if secret.len() > CREDENTIAL_BYTES_MAX {
        return Err(format!("has {} bytes; the limit is {CREDENTIAL_BYTES_MAX}", secret.len()));
    }
    if !is_b64token(secret) {
        return Err(
            "has characters that a Bearer credential cannot have: use letters, digits and `-._~+/`, \
                    `=` only at the end"
                .to_owned(),
        );
    }
    if has_token_shape(secret) {
        return Err("has exactly two dots and would be taken for a token".to_owned());
    }
    if has_ticket_shape(secret) {
        return Err("begins as tickets do and would be taken for one".to_owned());
    }
    Ok(())
}

fn digest_of(secret: &str) -> [u8; 32] {
    digest(&SHA256, secret.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
}
