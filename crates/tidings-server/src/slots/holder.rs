//! Whose streams are counted together, besides those of an address: those of a credential that
//! limits them, and those of a subject.
//!
//! The *subject* is the user or the session that a stream is for, whichever credential it came with
//! and from wherever: the `sub` of a token, or the label of a ticket or of an application's answer.
//! Keys have none: they are those of services, and have limits of their own.

use std::{num::NonZeroU32, sync::Arc};

use tidings_auth::{Access, Subject};

/// The streams of one holder have one limit.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Holder {
    /// The ticket with this id.
    Ticket(Arc<str>),
    /// The key of this name.
    Key(Arc<str>),
    /// The subject with this label.
    Label(Arc<str>),
    /// The subject of tokens of this issuer: two may know different users by the same name.
    TokenSubject { issuer: Option<Arc<str>>, subject: Arc<str> },
}

impl Holder {
    /// The credential, if it limits its streams.
    pub(super) fn credential(access: &Access) -> Option<(Self, NonZeroU32)> {
        let streams_max = access.limits.streams_max?;
        let holder = match &access.subject {
            Subject::Key(name) => Self::Key(Arc::clone(name)),
            Subject::Ticket(_) => Self::Ticket(Arc::clone(access.id.as_ref()?)),
            _ => return None,
        };
        Some((holder, streams_max))
    }

    /// The subject, if the credential names one.
    pub(super) fn subject(access: &Access) -> Option<Self> {
        match &access.subject {
            Subject::Token(subject) => {
                let issuer = access.issuer.clone();
                subject.clone().map(|subject| Self::TokenSubject { issuer, subject })
            }
            Subject::Ticket(_) | Subject::Application => access.label.clone().map(Self::Label),
            _ => None,
        }
    }
}
