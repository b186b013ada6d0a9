//! Turns the headers of a request into its permissions.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use tidings_topic::Validator;

use crate::{
    Access, AuthConfig, AuthError, ConfigError, MintTicketError, MintedTicket, NewTicket,
    keys::Keys,
    presentation::{self, CookieNames, Presented},
    ticket::{Tickets, has_ticket_shape},
    token::{Issuer, has_token_shape},
};

/// Checks credentials against the keys, the issuer and the ticket secrets of a hub. Cloning is
/// cheap, and clones share what [`replace`](Self::replace) replaces.
#[derive(Clone, Debug, Default)]
pub struct Authenticator(Arc<ArcSwap<Checks>>);

/// What credentials are checked against.
#[derive(Debug, Default)]
struct Checks {
    keys: Keys,
    issuer: Option<Issuer>,
    tickets: Option<Tickets>,
    cookies: CookieNames,
}

impl Authenticator {
    /// Checks the configuration and prepares it. The validator checks every matcher, here and in
    /// tokens.
    pub fn new(config: AuthConfig, validator: &Validator) -> Result<Self, ConfigError> {
        let tickets = Tickets::new(&config, validator)?;
        let AuthConfig { keys, issuer, cookie_name, .. } = config;
        let checks = Checks {
            tickets,
            cookies: CookieNames::new(cookie_name, validator.hub_url()),
            keys: Keys::new(&keys, validator)?,
            issuer: issuer.map(|issuer| Issuer::new(issuer, validator)).transpose()?,
        };
        Ok(Self(Arc::new(ArcSwap::from_pointee(checks))))
    }

    /// From now on this one and its clones check what `other` checks. What a credential has been
    /// allowed before remains allowed: a stream goes on.
    pub fn replace(&self, other: &Self) {
        self.0.store(other.0.load_full());
    }

    /// What the credential of a request with these headers and this query allows. `None` is a
    /// request without one; an invalid credential, or one in a place that a hub does not read, is
    /// an error, never `None`.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        now_unix_secs: u64,
    ) -> Result<Option<Access>, AuthError> {
        let checks = self.0.load();
        let Some(Presented { credential, place }) = presentation::find(headers, query, &checks.cookies)?
        else {
            return Ok(None);
        };
        let mut access = checks.check(&credential, now_unix_secs)?;
        access.presented_in = place;
        Ok(Some(access))
    }

    /// What this credential allows, wherever it was presented.
    pub fn check(&self, credential: &str, now_unix_secs: u64) -> Result<Access, AuthError> {
        self.0.load().check(credential, now_unix_secs)
    }

    /// Makes a ticket with the first secret of the configuration, if this access is that of a key
    /// which covers it: each topic, and for each pattern `*` or the very pattern.
    pub fn mint_ticket(&self, access: &Access, ticket: &NewTicket) -> Result<MintedTicket, MintTicketError> {
        self.0.load().tickets.as_ref().ok_or(MintTicketError::NoSecret)?.mint(access, ticket)
    }
}

impl Checks {
    fn check(&self, credential: &str, now_unix_secs: u64) -> Result<Access, AuthError> {
        if has_ticket_shape(credential) {
            let tickets = self.tickets.as_ref().ok_or_else(|| {
                AuthError::invalid_token(
                    "this hub accepts no tickets: its configuration has no [[ticket_secret]]",
                )
            })?;
            return tickets.verify(credential, now_unix_secs);
        }
        if has_token_shape(credential) {
            let issuer = self.issuer.as_ref().ok_or_else(|| {
                AuthError::invalid_token("this hub accepts no tokens: no issuer is configured")
            })?;
            return issuer.verify(credential, now_unix_secs);
        }
        self.keys.find(credential).ok_or_else(|| AuthError::invalid_token("the key is not known to this hub"))
    }
}
