//! TLS in front of HTTP: certificates, and connections that are encrypted with them.
//!
//! | what | where |
//! |---|---|
//! | files of certificates and keys, and what is wrong with them | `certificates` |
//! | which certificate a client gets, protocols, tickets; replaced by a reload | `config` |
//! | how names are proven to an authority (TLS-ALPN-01) | `challenges` |
//! | one connection as bytes: handshake, records, alerts | `session` |
//! | the socket of a connection, with a session or without; a session in a shard | `stream` |
//!
//! The protocol is rustls's, by its interface without buffers: an idle connection holds its keys
//! and no buffer, and an event is encrypted into a buffer of the thread and goes from there to the
//! socket. The handshake is a part of waiting for the first request, so the limits on incomplete
//! requests bound it.

mod certificates;
mod challenges;
mod config;
mod session;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use self::stream::Stream;
pub use self::{
    certificates::{CertificateError, CertificateFiles, Certificates},
    challenges::{ChallengeCertificate, InvalidChallenge},
    config::Tls,
};
