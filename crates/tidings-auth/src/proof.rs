//! Digests that prove who a request is of, without keeping or passing on what they were made of.
//!
//! A client that changes its open stream presents the credential that it was opened with, or a
//! secret that it was given with the stream. The hub keeps, and passes to other hubs, the digest.

use aws_lc_rs::digest::{Context, SHA256};

/// The digest of a credential, as it was presented.
pub(crate) fn of_credential(credential: &str) -> [u8; 32] {
    digest("credential", credential)
}

/// The digest of a secret, which no credential has. The secret must be unpredictable.
pub fn proof_of_secret(secret: &str) -> [u8; 32] {
    digest("secret", secret)
}

fn digest(kind: &str, text: &str) -> [u8; 32] {
    let mut digest = Context::new(&SHA256);
    digest.update(kind.as_bytes());
    digest.update(&[0]);
    digest.update(text.as_bytes());
    digest.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_no_credential_and_none_is_like_another() {
        assert_eq!(proof_of_secret("x"), proof_of_secret("x"));
        assert_ne!(proof_of_secret("x"), proof_of_secret("y"));
        assert_ne!(proof_of_secret("x"), of_credential("x"));
    }
}
