//! Tickets: credentials for clients that can only send a URL, such as a native EventSource.
//!
//! A ticket is `tt1.SECRET_ID.CONTENTS.MAC` ([`format`](mod@format)): the id of a [`TicketSecret`], a
//! JSON object ([`contents`]) in base64url, and the HMAC-SHA-256 of everything before the last dot,
//! in base64url. So any language makes one with its standard library (`docs/tickets.md`).
//!
//! Invariants: of a ticket nothing but the id of its secret is read before its MAC is verified; the
//! MAC covers the version and that id; a ticket only ever allows to subscribe; no ticket is valid
//! for longer than [`TICKET_SECS_MAX`].

mod contents;
mod format;
mod mint;
mod secret;

use std::sync::Arc;

use tidings_topic::Validator;

use crate::{Access, AuthConfig, AuthError, ConfigError};

pub use contents::{TICKET_SECS_DEFAULT, TICKET_SECS_MAX};
pub use format::TICKET_BYTES_MAX;
pub(crate) use format::has_ticket_shape;
pub use mint::{MintTicketError, MintedTicket, NewTicket};
pub use secret::TicketSecret;

use contents::Contents;

/// Verifies and makes the tickets of a hub. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Tickets(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Not empty; the first one makes new tickets.
    secrets: Vec<TicketSecret>,
    validator: Validator,
}

impl Tickets {
    /// `None` without secrets.
    pub(crate) fn new(config: &AuthConfig, validator: &Validator) -> Result<Option<Self>, ConfigError> {
        let secrets = secret::all(config)?;
        let validator = validator.clone();
        Ok((!secrets.is_empty()).then(|| Self(Arc::new(Shared { secrets, validator }))))
    }

    /// What this ticket allows at this time.
    pub(crate) fn verify(&self, ticket: &str, now_unix_secs: u64) -> Result<Access, AuthError> {
        let json = format::open(ticket, &self.0.secrets)?;
        Contents::parse(&json)
            .and_then(|contents| contents.access(now_unix_secs, &self.0.validator))
            .map_err(Into::into)
    }

    /// Makes a ticket, if this access covers it.
    pub(crate) fn mint(&self, access: &Access, ticket: &NewTicket) -> Result<MintedTicket, MintTicketError> {
        let Shared { secrets, validator } = &*self.0;
        ticket.mint_for(access, &secrets[0], validator)
    }
}
