//! The text of a ticket: `tt1.SECRET_ID.CONTENTS.MAC`.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::secret::TicketSecret;
use crate::AuthError;

/// Longest ticket, in bytes. A longer one is answered with 401 `invalid_token`.
pub const TICKET_BYTES_MAX: usize = 4 * 1024;

/// What every ticket of this version begins with. No key has this beginning, and no token: the first
/// part of a token is JSON in base64url.
const PREFIX: &str = "tt1.";

/// Whether a credential is a ticket.
pub(crate) fn has_ticket_shape(credential: &str) -> bool {
    credential.starts_with(PREFIX)
}

/// The ticket with these contents.
pub(super) fn seal(contents: &[u8], secret: &TicketSecret) -> String {
    let message = format!("{PREFIX}{}.{}", secret.id(), URL_SAFE_NO_PAD.encode(contents));
    let mac = URL_SAFE_NO_PAD.encode(secret.sign(&message));
    format!("{message}.{mac}")
}

/// The contents of an authentic ticket.
pub(super) fn open(ticket: &str, secrets: &[TicketSecret]) -> Result<Vec<u8>, AuthError> {
    if ticket.len() > TICKET_BYTES_MAX {
        return Err(AuthError::invalid_token(format!("the ticket is longer than {TICKET_BYTES_MAX} bytes")));
    }
    let malformed = || {
        AuthError::invalid_token(
            "the ticket is malformed: it has four parts, separated by dots, as in `tt1.SECRET_ID.CONTENTS.MAC`",
        )
    };
    let (message, mac) = ticket.rsplit_once('.').ok_or_else(malformed)?;
    let parts = message.strip_prefix(PREFIX).and_then(|parts| parts.split_once('.'));
    let (secret_id, contents) = parts.ok_or_else(malformed)?;
    let secret = secrets.iter().find(|secret| secret.id() == secret_id).ok_or_else(|| {
        AuthError::invalid_token("the secret that the ticket names is not known to this hub")
    })?;
    // One encoding only: the decoder refuses padding, other alphabets and superfluous bits.
    let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| malformed())?;
    if !secret.verifies(message, &mac) {
        return Err(AuthError::invalid_token("the ticket was not made with the secret that it names"));
    }
    URL_SAFE_NO_PAD.decode(contents).map_err(|_| malformed())
}
