//! Certificates for servers of loopback, and key pairs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, IsCa, KeyPair, PKCS_ED25519, PublicKeyData};

/// How long a certificate is valid, from now and until now.
const VALIDITY: Duration = Duration::from_secs(48 * 60 * 60);

/// A certificate that is its own authority, and its key, in files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate in PEM.
    pub certificate: PathBuf,
    /// Its key in PEM.
    pub key: PathBuf,
}

impl Certificate {
    /// Creates the files `NAME.pem` and `NAME.key` in a folder, for these hosts, names or
    /// addresses. Files that are there are replaced.
    pub fn create(folder: &Path, name: &str, hosts: &[&str]) -> anyhow::Result<Self> {
        let [certificate, key] = ["pem", "key"].map(|kind| folder.join(format!("{name}.{kind}")));
        create(&certificate, &key, hosts)?;
        Ok(Self { certificate, key })
    }
}

/// Creates a certificate for 127.0.0.1 in a folder: `cert.pem`, with the key `key.pem`. Servers and
/// clients share it, and it is its own authority.
pub(crate) fn make(folder: &Path) -> anyhow::Result<()> {
    create(&folder.join("cert.pem"), &folder.join("key.pem"), &["127.0.0.1"])
}

fn create(certificate: &Path, key: &Path, hosts: &[&str]) -> anyhow::Result<()> {
    let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut params = CertificateParams::new(hosts)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.not_before = (SystemTime::now() - VALIDITY).into();
    params.not_after = (SystemTime::now() + VALIDITY).into();
    let pair = KeyPair::generate()?;
    fs::write(certificate, params.self_signed(&pair)?.pem())?;
    fs::write(key, pair.serialize_pem())?;
    Ok(())
}

/// A key pair of Ed25519.
#[derive(Clone, Debug)]
pub struct Ed25519Pair {
    /// The private key in PEM.
    pub private_pem: String,
    /// The public key in PEM.
    pub public_pem: String,
    /// The 32 bytes of the public key.
    pub public: Vec<u8>,
}

impl Ed25519Pair {
    /// Generates one.
    pub fn generate() -> anyhow::Result<Self> {
        let pair = KeyPair::generate_for(&PKCS_ED25519)?;
        Ok(Self {
            private_pem: pair.serialize_pem(),
            public_pem: pair.public_key_pem(),
            public: pair.der_bytes().to_vec(),
        })
    }
}
