//! Turns the headers of a request into its permissions.

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
/// cheap.
#[derive(Clone, Debug, Default)]
pub struct Authenticator {
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
        Ok(Self {
            tickets,
            cookies: CookieNames::new(cookie_name, validator.hub_url()),
            keys: Keys::new(&keys, validator)?,
            issuer: issuer.map(|issuer| Issuer::new(issuer, validator)).transpose()?,
        })
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
        let Some(Presented { credential, place }) = presentation::find(headers, query, &self.cookies)? else {
            return Ok(None);
        };
        let mut access = self.check(&credential, now_unix_secs)?;
        access.presented_in = place;
        Ok(Some(access))
    }

    /// What this credential allows, wherever it was presented.
    pub fn check(&self, credential: &str, now_unix_secs: u64) -> Result<Access, AuthError> {
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

    /// Makes a ticket with the first secret of the configuration, if this access is that of a key
    /// which covers it: each topic, and for each pattern `*` or the very pattern.
    pub fn mint_ticket(&self, access: &Access, ticket: &NewTicket) -> Result<MintedTicket, MintTicketError> {
        self.tickets.as_ref().ok_or(MintTicketError::NoSecret)?.mint(access, ticket)
    }
}
