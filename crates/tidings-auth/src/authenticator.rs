//! Turns the headers of a request into its permissions.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use tidings_topic::Validator;

use crate::{
    Access, AuthConfig, AuthError, ConfigError, MintTicketError, MintedTicket, NewTicket,
    keys::Keys,
    presentation::{self, CookieNames, CredentialPlaces, Presented, misplaced},
    proof,
    resource::ProtectedResource,
    ticket::{Tickets, has_ticket_shape},
    token::{Issuers, KeyWait, RemoteKeys, has_token_shape},
};

/// Checks credentials against the keys, the issuers and the ticket secrets of a hub. Cloning is
/// cheap, and clones share what [`replace`](Self::replace) replaces.
#[derive(Clone, Debug, Default)]
pub struct Authenticator(Arc<ArcSwap<Checks>>);

/// What credentials are checked against.
#[derive(Debug, Default)]
struct Checks {
    keys: Keys,
    issuers: Issuers,
    tickets: Option<Tickets>,
    cookies: CookieNames,
}

impl Authenticator {
    /// Checks the configuration and prepares it. The validator checks every matcher, here and in
    /// tokens.
    pub fn new(config: AuthConfig, validator: &Validator) -> Result<Self, ConfigError> {
        let checks = Checks {
            tickets: Tickets::new(&config, validator)?,
            keys: Keys::new(&config.keys, validator)?,
            issuers: Issuers::new(&config, validator)?,
            cookies: CookieNames::new(config.cookie_name, validator.hub_url()),
        };
        Ok(Self(Arc::new(ArcSwap::from_pointee(checks))))
    }

    /// From now on this one and its clones check what `other` checks. What a credential has been
    /// allowed before remains allowed: a stream goes on. Keys that were fetched for an issuer that has
    /// not changed are taken over, so that its tokens are accepted without a pause.
    pub fn replace(&self, other: &Self) {
        let (before, after) = (self.0.load(), other.0.load_full());
        for keys in after.issuers.remote_keys() {
            before.issuers.remote_keys().for_each(|before| keys.adopt(before));
        }
        self.0.store(after);
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
        self.authenticate_in(CredentialPlaces::Current, headers, query, now_unix_secs)
    }

    /// As [`authenticate`](Self::authenticate), of a request that may present its credential in these
    /// places.
    pub fn authenticate_in(
        &self,
        places: CredentialPlaces,
        headers: &HeaderMap,
        query: Option<&str>,
        now_unix_secs: u64,
    ) -> Result<Option<Access>, AuthError> {
        let checks = self.0.load();
        let Some(presented) = presentation::find(headers, query, &checks.cookies, places)? else {
            return Ok(None);
        };
        let Presented { credential, place, older_only } = presented;
        if let Some(name) = older_only
            && !Issuers::is_older(&credential)
        {
            return Err(misplaced(&format!(
                "{name} unless it is a token of the older revision (0.x) of the Mercure protocol"
            )));
        }
        let mut access = checks.check(&credential, now_unix_secs)?;
        access.presented_in = place;
        Ok(Some(access))
    }

    /// A digest of the credential of a request with these headers and this query, in whichever of
    /// these places it is presented. `None` without one.
    pub fn proof(
        &self,
        places: CredentialPlaces,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Option<[u8; 32]> {
        let presented = presentation::find(headers, query, &self.0.load().cookies, places).ok()??;
        Some(proof::of_credential(&presented.credential))
    }

    /// What this credential allows, wherever it was presented.
    pub fn check(&self, credential: &str, now_unix_secs: u64) -> Result<Access, AuthError> {
        self.0.load().check(credential, now_unix_secs)
    }

    /// What a request with these headers and this query should wait for before it is authenticated:
    /// its token names an issuer that publishes keys at a URL, and none that has been fetched fits.
    /// Nearly always `None`; otherwise ask again after the wait, until the caller's patience ends.
    pub fn wait_for_keys(&self, headers: &HeaderMap, query: Option<&str>) -> Option<KeyWait> {
        let checks = self.0.load();
        checks.issuers.remote_keys().next()?;
        // Tokens in other places are of the older revision, whose keys are never at a URL.
        let places = CredentialPlaces::Current;
        let Presented { credential, .. } =
            presentation::find(headers, query, &checks.cookies, places).ok()??;
        has_token_shape(&credential).then(|| checks.issuers.wait(&credential))?
    }

    /// The keys that have to be fetched, one for each issuer that publishes its keys at a URL. Others
    /// after a [`replace`](Self::replace).
    pub fn remote_keys(&self) -> Vec<RemoteKeys> {
        self.0.load().issuers.remote_keys().cloned().collect()
    }

    /// What a client needs to know to obtain a token. `None` without an issuer of the current revision
    /// of the Mercure protocol: such a hub is no resource of OAuth 2.0.
    pub fn protected_resource(&self) -> Option<ProtectedResource> {
        let checks = self.0.load();
        checks.issuers.protected_resource(checks.cookies.configured())
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
            return self.issuers.verify(credential, now_unix_secs);
        }
        self.keys.find(credential).ok_or_else(|| AuthError::invalid_token("the key is not known to this hub"))
    }
}
