//! Who asks, and what they may do: one answer for every api.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, request::Parts};
use tidings::{Event, Grants, Hub, Matcher, Topic};
use tidings_auth::{
    Access, AuthError, Authenticator, Subject, credential_missing, insufficient_scope, private_topic,
    refuse_in_url,
};

use crate::{Keyless, origin::Origins, problem::Problem};

/// Decides what a request may do.
#[derive(Debug)]
pub(crate) struct Authorizer {
    /// `None`: a hub without keys, and so without anything that a credential could be checked against.
    authenticator: Option<Authenticator>,
    keyless: Keyless,
    anonymous_subscribers: bool,
}

impl Authorizer {
    pub(crate) fn new(
        authenticator: Option<Authenticator>,
        keyless: Keyless,
        anonymous_subscribers: bool,
    ) -> Self {
        Self { authenticator, keyless, anonymous_subscribers }
    }

    /// Whether the hub has no keys and serves this machine only.
    pub(crate) fn is_keyless_loopback(&self) -> bool {
        self.authenticator.is_none() && self.keyless == Keyless::Loopback
    }

    /// Whether the hub has no keys.
    pub(crate) fn is_keyless(&self) -> bool {
        self.authenticator.is_none()
    }

    /// The rights of somebody who wants to receive.
    pub(crate) fn subscriber(&self, parts: &Parts) -> Result<Access, Problem> {
        let access = self.rights(&parts.headers, parts.uri.query())?;
        if access.subject == Subject::Anonymous && !self.anonymous_subscribers {
            return Err(credential_missing().into());
        }
        Ok(access)
    }

    /// The rights of somebody who wants to publish; what is published has to pass [`cover_events`] as well.
    pub(crate) fn publisher(&self, parts: &Parts, origins: &Origins) -> Result<Access, Problem> {
        // Where no credential is asked for, being able to send the request is the right, and any web page could have it sent.
        if self.is_keyless() {
            origins.refuse_foreign(&parts.headers)?;
        }
        let access = self.rights(&parts.headers, parts.uri.query())?;
        if access.subject == Subject::Anonymous {
            return Err(credential_missing().into());
        }
        Ok(access)
    }

    /// The rights of the one that sends these headers and this query, before anything is asked for.
    pub(crate) fn rights(&self, headers: &HeaderMap, query: Option<&str>) -> Result<Access, AuthError> {
        if self.is_keyless() {
            // What works here in development should not fail where there are keys.
            refuse_in_url(query)?;
        }
        match (&self.authenticator, self.keyless) {
            (Some(authenticator), _) => {
                let access = authenticator.authenticate(headers, query, unix_secs())?;
                Ok(access.unwrap_or_else(Access::anonymous))
            }
            (None, Keyless::Loopback) => Ok(Access::everything()),
            (None, Keyless::Anywhere) => {
                let mut access = Access::everything();
                access.subscribe = Grants::NONE;
                Ok(access)
            }
        }
    }
}

/// The Mercure protocol, "Publication": the credential has to cover every topic of every event, or nothing is published.
pub(crate) fn cover_events(access: &Access, events: &[Event]) -> Result<(), AuthError> {
    events.iter().flat_map(|event| &event.topics).try_for_each(|topic| cover_topic(access, topic))
}

/// The one that may publish to a topic may also delete events on it, if that covers all of their topics.
pub(crate) fn cover_topic(access: &Access, topic: &Topic) -> Result<(), AuthError> {
    if access.publish.covers(topic) { Ok(()) } else { Err(insufficient_scope("publish", topic)) }
}

/// Refuses a subscription that names a private topic without a grant on it: it would be answered with silence. Patterns and `*` are served
/// what the grants cover.
pub(crate) fn cover_private_topics(
    hub: &Hub,
    access: &Access,
    matchers: &[Matcher],
) -> Result<(), AuthError> {
    matchers.iter().try_for_each(|matcher| match matcher {
        Matcher::Exact(topic)
            if hub.are_private(std::slice::from_ref(topic)) && !access.subscribe.covers(topic) =>
        {
            Err(private_topic(&access.subject, topic))
        }
        _ => Ok(()),
    })
}

/// How long these rights last from now on, if they end.
pub(crate) fn expires_in(access: &Access) -> Option<Duration> {
    let expires_at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(access.expires_at?))?;
    Some(expires_at.duration_since(SystemTime::now()).unwrap_or_default())
}

fn unix_secs() -> u64 {
    // A clock before 1970 is as wrong as can be: every token is then not yet expired, and not yet valid either if it says so.
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
