//! What names a request: its id, and the trace that it belongs to. Both are logged, so what clients
//! write is checked to the byte.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest id of a proxy that is taken over, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Names one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    /// The id that a trusted proxy has given to the request, if it has. Otherwise a new one.
    pub(super) fn of(headers: &HeaderMap, is_trusted: bool) -> Self {
        let given = headers.get(REQUEST_ID).filter(|value| is_trusted && is_id(value.as_bytes()));
        given.cloned().map_or_else(Self::generate, Self)
    }

    /// Unique in this process, and not likely to be that of another one.
    fn generate() -> Self {
        static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let id = format!("{:016x}", KEYS.hash_one(COUNT.fetch_add(1, Relaxed)));
        Self(HeaderValue::try_from(id).expect("digits are visible"))
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.to_str().expect("an id is of visible characters")
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// What proxies and tracing libraries generate: UUIDs, ULIDs, hexadecimal and Base64.
fn is_id(id: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte))
}

/// The trace that a request belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TraceId(String);

impl TraceId {
    /// W3C Trace Context, 3.2: the header is `version-trace-parent-flags` in lower case. A later
    /// version may append more; `ff` and numbers of zeros only are invalid. Several headers are
    /// none.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
        let mut parts = value.split('-');
        let [version, trace, parent, flags] =
            [2, 32, 16, 2].map(|digits| parts.next().filter(|part| is_hexadecimal(part, digits)));
        let (version, trace, parent, _) = (version?, trace?, parent?, flags?);
        let is_longer = parts.next().is_some();
        let is_zero = |part: &str| part.bytes().all(|digit| digit == b'0');
        if version == "ff" || (version == "00" && is_longer) || is_zero(trace) || is_zero(parent) {
            return None;
        }
        Some(Self(trace.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_hexadecimal(part: &str, digits: usize) -> bool {
    part.len() == digits && part.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_str(value).expect("a value"))).collect()
    }

    #[test]
    fn the_id_of_a_trusted_proxy_is_taken_over_and_no_other() {
        let sane = "0193f2b6-5c1e-7c3d-9a57-aa0b6d2f4d11";
        let long = "a".repeat(REQUEST_ID_BYTES_MAX + 1);
        let id = |value: &str, is_trusted| RequestId::of(&headers(&REQUEST_ID, &[value]), is_trusted);
        assert_eq!(id(sane, true).as_str(), sane);
        assert_eq!(id(&long[1..], true).as_str(), &long[1..]);
        for (value, is_trusted) in
            [(sane, false), (&*long, true), ("", true), ("a b", true), ("a\"b", true), ("a\tb", true)]
        {
            let generated = id(value, is_trusted);
            assert!(is_hexadecimal(generated.as_str(), 16), "{value:?}: {generated:?}");
            assert_ne!(generated, id(value, is_trusted), "each request has its own");
        }
    }

    #[test]
    fn only_a_valid_trace_context_names_a_trace() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let of = |values: &[&str]| TraceId::of(&headers(&TRACEPARENT, values)).map(|TraceId(id)| id);
        let valid = &*format!("00-{TRACE}-00f067aa0ba902b7-01");
        for value in [valid, &format!("cc-{TRACE}-00f067aa0ba902b7-01-what-the-future-brings")] {
            assert_eq!(of(&[value]).as_deref(), Some(TRACE), "{value}");
        }
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[valid, valid]), None);
        for value in [
            "",
            TRACE,
            &valid.to_ascii_uppercase(),
            &valid.replacen("00", "ff", 1),
            &valid.replace("-01", ""),
            &valid.replace("-01", "-1"),
            &format!("{valid}-more"),
            &valid.replace(TRACE, &"0".repeat(32)),
            &valid.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &valid.replace("4b", "4g"),
        ] {
            assert_eq!(of(&[value]), None, "{value}");
        }
    }
}
