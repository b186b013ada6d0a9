//! What is revoked, and when.

use std::{sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};
use tidings::ConnectionId;
use tidings_auth::Access;

/// What streams have that can be revoked together. Its form in JSON is one field.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mark {
    /// A name that an application gives to many.
    Label(#[serde(with = "shared_text")] Arc<str>),
    /// The id of a credential, of any kind and any issuer.
    Id(#[serde(with = "shared_text")] Arc<str>),
    /// The id of a ticket.
    Ticket(#[serde(with = "shared_text")] Arc<str>),
    /// The id of a token, which is one for each issuer (RFC 7519, section 4.1.7).
    Token {
        #[serde(with = "shared_text")]
        issuer: Arc<str>,
        #[serde(with = "shared_text")]
        jti: Arc<str>,
    },
    /// The name of one connection.
    Connection(#[serde(with = "shared_text")] Arc<str>),
}

/// A revocation of a mark, as hubs exchange it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Times {
    /// When it was revoked, in seconds since 1970: credentials that were issued later are not.
    pub(super) at: u64,
    /// Until when it is kept.
    pub(super) until: u64,
    /// Random, so that hubs distinguish two revocations of a mark within a second.
    #[serde(default)]
    pub(super) number: u64,
}

impl Times {
    /// This revocation of a mark that was revoked before: it never ends what the other one refuses,
    /// such as by a shorter time, or by the clock of another hub.
    pub(super) fn after(self, before: Self) -> Self {
        Self { at: self.at.max(before.at), until: self.until.max(before.until), number: self.number }
    }
}

/// serde reads no shared text by itself.
mod shared_text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Into::into)
    }
}

impl Mark {
    /// The marks of streams with these permissions.
    pub(super) fn of(access: &Access) -> Vec<Self> {
        let label = access.label.clone().map(Self::Label);
        let id = access.id.clone();
        let scoped = id.clone().map(|id| match &access.issuer {
            Some(issuer) => Self::Token { issuer: Arc::clone(issuer), jti: id },
            None => Self::Ticket(id),
        });
        label.into_iter().chain(id.map(Self::Id)).chain(scoped).collect()
    }

    #[cfg(test)]
    pub(super) fn label(label: &str) -> Self {
        Self::Label(label.into())
    }

    /// The connection, if it is one.
    pub(super) fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::Connection(name) => ConnectionId::parse(name),
            Self::Label(_) | Self::Id(_) | Self::Ticket(_) | Self::Token { .. } => None,
        }
    }

    /// Whether several credentials have it.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Label(_))
    }

    /// The key in the shared state.
    pub(super) fn key(&self, prefix: &str) -> String {
        let (kind, name) = match self {
            Self::Label(name) => ("label", name),
            Self::Id(name) => ("id", name),
            Self::Ticket(name) => ("ticket", name),
            Self::Connection(name) => ("connection", name),
            // The length, since both may contain any separator.
            Self::Token { issuer, jti } => return format!("{prefix}token/{}/{issuer}{jti}", issuer.len()),
        };
        format!("{prefix}{kind}/{name}")
    }

    /// The mark with this key. `None` for keys of other versions.
    pub(super) fn of_key(key: &str, prefix: &str) -> Option<Self> {
        let (kind, name) = key.strip_prefix(prefix)?.split_once('/')?;
        match kind {
            "label" => Some(Self::Label(name.into())),
            "id" => Some(Self::Id(name.into())),
            "ticket" => Some(Self::Ticket(name.into())),
            "token" => {
                let (length, names) = name.split_once('/')?;
                let (issuer, jti) = names.split_at_checked(length.parse().ok()?)?;
                Some(Self::Token { issuer: issuer.into(), jti: jti.into() })
            }
            "connection" => Some(Self::Connection(name.into())),
            _ => None,
        }
    }
}

/// The present time, in seconds since 1970.
pub(super) fn unix_secs() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_its_mark_whatever_the_name_contains() {
        for name in ["user-42", "a/b", "", "é 😀", "label/x"] {
            let simple: [fn(std::sync::Arc<str>) -> Mark; 4] =
                [Mark::Label, Mark::Id, Mark::Ticket, Mark::Connection];
            let marks = simple.map(|mark| mark(name.into())).into_iter();
            let tokens = ["", "https://app.example", "1/"]
                .map(|issuer| Mark::Token { issuer: issuer.into(), jti: name.into() });
            for mark in marks.chain(tokens) {
                assert_eq!(Mark::of_key(&mark.key("r/"), "r/"), Some(mark));
            }
        }
        let split = |issuer: &str, jti: &str| Mark::Token { issuer: issuer.into(), jti: jti.into() }.key("");
        assert_ne!(split("a", "bc"), split("ab", "c"));
        for other in [
            "r/",
            "r/label",
            "r/other/x",
            "x/label/a",
            "r/token/a",
            "r/token/x/a",
            "r/token/9/a",
            "r/token/1/é",
        ] {
            assert_eq!(Mark::of_key(other, "r/"), None);
        }
    }
}
