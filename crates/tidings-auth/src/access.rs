//! What a verified credential allows.

use std::{fmt, sync::Arc};

use serde_json::{Map, Value};
use tidings_topic::{Grants, Topic};

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
    /// The id that its issuer gave this one credential, to revoke it by: the `jti` of a token (RFC
    /// 7519, section 4.1.7). `None` for keys, and for tokens without one. At most
    /// [`CREDENTIAL_BYTES_MAX`](crate::CREDENTIAL_BYTES_MAX) bytes; ids of different kinds of
    /// credentials may be equal.
    pub id: Option<Arc<str>>,
    /// The name under which streams with this credential are revoked together, such as one user or
    /// one session. Only tickets have one, and streams that an application has decided about.
    pub label: Option<Arc<str>>,
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
}

/// A detail of a token that allows to subscribe, in the order of the token.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct SubscribeDetail {
    pub(crate) topics: Grants,
    pub(crate) payload: Option<Map<String, Value>>,
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

    /// The payload of the token for a subscription of this topic: that of the first detail that
    /// covers it (the Mercure protocol, "Active subscriptions").
    pub fn payload(&self, topic: &Topic) -> Option<&Map<String, Value>> {
        self.details.iter().find(|detail| detail.topics.covers(topic))?.payload.as_ref()
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
            id: None,
            label: None,
            details: Arc::default(),
        }
    }

    pub(crate) fn with_id(mut self, id: Option<String>) -> Self {
        self.id = id.map(Into::into);
        self
    }

    pub(crate) fn until(mut self, expires_at: u64, details: Vec<SubscribeDetail>) -> Self {
        self.expires_at = Some(expires_at);
        self.details = details.into();
        self
    }
}

/// Longest part of a `sub` that a log line repeats, in characters.
const SUBJECT_CHARS_MAX: usize = 128;

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Everybody => f.write_str("everybody"),
            Self::Application => f.write_str("application"),
            Self::Key(name) => write!(f, "key {name}"),
            Self::Token(None) => f.write_str("token"),
            Self::Token(Some(subject)) => {
                let shown: String = subject.chars().take(SUBJECT_CHARS_MAX).collect();
                write!(f, "token of {}", shown.escape_debug())
            }
        }
    }
}
