//! What the tests of this crate share.

use tidings_log::MemoryLimits;
use tidings_redis::RedisSettings;

/// The settings of a URL that a test made.
pub(crate) fn settings(url: &str, limits: MemoryLimits) -> RedisSettings {
    RedisSettings::from_url(url.parse().expect("a URL"), limits).expect("a store")
}
