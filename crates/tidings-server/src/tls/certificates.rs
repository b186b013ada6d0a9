//! Certificates and their keys, read from files, and the choice between them by name (SNI).

use std::{
    collections::HashMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use webpki::EndEntityCert;

/// The largest file of a certificate or a key that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a certificate and its key are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFiles {
    /// The certificate in PEM, followed by those of the authorities in between.
    pub certificate: PathBuf,
    /// Its private key in PEM: PKCS #8, PKCS #1 or SEC 1, without a passphrase.
    pub key: PathBuf,
}

/// A certificate or a key cannot be used. One line: the file, what is wrong with it, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The file cannot be read.
    #[error("cannot read {}: {}", .0.display(), .1)]
    Unreadable(PathBuf, #[source] io::Error),
    /// The file is larger than a certificate or a key can be.
    #[error("{} is too large to be a certificate or a key", .0.display())]
    TooLarge(PathBuf),
    /// The file has no certificate.
    #[error("{} contains no certificate in PEM (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    /// The file has a certificate that is damaged, or not one of a server, as the parser reports.
    #[error("{} contains a certificate that cannot be read: {}", .0.display(), .1)]
    BadCertificate(PathBuf, String),
    /// The file has no private key.
    #[error("{} contains no private key in PEM (-----BEGIN PRIVATE KEY-----)", .0.display())]
    NoKey(PathBuf),
    /// The key needs a passphrase.
    #[error(
        "the key in {} is encrypted: store it without a passphrase, readable by the hub alone (openssl pkey -in FILE -out FILE)",
        .0.display()
    )]
    EncryptedKey(PathBuf),
    /// The key is damaged, or of a kind that TLS does not use, as the parser reports.
    #[error("{} contains a private key that cannot be used: {}", .0.display(), .1)]
    BadKey(PathBuf, String),
    /// The key and the certificate in these files do not belong together.
    #[error("the key in {} is not that of the certificate in {}", .0.key.display(), .0.certificate.display())]
    Mismatch(CertificateFiles),
}

/// Certificates with their keys. The first one is that of clients which name no host, or a host that
/// no certificate is for. Without any, every handshake ends with an alert.
#[derive(Clone, Default)]
pub struct Certificates {
    pub(super) all: Vec<Arc<CertifiedKey>>,
    /// By the names in them, in lower case, `*.` for one label.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// The files as they were read, to find out whether they have changed.
    read: Vec<[Vec<u8>; 2]>,
}

impl Certificates {
    /// Reads certificates and keys, and checks that each key is that of its certificate. Both may be
    /// in one file.
    pub fn read(files: &[CertificateFiles]) -> Result<Self, CertificateError> {
        let mut certificates = Self::default();
        for pair in files {
            let read = [read_file(&pair.certificate)?, read_file(&pair.key)?];
            let (certified, names) = certified(pair, &read)?;
            let certified = Arc::new(certified);
            for name in names {
                certificates.by_name.entry(name).or_default().push(Arc::clone(&certified));
            }
            certificates.all.push(certified);
            certificates.read.push(read);
        }
        Ok(certificates)
    }

    /// Those for this host.
    pub(super) fn of_host(&self, host: Option<&str>) -> Option<&[Arc<CertifiedKey>]> {
        let host = host?.to_ascii_lowercase();
        let wildcard = host.split_once('.').map(|(_, domain)| format!("*.{domain}"));
        let found = self.by_name.get(&host).or_else(|| self.by_name.get(&wildcard?));
        found.map(Vec::as_slice)
    }

    /// The one for all other hosts.
    pub(super) fn first(&self) -> &[Arc<CertifiedKey>] {
        &self.all[..self.all.len().min(1)]
    }
}

impl PartialEq for Certificates {
    fn eq(&self, other: &Self) -> bool {
        self.read == other.read
    }
}

/// Shows no key.
impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("names", &self.by_name.keys()).finish_non_exhaustive()
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let unreadable = |source| CertificateError::Unreadable(path.to_owned(), source);
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(CertificateError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

/// A certificate with its key, and the names that it is for.
fn certified(
    files: &CertificateFiles,
    [certificate, key]: &[Vec<u8>; 2],
) -> Result<(CertifiedKey, Vec<String>), CertificateError> {
    let path = || files.certificate.clone();
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| CertificateError::BadCertificate(path(), error.to_string()))?;
    let first = chain.first().ok_or_else(|| CertificateError::NoCertificate(path()))?;
    let names: Vec<_> = EndEntityCert::try_from(first)
        .map_err(|error| CertificateError::BadCertificate(path(), error.to_string()))?
        .valid_dns_names()
        .map(str::to_ascii_lowercase)
        .collect();

    let path = || files.key.clone();
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound if is_encrypted(key) => {
            CertificateError::EncryptedKey(path())
        }
        rustls::pki_types::pem::Error::NoItemsFound => CertificateError::NoKey(path()),
        error => CertificateError::BadKey(path(), error.to_string()),
    })?;
    match CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
        Ok(certified) => Ok((certified, names)),
        Err(rustls::Error::InconsistentKeys(_)) => Err(CertificateError::Mismatch(files.clone())),
        Err(error) => Err(CertificateError::BadKey(path(), error.to_string())),
    }
}

/// RFC 7468, 11.
fn is_encrypted(key: &[u8]) -> bool {
    String::from_utf8_lossy(key).contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}
