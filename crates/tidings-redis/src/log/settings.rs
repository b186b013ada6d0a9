//! The configuration of a log: the URL of a Redis with parameters of its own, and limits.

use tidings_log::MemoryLimits;

use crate::{InvalidUrl, RedisUrl};

/// The location and the limits of a log.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Which Redis.
    pub url: RedisUrl,
    /// The name of the log and of its cluster. Hubs with the same name share them; several names
    /// share a Redis.
    pub name: String,
    /// The number of replicas that must have an event before it is acknowledged.
    pub wait_replicas: u32,
    /// How much the log keeps, in the memory of Redis. The numbers mean what they mean for a log in
    /// memory.
    pub limits: MemoryLimits,
}

impl RedisSettings {
    /// The default name of a log.
    pub const NAME_DEFAULT: &str = "tidings";
    /// Longest name, in bytes.
    pub const NAME_BYTES_MAX: usize = 100;

    /// The settings of a store in a URL: `name=…` and `wait=N`, in addition to what [`RedisUrl`]
    /// reads.
    pub fn from_url(mut url: RedisUrl, limits: MemoryLimits) -> Result<Self, InvalidUrl> {
        let name = url.parameters.take("name")?.unwrap_or_else(|| Self::NAME_DEFAULT.to_owned());
        let fits = (1..=Self::NAME_BYTES_MAX).contains(&name.len());
        if !fits || name.contains(['{', '}']) || name.contains(char::is_control) {
            return Err(InvalidUrl::parameter("name", "should be 1 to 100 characters, without braces"));
        }
        let wait_replicas = url.parameters.take_parsed("wait", "a number of replicas")?.unwrap_or_default();
        url.parameters.refuse_the_rest(&["name", "wait", "ca", "cert", "cert_key"])?;
        Ok(Self { url, name, wait_replicas, limits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Result<RedisSettings, InvalidUrl> {
        RedisSettings::from_url(url.parse()?, MemoryLimits::default())
    }

    #[test]
    fn a_url_names_the_log_and_how_many_replicas_to_wait_for() {
        let plain = settings("redis://h").unwrap();
        assert_eq!((&*plain.name, plain.wait_replicas), ("tidings", 0));
        let named = settings("redis://h/2?name=my-log&wait=1").unwrap();
        assert_eq!((&*named.name, named.wait_replicas, named.url.database), ("my-log", 1, 2));
        for wrong in ["redis://h?name=", "redis://h?name=a{b", "redis://h?wait=x", "redis://h?nmae=x"] {
            assert!(settings(wrong).is_err(), "{wrong}");
        }
    }
}
