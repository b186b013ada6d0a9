//! A certificate that was issued, and when it has to be renewed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use instant_acme::CertificateIdentifier;
use x509_parser::{extensions::ParsedExtension, pem::Pem, prelude::X509Certificate};

/// What is known of a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Issued {
    names: Vec<String>,
    begin: SystemTime,
    pub(super) expiry: SystemTime,
    /// Its name in requests about its renewal (RFC 9773, 4.1), if it has one.
    id: Option<CertificateIdentifier<'static>>,
}

impl Issued {
    /// Reads the first certificate of a text in PEM.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        for block in Pem::iter_from_buffer(text.as_bytes()) {
            let block = block.map_err(|error| format!("the PEM cannot be read: {error}"))?;
            if block.label == "CERTIFICATE" {
                let certificate = block.parse_x509();
                return Ok(Self::of(
                    &certificate.map_err(|error| format!("the certificate cannot be read: {error}"))?,
                ));
            }
        }
        Err("there is no certificate".to_owned())
    }

    fn of(certificate: &X509Certificate<'_>) -> Self {
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map_or(&[][..], |extension| &extension.value.general_names);
        let key_of_authority =
            certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(key) => key.key_identifier.as_ref().map(|id| id.0),
                _ => None,
            });
        let encoded = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes).into();
        Self {
            names: names
                .iter()
                .filter_map(|name| match name {
                    x509_parser::extensions::GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                    _ => None,
                })
                .collect(),
            begin: time(certificate.validity().not_before.timestamp()),
            expiry: time(certificate.validity().not_after.timestamp()),
            id: key_of_authority.map(|key| CertificateIdentifier {
                authority_key_identifier: encoded(key),
                serial: encoded(certificate.raw_serial()),
            }),
        }
    }

    pub(super) fn id(&self) -> Option<&CertificateIdentifier<'static>> {
        self.id.as_ref()
    }

    /// Whether it is for all of these names.
    pub(super) fn is_for(&self, domains: &[String]) -> bool {
        domains.iter().all(|domain| self.names.contains(domain))
    }

    pub(super) fn has_expired(&self, now: SystemTime) -> bool {
        self.expiry <= now
    }

    /// When two thirds of its lifetime are over.
    pub(super) fn renewal(&self) -> SystemTime {
        let lifetime = self.expiry.duration_since(self.begin).unwrap_or_default();
        self.begin + lifetime / 3 * 2
    }
}

/// A time in seconds since 1970; one before that is 1970.
pub(super) fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_lifetime() {
        let mut params = CertificateParams::new(vec!["a.test".to_owned(), "B.test".to_owned()]).unwrap();
        params.not_before = time(1_000_000).into();
        params.not_after = time(1_000_900).into();
        let key = KeyPair::generate().unwrap();
        let text = key.serialize_pem() + &params.self_signed(&key).unwrap().pem();
        let issued = Issued::read(&text).unwrap();
        assert_eq!((issued.renewal(), issued.expiry), (time(1_000_600), time(1_000_900)));
        for (names, is_for) in
            [(&["a.test"][..], true), (&["b.test", "a.test"], true), (&["a.test", "c.test"], false)]
        {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(issued.is_for(&names), is_for, "{names:?}");
        }
        assert!(issued.has_expired(issued.expiry) && !issued.has_expired(issued.renewal()));
    }

    #[test]
    fn text_without_a_certificate_is_refused() {
        let key = KeyPair::generate().unwrap().serialize_pem();
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in ["", "hello", &key, damaged, &damaged[..30]] {
            Issued::read(text).expect_err(text);
        }
    }
}
