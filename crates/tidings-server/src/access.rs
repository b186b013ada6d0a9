//! Authorization of requests, shared by all APIs.

use std::time::{Duration, SystemTime};

use http::request::Parts;
use tidings::{Event, Grants, Hub, Matcher, Topic};
use tidings_auth::{
    Access, AuthError, Authenticator, CredentialPlace, CredentialPlaces, MintTicketError, MintedTicket,
    NewTicket, ProtectedResource, Subject, credential_missing, insufficient_scope, other_address,
    outside_of_ticket, private_topic, refuse_in_url, subscriber_credential_missing, ticket_writes,
};
use tokio::time::timeout;

use crate::{
    Client, ClientAddress, Keyless, ListenerRole, origin::Origins, problem::Problem,
    subscription_paths::is_hub_or_subscriptions,
};

/// How long a request waits for the keys of the issuer of its token. Then it is refused.
const KEY_WAIT: Duration = Duration::from_secs(2);

/// Decides what a request may do.
#[derive(Debug)]
pub(crate) struct Authorizer {
    /// `None`: a hub without keys and issuer, which cannot check credentials.
    pub(crate) authenticator: Option<Authenticator>,
    pub(crate) keyless: Keyless,
    pub(crate) anonymous_subscribers: bool,
    /// The path of the Mercure API, if it serves the older revision of the protocol.
    pub(crate) older_revision_path: Option<String>,
}

impl Authorizer {
    /// Whether the hub has no keys and serves this machine only.
    pub(crate) fn is_keyless_loopback(&self) -> bool {
        self.authenticator.is_none() && self.keyless == Keyless::Loopback
    }

    /// Whether the hub has no keys.
    pub(crate) fn is_keyless(&self) -> bool {
        self.authenticator.is_none()
    }

    /// The permissions of a request that subscribes.
    pub(crate) fn subscriber(&self, parts: &Parts) -> Result<Access, Problem> {
        let access = self.permissions(parts)?;
        if access.subject == Subject::Anonymous && !self.anonymous_subscribers {
            return Err(subscriber_credential_missing().into());
        }
        Ok(access)
    }

    /// Whether a request bears a ticket, which names the topics of a stream by itself.
    pub(crate) fn bears_ticket(&self, parts: &Parts) -> bool {
        self.authenticator.is_some()
            && self.permissions(parts).is_ok_and(|access| access.ticket_matchers().is_some())
    }

    /// The permissions of a request that writes: publishes, deletes, or makes a ticket. Events must
    /// also pass [`cover_events`].
    pub(crate) fn publisher(&self, parts: &Parts, origins: &Origins) -> Result<Access, Problem> {
        // Where no credential is required, every client that can send the request may publish, and
        // any web page can make a browser send it.
        if self.is_keyless() {
            origins.refuse_foreign(&parts.headers)?;
        }
        let access = self.permissions(parts)?;
        if access.subject == Subject::Anonymous {
            return Err(credential_missing().into());
        }
        if access.ticket_matchers().is_some() {
            return Err(ticket_writes().into());
        }
        // A browser sends its cookies with the requests of every page.
        if access.presented_in == CredentialPlace::Cookie {
            origins.require_allowed(&parts.headers)?;
        }
        Ok(access)
    }

    /// A digest of the credential of a request. `None` without one, and on a hub that checks none.
    pub(crate) fn proof(&self, parts: &Parts) -> Option<[u8; 32]> {
        self.authenticator.as_ref()?.proof(self.places(parts), &parts.headers, parts.uri.query())
    }

    /// What a client needs to know to obtain a token for this hub, if it accepts tokens.
    pub(crate) fn protected_resource(&self) -> Option<ProtectedResource> {
        self.authenticator.as_ref()?.protected_resource()
    }

    /// What a request has to wait for before its credential can be checked; nearly always nothing.
    pub(crate) fn keys_to_wait_for(&self, parts: &Parts) -> Option<impl Future<Output = ()> + use<>> {
        let authenticator = self.authenticator.as_ref()?;
        let mut wait = authenticator.wait_for_keys(&parts.headers, parts.uri.query())?;
        let authenticator = authenticator.clone();
        let headers = parts.headers.clone();
        let query = parts.uri.query().map(str::to_owned);
        // Boxed, since nearly no request needs the memory.
        Some(Box::pin(async move {
            let fetched = async {
                loop {
                    wait.fetched().await;
                    // The keys may have been published after this fetch began.
                    match authenticator.wait_for_keys(&headers, query.as_deref()) {
                        Some(again) => wait = again,
                        None => return,
                    }
                }
            };
            let _ = timeout(KEY_WAIT, fetched).await;
        }))
    }

    /// Refuses a request that operates the hub, without the permission to.
    pub(crate) fn administrator(&self, parts: &Parts, origins: &Origins) -> Result<(), Problem> {
        let access = self.publisher(parts, origins)?;
        if access.admin {
            return Ok(());
        }
        Err(AuthError::InsufficientScope(
            "the credential may not operate the hub: use a key with `admin = true`".to_owned(),
        )
        .into())
    }

    /// Makes a ticket, if this access covers it.
    pub(crate) fn mint_ticket(
        &self,
        access: &Access,
        ticket: &NewTicket,
    ) -> Result<MintedTicket, MintTicketError> {
        let authenticator = self.authenticator.as_ref().ok_or(MintTicketError::NoSecret)?;
        authenticator.mint_ticket(access, ticket)
    }

    /// Refuses a request that may not operate the hub. On a listener for operators every request may.
    pub(crate) fn operator(&self, parts: &Parts) -> Result<(), Problem> {
        if is_of_operators(parts) {
            return Ok(());
        }
        let access = self.permissions(parts)?;
        match (&access.subject, access.admin) {
            (_, true) => Ok(()),
            (Subject::Anonymous, false) => Err(Problem::from(credential_missing())
                .within("This needs a key with `admin = true`, or an address of `--admin-listen`")),
            (Subject::Everybody, false) => Err(Problem::forbidden(
                "admin",
                "This hub has no keys, so operators need an address of their own: start it with `--admin-listen 127.0.0.1:9090`.",
            )),
            _ => Err(Problem::forbidden(
                "admin",
                "This credential may not operate the hub: use a key with `admin = true`, or an address of `--admin-listen`.",
            )),
        }
    }

    /// Where this request may present its credential.
    fn places(&self, parts: &Parts) -> CredentialPlaces {
        match &self.older_revision_path {
            Some(hub) if is_hub_or_subscriptions(hub, parts.uri.path()) => CredentialPlaces::WithOlder,
            _ => CredentialPlaces::Current,
        }
    }

    /// The permissions of the client that sends this request.
    fn permissions(&self, parts: &Parts) -> Result<Access, AuthError> {
        let query = parts.uri.query();
        if self.is_keyless() {
            // What works here in development must not fail on a hub with keys.
            refuse_in_url(query)?;
        }
        match (&self.authenticator, self.keyless) {
            (Some(authenticator), _) => {
                let places = self.places(parts);
                let access = authenticator.authenticate_in(places, &parts.headers, query, unix_secs())?;
                let access = access.unwrap_or_else(Access::anonymous);
                // Few credentials are bound to an address, so it is looked up for these alone.
                let is_bound = access.limits.address.is_some();
                if is_bound && !access.limits.allow_address(client_address(parts).ip()) {
                    return Err(other_address());
                }
                Ok(access)
            }
            (None, Keyless::Loopback) => Ok(Access::everything()),
            (None, Keyless::Anywhere) => {
                let mut access = Access::everything();
                access.subscribe = Grants::NONE;
                access.admin = false;
                Ok(access)
            }
        }
    }
}

fn is_of_operators(parts: &Parts) -> bool {
    parts.extensions.get::<Client>().is_some_and(|client| client.listener == ListenerRole::Admin)
}

/// The Mercure protocol, "Publication": the credential must cover every topic of every event, or
/// nothing is published.
pub(crate) fn cover_events(access: &Access, events: &[Event]) -> Result<(), AuthError> {
    events.iter().flat_map(|event| &event.topics).try_for_each(|topic| cover_topic(access, topic))
}

/// A credential that may publish to a topic may also delete the events on it of which it covers all
/// topics.
pub(crate) fn cover_topic(access: &Access, topic: &Topic) -> Result<(), AuthError> {
    if access.publish.covers(topic) { Ok(()) } else { Err(insufficient_scope("publish", topic)) }
}

/// Refuses a subscription to more than a ticket allows. Public topics are no exception: the ticket
/// is all that its holder was given.
pub(crate) fn stay_within_ticket(access: &Access, matchers: &[Matcher]) -> Result<(), AuthError> {
    if access.ticket_matchers().is_none() {
        return Ok(());
    }
    matchers
        .iter()
        .find(|matcher| !access.holds(matcher))
        .map_or(Ok(()), |matcher| Err(outside_of_ticket(matcher)))
}

/// Refuses a subscription to more than a ticket allows, and one that names a private topic without
/// a grant on it: it would never receive an event. Patterns and `*` receive what the grants cover.
pub(crate) fn cover_subscription(hub: &Hub, access: &Access, matchers: &[Matcher]) -> Result<(), AuthError> {
    stay_within_ticket(access, matchers)?;
    matchers.iter().try_for_each(|matcher| match matcher {
        Matcher::Exact(topic)
            if hub.are_private(std::slice::from_ref(topic)) && !access.subscribe.covers(topic) =>
        {
            Err(private_topic(&access.subject, topic))
        }
        _ => Ok(()),
    })
}

/// The address of the client that sends this request.
pub(crate) fn client_address(parts: &Parts) -> ClientAddress {
    parts.extensions.get::<Client>().map_or(ClientAddress::Unknown, |client| client.address)
}

/// The time until these permissions expire, if they do.
pub(crate) fn expires_in(access: &Access) -> Option<Duration> {
    let expires_at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(access.expires_at?))?;
    Some(expires_at.duration_since(SystemTime::now()).unwrap_or_default())
}

/// The present time, in seconds since 1970.
pub(crate) fn unix_secs() -> u64 {
    // With a clock before 1970, no token has expired, and tokens with an `nbf` are not yet valid.
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
