//! The bucket of the cluster: its keys and values as they are stored.

use std::{borrow::Cow, sync::Arc, time::Duration};

use async_nats::{
    HeaderMap,
    header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
    jetstream::{kv::Store, stream::Stream},
};
use bytes::Bytes;
use tidings_log::{
    cluster::ClusterError,
    codec::{Fields, Stored as _},
};

use crate::{
    bucket::Bucket,
    link::{Link, NotStored, Stored},
};

/// Most bytes of keys and values, as they are stored. What does not fit is refused as
/// [`ClusterError::Full`].
const BYTES_MAX: i64 = 64 << 20;
/// Longest key or channel, in bytes.
const KEY_BYTES_MAX: usize = 1_024;
/// The longest that anything is held without being renewed; longer times are clamped to this. It is
/// also how long the server remembers that a key is gone.
const TIME_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The first part of the subjects of keys.
pub(super) const STATE: &str = "s";
pub(super) const LEASE: &str = "l";

/// The header that marks a removed key.
pub(super) const OPERATION: &str = "KV-Operation";

/// See the [module documentation](self).
pub(super) struct ClusterBucket {
    pub(super) link: Arc<Link>,
    pub(super) name: String,
    replicas: Option<usize>,
}

impl ClusterBucket {
    pub(super) fn new(link: Arc<Link>, replicas: Option<usize>) -> Self {
        Self { name: format!("{}-cluster", link.name()), link, replicas }
    }

    /// The bucket, created if it does not exist.
    pub(super) async fn open(&self) -> Result<Store, String> {
        let bucket = Bucket {
            name: &self.name,
            description: "What Tidings hubs know of each other",
            replicas: self.replicas,
            max_age: Some(TIME_MAX),
            max_bytes: Some(BYTES_MAX),
        };
        bucket.open(&self.link).await
    }

    /// The stream of the bucket, on the current connection.
    pub(super) async fn stream(&self) -> Result<Stream<()>, ClusterError> {
        let stream = self.link.jetstream().get_stream_no_info(format!("KV_{}", self.name)).await;
        stream.map_err(|error| ClusterError::Unavailable(error.to_string()))
    }

    /// The subject of a key of this kind.
    pub(super) fn subject(&self, kind: &str, key: &str) -> Result<String, ClusterError> {
        Ok(format!("{}{}", self.subjects(kind), hexadecimal(key)?))
    }

    /// The key of a subject, if it is of this kind.
    pub(super) fn key(&self, kind: &str, subject: &str) -> Option<String> {
        from_hexadecimal(subject.strip_prefix(&self.subjects(kind))?)
    }

    fn subjects(&self, kind: &str) -> String {
        format!("$KV.{}.{kind}.", self.name)
    }

    /// Sets a key, or removes it. With a revision only if that is its last.
    pub(super) async fn put(
        &self,
        subject: String,
        value: Option<Value<'_>>,
        revision: Option<u64>,
    ) -> Result<Stored, NotStored> {
        let mut headers = HeaderMap::new();
        if let Some(revision) = revision {
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, revision.to_string());
        }
        if value.is_none() {
            headers.insert(OPERATION, "DEL");
        }
        let payload = value.map(|value| value.encode()).unwrap_or_default();
        self.link.store(self.link.key_subject(&subject), headers, payload).await
    }
}

/// A value as it is stored: a version, how long it holds in milliseconds, the fence of a lease that
/// was renewed, and the data.
pub(super) struct Value<'a> {
    pub(super) time: Duration,
    pub(super) fence: u64,
    pub(super) content: Cow<'a, [u8]>,
}

const VERSION: u8 = 2;

impl Value<'_> {
    pub(super) fn encode(&self) -> Bytes {
        let millis = u64::try_from(self.time.min(TIME_MAX).as_millis()).expect("a week has few milliseconds");
        let mut bytes = Vec::new();
        (VERSION, millis, self.fence).store(&mut bytes);
        bytes.extend_from_slice(&self.content);
        bytes.into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Value<'static>> {
        let mut fields = Fields(bytes);
        let (version, millis, fence): (u8, u64, u64) = fields.read()?;
        let time = Duration::from_millis(millis).min(TIME_MAX);
        (version == VERSION).then(|| Value { time, fence, content: fields.0.to_vec().into() })
    }
}

/// Any text as a token of a subject, which allows few characters.
pub(super) fn hexadecimal(text: &str) -> Result<String, ClusterError> {
    use std::fmt::Write;
    if text.len() > KEY_BYTES_MAX {
        return Err(ClusterError::Full(format!(
            "a key has {} bytes and may have at most {KEY_BYTES_MAX}",
            text.len()
        )));
    }
    // The first character keeps an empty key from becoming an empty token, which is invalid.
    let mut spelled = "x".to_owned();
    for byte in text.bytes() {
        write!(spelled, "{byte:02x}").expect("a string takes everything");
    }
    Ok(spelled)
}

fn from_hexadecimal(spelled: &str) -> Option<String> {
    let digits = spelled.strip_prefix('x')?.as_bytes().chunks(2);
    let byte = |digits: &[u8]| match digits {
        [_, _] => u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok(),
        _ => None,
    };
    String::from_utf8(digits.map(byte).collect::<Option<_>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_key_can_be_encoded_and_decoded() {
        for key in ["", "a", "b/*", "ä.>", "\n"] {
            let spelled = hexadecimal(key).unwrap();
            assert!(spelled.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            assert_eq!(from_hexadecimal(&spelled).as_deref(), Some(key));
        }
        assert!(hexadecimal(&"x".repeat(KEY_BYTES_MAX + 1)).is_err());
        for foreign in ["", "61", "x6", "xzz", "xff"] {
            assert_eq!(from_hexadecimal(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_value_comes_back_as_it_was() {
        let value = Value { time: Duration::from_secs(3), fence: 7, content: (&b"v"[..]).into() };
        let bytes = value.encode();
        let back = Value::decode(&bytes).unwrap();
        assert_eq!((back.time, back.fence, &*back.content), (Duration::from_secs(3), 7, &b"v"[..]));
        assert!(Value::decode(&bytes[..bytes.len() - 2]).is_none() && Value::decode(b"").is_none());
        let forever = Value { time: Duration::MAX, fence: 0, content: (&[][..]).into() };
        assert_eq!(Value::decode(&forever.encode()).unwrap().time, TIME_MAX);
    }
}
