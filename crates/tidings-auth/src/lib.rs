//! Authentication: a credential in, grants out.
//!
//! An [`Authenticator`] is built once from an [`AuthConfig`]. It reads the headers of a request and
//! returns an [`Access`]: which topics may be published, which private ones received, and until
//! when. It does no I/O and reads no clock; the time is an argument. Keys that an issuer publishes at
//! a URL are fetched by the caller ([`RemoteKeys`]).
//!
//! There are three kinds of credentials:
//!
//! - **keys**, for servers: a secret in the configuration of the operator, with its permissions;
//! - **tokens**, for browsers: access tokens of trusted issuers in the form of RFC 9068, whose
//!   `authorization_details` are their permissions (the Mercure protocol, "Authorization"), or of
//!   the older revision of that protocol, if there are keys for it;
//! - **tickets**, for browsers with a plain EventSource, which can send no header: topics and an
//!   expiry, authenticated by a secret that the hub shares with the application.
//!
//! Each may be in `Authorization: Bearer …` or in a cookie, and a ticket also in the parameter
//! `ticket` of the URL.
//!
//! Invariants: no part of a token decides how it is checked, or what is fetched; a token is verified
//! only with keys of the issuer that it names, and one of the older revision, which names none, only
//! with keys for that revision; a presented credential that is invalid is refused,
//! never treated as absent; a key is kept only as a digest; no message contains a secret.
//!
//! To extend it: another place for credentials belongs in `presentation`; another source of keys in
//! `token`; claims of another form next to `token::details`.
//!
//! ```
//! use tidings_auth::{AuthConfig, Authenticator, KeyConfig, generate_key_secret};
//! use tidings_topic::Validator;
//!
//! let secret = generate_key_secret();
//! let key = KeyConfig {
//!     name: "app".to_owned(),
//!     secret: secret.as_str().into(),
//!     publish: vec!["user-*".into()],
//!     subscribe: vec![],
//!     admin: false,
//!     streams_max: None,
//! };
//! let validator = Validator::default();
//! let authenticator = Authenticator::new(AuthConfig { keys: vec![key], ..AuthConfig::default() }, &validator)?;
//!
//! let mut headers = http::HeaderMap::new();
//! headers.insert("authorization", format!("Bearer {secret}").parse()?);
//! let access = authenticator.authenticate(&headers, None, 1_800_000_000)?.expect("a credential was presented");
//! assert!(access.publish.covers(&validator.topic("user-42")?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod access;
mod authenticator;
mod config;
mod error;
mod keys;
mod loopback;
mod member;
mod mint;
mod presentation;
mod proof;
mod resource;
mod scope;
mod ticket;
mod token;

pub use access::{Access, CredentialPlace, Limits, Subject};
pub use authenticator::Authenticator;
pub use config::{
    Algorithm, AuthConfig, IssuerConfig, IssuerKeyConfig, JwksUrl, KeyConfig, MatcherText, MercureRevision,
    Secret, TicketSecretConfig,
};
pub use error::{
    AuthError, ConfigError, credential_missing, insufficient_scope, other_address, outside_of_ticket,
    private_topic, subscriber_credential_missing, ticket_writes,
};
pub use keys::generate_key_secret;
pub use mint::{
    Inspected, MintError, NewOlderToken, NewToken, NotAToken, SigningKey, inspect, mint, mint_older,
};
pub use presentation::{
    COOKIE_NAME, CREDENTIAL_COOKIES, CREDENTIAL_PARAMETERS, CookieName, CredentialPlaces, TICKET_PARAMETER,
    refuse_in_url,
};
pub use proof::proof_of_secret;
pub use resource::ProtectedResource;
pub use ticket::{
    MintTicketError, MintedTicket, NewTicket, TICKET_BYTES_MAX, TICKET_SECS_DEFAULT, TICKET_SECS_MAX,
    TicketSecret,
};
pub use token::{
    Fetching, ISSUER_KEYS_MAX, ISSUERS_MAX, JWKS_BYTES_MAX, JWKS_KEYS_MAX, JwksError, KeyWait,
    OLDER_KEYS_MAX, REFRESH_SECS_MAX, RemoteKeys,
};

/// Longest credential that is checked, in bytes. A longer one is answered with 401 `invalid_token`.
pub const CREDENTIAL_BYTES_MAX: usize = 8 * 1024;
