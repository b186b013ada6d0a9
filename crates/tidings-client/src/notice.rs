//! Notices of the hub about the stream itself: events of type `tidings`.

use serde::Deserialize;

/// The type of event that carries notices. No publisher can send it.
pub(crate) const EVENT_TYPE: &str = "tidings";

/// A notice of the hub about this subscription.
///
/// ```no_run
/// use futures_util::StreamExt;
/// use tidings_client::{Client, ClientEvent, Notice, Subscribe};
///
/// # async fn example() -> Result<(), tidings_client::ClientError> {
/// let client = Client::new("http://127.0.0.1:8080", None)?;
/// let mut orders = client.subscribe(&Subscribe::new().topic("orders"))?;
/// while let Some(event) = orders.next().await {
///     match event? {
///         ClientEvent::Notice { notice: Notice::Gap { reason, oldest, .. }, .. } => {
///             println!("orders are missing ({}); load them again. Oldest: {oldest:?}", reason.as_str());
///         }
///         ClientEvent::Notice { notice: Notice::Hello { connection, .. }, id } => {
///             println!("this is {connection}, after {id}");
///         }
///         event => println!("{event:?}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Events that this subscription could have received are no longer available. The stream
    /// continues at the oldest that remains.
    Gap {
        /// Why they are not available.
        reason: GapReason,
        /// The id that the client asked for.
        requested: Option<String>,
        /// The id of the oldest event that remains.
        oldest: Option<String>,
        /// The id of the newest event.
        newest: Option<String>,
    },
    /// The hub is about to end the stream; the subscription reconnects by itself.
    Reconnect {
        /// Why it ends.
        reason: EndReason,
    },
    /// What this subscription was granted has been withdrawn. The hub ends the stream; the
    /// subscription reconnects by itself, and may be refused.
    Revoked,
    /// The stream has begun.
    Hello {
        /// The name of this connection, which a publisher can exclude.
        connection: String,
        /// How often the hub sends something at least, if only a comment; 0 if it does not. The
        /// subscription waits for as long as that takes, whatever its [idle
        /// time-out](crate::EventSource::idle_timeout). `None` if the hub does not announce it.
        heartbeat_secs: Option<u64>,
    },
    /// The credential expires soon; renew it and subscribe again from the last id.
    Expiring {
        /// Seconds until the hub ends the stream.
        remaining_secs: u64,
    },
    /// The credential has expired, and the hub ends the stream. The subscription reconnects by
    /// itself, and is refused unless the credential has been renewed.
    Expired,
    /// Too many streams with the same credential are open. The hub ends this one; the subscription
    /// tries again after the pause that the hub asks for.
    OverLimit,
    /// A notice that this version does not know, as it was received.
    Other(String),
}

/// Why events are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GapReason {
    /// They were dropped because of age or number.
    Expired,
    /// The hub does not know the id that the client asked for.
    Unknown,
    /// The id belongs to another log: the hub lost or replaced its own.
    OtherLog,
    /// A reason that this version does not know, as it was received.
    Other(String),
}

/// Why the hub ends a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// The hub shuts down.
    Shutdown,
    /// The connection has reached the maximum age that the hub allows.
    Lifetime,
    /// A reason that this version does not know, as it was received.
    Other(String),
}

impl Notice {
    /// Parses the data of an event of type `tidings`. Data that cannot be parsed is kept, not
    /// dropped.
    pub(crate) fn parse(data: &str) -> Self {
        let Ok(wire) = serde_json::from_str::<Wire>(data) else {
            return Self::Other(data.to_owned());
        };
        match (wire.kind.as_str(), wire.connection) {
            ("expired", _) => Self::Expired,
            ("expiring", _) => match wire.remaining_secs {
                Some(remaining_secs) => Self::Expiring { remaining_secs },
                None => Self::Other(data.to_owned()),
            },
            ("gap", _) => Self::Gap {
                reason: GapReason::parse(wire.reason.unwrap_or_default()),
                requested: wire.requested,
                oldest: wire.oldest,
                newest: wire.newest,
            },
            ("reconnect", _) => Self::Reconnect { reason: EndReason::parse(wire.reason.unwrap_or_default()) },
            ("revoked", _) => Self::Revoked,
            ("over-limit", _) => Self::OverLimit,
            ("hello", Some(connection)) => Self::Hello { connection, heartbeat_secs: wire.heartbeat_secs },
            _ => Self::Other(data.to_owned()),
        }
    }
}

impl GapReason {
    fn parse(word: String) -> Self {
        match word.as_str() {
            "expired" => Self::Expired,
            "unknown" => Self::Unknown,
            "other-log" => Self::OtherLog,
            _ => Self::Other(word),
        }
    }

    /// The reason as the hub spells it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Expired => "expired",
            Self::Unknown => "unknown",
            Self::OtherLog => "other-log",
            Self::Other(word) => word,
        }
    }
}

impl EndReason {
    fn parse(word: String) -> Self {
        match word.as_str() {
            "shutdown" => Self::Shutdown,
            "lifetime" => Self::Lifetime,
            _ => Self::Other(word),
        }
    }

    /// The reason as the hub spells it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Shutdown => "shutdown",
            Self::Lifetime => "lifetime",
            Self::Other(word) => word,
        }
    }
}

#[derive(Deserialize)]
struct Wire {
    kind: String,
    reason: Option<String>,
    requested: Option<String>,
    oldest: Option<String>,
    newest: Option<String>,
    connection: Option<String>,
    heartbeat_secs: Option<u64>,
    remaining_secs: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_names_its_reason_and_the_ends_of_the_log() {
        let data =
            r##"{"kind":"gap","reason":"other-log","requested":"7","oldest":"#a.1","newest":null,"more":1}"##;
        let gap = Notice::Gap {
            reason: GapReason::OtherLog,
            requested: Some("7".to_owned()),
            oldest: Some("#a.1".to_owned()),
            newest: None,
        };
        assert_eq!(Notice::parse(data), gap);
    }

    #[test]
    fn the_other_kinds_are_distinguished() {
        let reconnect = Notice::Reconnect { reason: EndReason::Shutdown };
        assert_eq!(Notice::parse(r#"{"kind":"reconnect","reason":"shutdown"}"#), reconnect);
        let hello = |heartbeat_secs| Notice::Hello { connection: "c-1".to_owned(), heartbeat_secs };
        assert_eq!(Notice::parse(r#"{"kind":"hello","connection":"c-1"}"#), hello(None));
        let announced = r#"{"kind":"hello","connection":"c-1","heartbeat_secs":15}"#;
        assert_eq!(Notice::parse(announced), hello(Some(15)));
        let expiring = Notice::Expiring { remaining_secs: 60 };
        assert_eq!(Notice::parse(r#"{"kind":"expiring","remaining_secs":60}"#), expiring);
        assert_eq!(Notice::parse(r#"{"kind":"expired"}"#), Notice::Expired);
        assert_eq!(Notice::parse(r#"{"kind":"over-limit"}"#), Notice::OverLimit);
    }

    #[test]
    fn an_unknown_notice_is_kept_as_received() {
        for data in ["", "{", "7", r#"{"kind":"later"}"#, r#"{"kind":"hello"}"#, r#"{"kind":"expiring"}"#] {
            assert_eq!(Notice::parse(data), Notice::Other(data.to_owned()));
        }
    }

    #[test]
    fn a_reason_keeps_its_spelling() {
        for word in ["expired", "unknown", "other-log", "eclipse"] {
            assert_eq!(GapReason::parse(word.to_owned()).as_str(), word);
        }
        for word in ["shutdown", "lifetime", "boredom"] {
            assert_eq!(EndReason::parse(word.to_owned()).as_str(), word);
        }
    }
}
