//! Makes tickets.

use std::net::IpAddr;
use std::num::NonZeroU32;

use tidings_topic::{Matcher, Validator};

use super::{
    contents::{Contents, Refusal},
    format::{self, TICKET_BYTES_MAX},
    secret::TicketSecret,
};
use crate::{Access, Subject, keys::random_text};

/// A ticket to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTicket {
    /// The topics that it allows to subscribe to; `*` is every topic.
    pub topics: Vec<String>,
    /// The URL Patterns that it allows to subscribe to.
    pub patterns: Vec<String>,
    /// The name under which streams with tickets are revoked together, such as one user.
    pub label: Option<String>,
    /// The present time, in seconds since 1970.
    pub issued_at: u64,
    /// When it ends, in seconds since 1970; at most [`TICKET_SECS_MAX`](crate::TICKET_SECS_MAX)
    /// later.
    pub expires_at: u64,
    /// Most streams that are open with it at the same time, on one hub.
    pub streams_max: Option<NonZeroU32>,
    /// The client's address: an IPv4 address, or the /64 network of an IPv6 address.
    pub address: Option<IpAddr>,
}

/// A ticket, and what its maker may want to keep.
#[derive(Clone, PartialEq, Eq)]
pub struct MintedTicket {
    /// The credential itself.
    pub ticket: String,
    /// Its id, to revoke it by. Not secret.
    pub id: String,
    /// When it ends, in seconds since 1970.
    pub expires_at: u64,
}

/// Why no ticket was made. [`Display`](std::fmt::Display) is a sentence that names no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MintTicketError {
    /// The hub has no secret for tickets.
    #[error("this hub makes no tickets: its configuration has no [[ticket_secret]]")]
    NoSecret,
    /// The credential is not a key. A token or a ticket could otherwise renew itself for ever.
    #[error("only a key may make tickets")]
    NotAKey,
    /// The key does not cover this topic or pattern.
    #[error("{0}")]
    NotCovered(String),
    /// No hub would accept it.
    #[error("the ticket {0}")]
    Invalid(String),
    /// It would be longer than any hub accepts.
    #[error(
        "the ticket would have {0} bytes; hubs accept at most {TICKET_BYTES_MAX}: use fewer or shorter topics"
    )]
    TooLong(usize),
}

impl NewTicket {
    /// Makes the ticket. The validator checks its topics and patterns, as the hub will.
    pub fn mint(
        &self,
        secret: &TicketSecret,
        validator: &Validator,
    ) -> Result<MintedTicket, MintTicketError> {
        self.mint_if(secret, validator, |_| Ok(()))
    }

    /// Makes the ticket if this access covers it: each topic, and for each pattern `*` or the very
    /// pattern, since whether one pattern includes another cannot be decided.
    pub(super) fn mint_for(
        &self,
        access: &Access,
        secret: &TicketSecret,
        validator: &Validator,
    ) -> Result<MintedTicket, MintTicketError> {
        if !matches!(access.subject, Subject::Key(_)) {
            return Err(MintTicketError::NotAKey);
        }
        self.mint_if(secret, validator, |matchers| {
            let refused = matchers.iter().find(|matcher| !access.holds(matcher));
            refused.map_or(Ok(()), |matcher| Err(MintTicketError::NotCovered(not_covered(matcher))))
        })
    }

    fn mint_if(
        &self,
        secret: &TicketSecret,
        validator: &Validator,
        allows: impl FnOnce(&[Matcher]) -> Result<(), MintTicketError>,
    ) -> Result<MintedTicket, MintTicketError> {
        let contents = Contents {
            id: random_text::<16>(),
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            topics: self.topics.clone(),
            patterns: self.patterns.clone(),
            label: self.label.clone(),
            streams_max: self.streams_max,
            address: self.address,
        };
        let matchers = contents.check(validator).map_err(|refusal| match refusal {
            Refusal::Invalid(reason) => MintTicketError::Invalid(reason),
            Refusal::Expired => MintTicketError::Invalid("has expired".to_owned()),
        })?;
        allows(&matchers)?;
        let json = serde_json::to_vec(&contents).expect("strings and numbers are always JSON");
        let ticket = format::seal(&json, secret);
        if ticket.len() > TICKET_BYTES_MAX {
            return Err(MintTicketError::TooLong(ticket.len()));
        }
        Ok(MintedTicket { ticket, id: contents.id, expires_at: contents.expires_at })
    }
}

fn not_covered(matcher: &Matcher) -> String {
    let shown: String = matcher.as_str().chars().take(64).collect();
    let shown = shown.escape_debug();
    match matcher {
        Matcher::Exact(_) => format!("the key has no subscribe permission for the topic `{shown}`"),
        Matcher::Any => "the key has no subscribe permission for every topic (`*`)".to_owned(),
        Matcher::Pattern(_) => format!(
            "the key holds neither `*` nor the very pattern `{shown}` in its `subscribe`, so it cannot make tickets for it"
        ),
    }
}

/// Omits the credential.
impl std::fmt::Debug for MintedTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MintedTicket")
            .field("id", &self.id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
