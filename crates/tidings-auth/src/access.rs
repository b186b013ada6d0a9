//! What a verified credential allows.

use std::{
    fmt,
    net::IpAddr,
    num::{NonZeroU32, NonZeroU64},
    sync::Arc,
};

use serde_json::{Map, Value};
use tidings_topic::{Grants, Matcher, Topic};

/// The permissions of a request, and when they expire. Cloning is cheap.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Access {
    /// The topics that may be published: every topic of an event must be covered.
    pub publish: Grants,
    /// The topics of which private events may be received.
    pub subscribe: Grants,
    /// Whether the hub may be operated: its metrics be read, its administrative routes be used.
    /// Only keys of the configuration and a hub without keys on a loopback address give this.
    pub admin: bool,
    /// When the permissions expire, in seconds since 1970; streams are closed then. `None` is
    /// never.
    pub expires_at: Option<u64>,
    /// The holder, for logs and for [`scoped`](Self::scoped) names.
    pub subject: Subject,
    /// The `iss` of a token. `None` for every other credential.
    pub issuer: Option<Arc<str>>,
    /// The id that its issuer gave this one credential, to revoke it by: that of a ticket, or the
    /// `jti` of a token (RFC 7519, section 4.1.7). `None` for keys, and for tokens without one. At
    /// most [`CREDENTIAL_BYTES_MAX`](crate::CREDENTIAL_BYTES_MAX) bytes; ids of different kinds of
    /// credentials may be equal.
    pub id: Option<Arc<str>>,
    /// When it was issued, in seconds since 1970 by the clock of its issuer: the time in a ticket, or
    /// the `iat` of a token. `None` for keys, and for tokens without one. A revocation concerns what
    /// was issued before it.
    pub issued_at: Option<u64>,
    /// The name under which streams with this credential are revoked together, such as one user or
    /// one session. Only tickets have one, and streams that an application has decided about.
    pub label: Option<Arc<str>>,
    /// What the credential restricts besides topics.
    pub limits: Limits,
    /// Where the request presented the credential.
    pub presented_in: CredentialPlace,
    /// Whether it is a token of the older revision of the Mercure protocol (0.x).
    pub is_of_older_revision: bool,
    details: Arc<[SubscribeDetail]>,
}

/// The holder of an [`Access`]. Its [`Display`](fmt::Display) is one line without control
/// characters, fit for a log.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Subject {
    /// No credential was presented.
    Anonymous,
    /// The hub has no keys and allows everything.
    Everybody,
    /// The key of this name.
    Key(Arc<str>),
    /// A token, with its `sub` if it has one.
    Token(Option<Arc<str>>),
    /// A user of the application, which has decided about this one stream.
    Application,
    /// A ticket, with its label if it has one.
    Ticket(Option<Arc<str>>),
}

/// Restrictions that the server of a stream has to apply. None by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Limits {
    /// Most streams that are open at the same time with the ticket of this [`id`](Access::id), or
    /// with the key of this name.
    pub streams_max: Option<NonZeroU32>,
    /// Longest time that a stream is open before its client has to present the credential again, in
    /// seconds: that of the issuer of a token.
    pub stream_lifetime_secs_max: Option<NonZeroU64>,
    /// Only clients at this IPv4 address, or in the /64 network of this IPv6 address.
    pub address: Option<IpAddr>,
}

impl Limits {
    /// Whether a client at this address may use the credential. Browsers change the second half of
    /// an IPv6 address every day (RFC 8981), so only the network counts. A client of unknown address
    /// may not, if there is a restriction.
    pub fn allow_address(&self, client: Option<IpAddr>) -> bool {
        let Some(allowed) = self.address else { return true };
        let Some(client) = client else { return false };
        match (allowed.to_canonical(), client.to_canonical()) {
            (IpAddr::V6(allowed), IpAddr::V6(client)) => allowed.segments()[..4] == client.segments()[..4],
            (allowed, client) => allowed == client,
        }
    }
}

/// Where a request presents its credential.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum CredentialPlace {
    /// In the header `Authorization`, or nowhere.
    #[default]
    Header,
    /// In the parameter `ticket` of the URL.
    Parameter,
    /// In a cookie, which browsers send for every page: a request that writes needs a further check
    /// of the page that caused it.
    Cookie,
}

/// A detail of a token that allows to subscribe, in the order of the token.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct SubscribeDetail {
    pub(crate) topics: Grants,
    pub(crate) payload: Option<Map<String, Value>>,
    /// Whether the payload is for all subscriptions of the token, whatever the topics.
    pub(crate) is_for_all: bool,
}

impl SubscribeDetail {
    fn describes(&self, matcher: &Matcher) -> bool {
        self.is_for_all
            || self.topics.matchers().contains(matcher)
            || match matcher {
                Matcher::Any => self.topics.is_all(),
                Matcher::Exact(topic) => self.topics.covers(topic),
                Matcher::Pattern(pattern) => {
                    Topic::from_stored(pattern.as_str()).is_some_and(|text| self.topics.covers(&text))
                }
            }
    }
}

impl Access {
    /// The permissions without a credential on a hub that admits anonymous subscribers: receive
    /// public events.
    pub fn anonymous() -> Self {
        Self::new(Subject::Anonymous, Grants::NONE, Grants::NONE)
    }

    /// Every permission, without expiry: a hub without keys on a loopback address.
    pub fn everything() -> Self {
        Self { admin: true, ..Self::new(Subject::Everybody, Grants::all(), Grants::all()) }
    }

    /// What an application has allowed for one stream.
    pub fn of_application(subscribe: Grants, expires_at: Option<u64>, label: Option<Arc<str>>) -> Self {
        Self { expires_at, label, ..Self::new(Subject::Application, Grants::NONE, subscribe) }
    }

    /// The user or session that a stream is for, by which presence lists name its subscriber: the label
    /// of a ticket or of an application's answer, or the `sub` of a token. Keys have none: they are
    /// those of services.
    pub fn presence_label(&self) -> Option<&str> {
        match &self.subject {
            Subject::Token(subject) => subject.as_deref(),
            _ => self.label.as_deref(),
        }
    }

    /// The payload of the token for this subscription: that of the first detail that covers the text
    /// of the matcher as if it were a topic (the Mercure protocol, "Active subscriptions"). A token of
    /// the older revision has one for all subscriptions.
    pub fn payload(&self, matcher: &Matcher) -> Option<&Map<String, Value>> {
        self.details.iter().find(|detail| detail.describes(matcher))?.payload.as_ref()
    }

    /// Whether the token has a payload for any subscription.
    pub fn has_payloads(&self) -> bool {
        self.details.iter().any(|detail| detail.payload.is_some())
    }

    /// Whether a subscription to this topic or pattern stays within what may be received: the topic
    /// is covered, or the very pattern or `*` is held. Whether one pattern includes another cannot
    /// be decided.
    pub fn holds(&self, matcher: &Matcher) -> bool {
        match matcher {
            Matcher::Exact(topic) => self.subscribe.covers(topic),
            Matcher::Any => self.subscribe.is_all(),
            Matcher::Pattern(_) => self.subscribe.is_all() || self.subscribe.matchers().contains(matcher),
        }
    }

    /// The topics and patterns that a ticket allows, of which streams with it choose. `None` for
    /// every other credential: these add to what anonymous subscribers receive, and choose nothing.
    pub fn ticket_matchers(&self) -> Option<&[Matcher]> {
        matches!(self.subject, Subject::Ticket(_)).then(|| self.subscribe.matchers())
    }

    /// Whether the permissions have expired at this time.
    pub fn is_expired(&self, now_unix_secs: u64) -> bool {
        self.expires_at.is_some_and(|expires_at| now_unix_secs >= expires_at)
    }

    pub(crate) fn new(subject: Subject, publish: Grants, subscribe: Grants) -> Self {
        Self {
            publish,
            subscribe,
            admin: false,
            expires_at: None,
            subject,
            issuer: None,
            id: None,
            issued_at: None,
            label: None,
            limits: Limits::default(),
            presented_in: CredentialPlace::default(),
            is_of_older_revision: false,
            details: Arc::default(),
        }
    }

    pub(crate) fn of_issuer(mut self, issuer: &Arc<str>) -> Self {
        self.issuer = Some(Arc::clone(issuer));
        self
    }

    pub(crate) fn with_id(mut self, id: Option<String>) -> Self {
        self.id = id.map(Into::into);
        self
    }

    pub(crate) fn until(mut self, expires_at: Option<u64>, details: Vec<SubscribeDetail>) -> Self {
        self.expires_at = expires_at;
        self.details = details.into();
        self
    }
}

/// Longest part of a `sub` or a label that a log line repeats, in characters.
const SUBJECT_CHARS_MAX: usize = 128;

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Everybody => f.write_str("everybody"),
            Self::Application => f.write_str("application"),
            Self::Key(name) => write!(f, "key {name}"),
            Self::Token(None) => f.write_str("token"),
            Self::Token(Some(subject)) => write!(f, "token of {}", Shown(subject)),
            Self::Ticket(None) => f.write_str("ticket"),
            Self::Ticket(Some(label)) => write!(f, "ticket of {}", Shown(label)),
        }
    }
}

/// The beginning of a name from a credential, without control characters.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.0.chars().take(SUBJECT_CHARS_MAX).collect();
        write!(f, "{}", shown.escape_debug())
    }
}
