//! What a presence hook is notified of.

use std::{fmt, sync::Arc};

use tidings_topic::{ConnectionId, Matcher, PatternSyntax};

/// A subscriber connected or disconnected, or its topics changed while it was connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Whether it connected, is in a presence list, or is here already and has other
    /// [`matchers`](Self::matchers) now; otherwise it disconnected.
    pub here: bool,
    /// Whether it is a subscriber of this hub. A hub reports its own only; the crate
    /// `tidings-presence` reports those of other hubs too.
    pub is_local: bool,
    /// The connection. Its name is unique in the cluster.
    pub connection: ConnectionId,
    /// What it is subscribed to.
    pub matchers: Arc<[PresenceMatcher]>,
    /// The name that was set with [`Subscribe::label`](crate::Subscribe::label).
    pub label: Option<Arc<str>>,
}

/// One of the matchers of a subscriber, as text: a hub does not need to parse the matchers of
/// another hub's subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceMatcher {
    /// How the text is read if it is that of a pattern. `None`: it is a topic, or `*` for all of
    /// them.
    pub syntax: Option<PatternSyntax>,
    /// The topic or pattern.
    pub text: Arc<str>,
    /// What the credential of the subscriber says about this subscription, as JSON.
    pub payload: Option<Arc<str>>,
}

/// What the credential of a subscriber says about each of its subscriptions, as JSON.
#[derive(Clone)]
pub struct Payloads(Arc<PayloadOf>);

type PayloadOf = dyn Fn(&Matcher) -> Option<String> + Send + Sync;

impl Payloads {
    /// The payload of a subscription is what this returns for its matcher.
    pub fn new(of: impl Fn(&Matcher) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }
}

impl fmt::Debug for Payloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Payloads(…)")
    }
}

/// The matchers of a subscriber, as they are reported. Equal payloads are one.
pub(super) fn reported(matchers: &[Matcher], payloads: Option<&Payloads>) -> Arc<[PresenceMatcher]> {
    let mut known: Vec<Arc<str>> = Vec::new();
    let mut shared = |payload: String| -> Arc<str> {
        if let Some(same) = known.iter().find(|same| ***same == *payload) {
            return Arc::clone(same);
        }
        let new: Arc<str> = payload.into();
        known.push(Arc::clone(&new));
        new
    };
    let report = |matcher: &Matcher| PresenceMatcher {
        syntax: matcher.syntax(),
        text: matcher.as_str().into(),
        payload: payloads.and_then(|Payloads(of)| of(matcher)).map(&mut shared),
    };
    matchers.iter().map(report).collect()
}

#[cfg(test)]
mod tests {
    use tidings_topic::Validator;

    use super::*;

    /// What a credential says is often the same for each of a hundred topics.
    #[test]
    fn equal_payloads_are_kept_once() {
        let matchers = ["a", "b", "c"].map(|topic| Validator::default().exact(topic).expect("valid"));
        let payloads = Payloads::new(|matcher| {
            Some(if matcher.as_str() == "b" { "{}" } else { r#"{"user":"ann"}"# }.to_owned())
        });
        let reported = reported(&matchers, Some(&payloads));
        let payload = |index: usize| reported[index].payload.as_ref().expect("each has one");
        assert!(Arc::ptr_eq(payload(0), payload(2)));
        assert_eq!((&**payload(0), &**payload(1)), (r#"{"user":"ann"}"#, "{}"));
    }
}
