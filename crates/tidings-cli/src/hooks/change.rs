//! What a hook reports: somebody came to a topic or left it, or a subscription began or ended.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidings::log::{Cursor, Timestamp};
use tidings_presence::ActiveSubscription;

/// The name of a change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Kind {
    /// A topic has subscribers, and had none.
    Occupied,
    /// The first subscriber with a label came to a topic.
    Joined,
    /// The last subscriber with a label has left a topic, and none has come back.
    Left,
    /// A topic has no subscribers any more.
    Vacated,
    /// A subscription began.
    Began,
    /// A subscription ended.
    Ended,
}

impl Kind {
    /// Those of presence, in the order in which changes of one moment are reported.
    pub(crate) const PRESENCE: [Self; 4] = [Self::Occupied, Self::Joined, Self::Left, Self::Vacated];

    /// Those of active subscriptions.
    pub(super) const SUBSCRIPTIONS: [Self; 2] = [Self::Began, Self::Ended];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Occupied => "topic.occupied",
            Self::Joined => "presence.joined",
            Self::Left => "presence.left",
            Self::Vacated => "topic.vacated",
            Self::Began => "subscription.began",
            Self::Ended => "subscription.ended",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::PRESENCE.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            format!("`{text}` is not one of `{}`", Self::PRESENCE.map(Self::name).join("`, `"))
        })
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Who may come and leave.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Member {
    /// The subscribers of a topic, or those of one label.
    Presence(tidings_presence::Member),
    /// A subscription.
    Subscription(ActiveSubscription),
}

/// A member came or left.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Change {
    pub(super) member: Member,
    pub(super) is_here: bool,
}

impl Change {
    pub(super) fn kind(&self) -> Kind {
        let has_label = match &self.member {
            Member::Subscription(_) => return if self.is_here { Kind::Began } else { Kind::Ended },
            Member::Presence(member) => member.label.is_some(),
        };
        match (has_label, self.is_here) {
            (false, true) => Kind::Occupied,
            (true, true) => Kind::Joined,
            (true, false) => Kind::Left,
            (false, false) => Kind::Vacated,
        }
    }
}

/// A change in the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Recorded {
    pub(super) cursor: Cursor,
    /// Unique, and the same each time that the change is delivered.
    pub(super) id: String,
    pub(super) time: Timestamp,
    pub(super) change: Change,
}

impl Recorded {
    /// The time in RFC 3339, in UTC.
    pub(super) fn time_text(&self) -> String {
        let millis = i64::try_from(self.time.to_millis()).unwrap_or(i64::MAX);
        jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX).to_string()
    }
}
