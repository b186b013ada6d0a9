//! Certificates for servers of loopback.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

/// A certificate that is its own authority, and its key, in files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate in PEM.
    pub certificate: PathBuf,
    /// Its key in PEM.
    pub key: PathBuf,
}

impl Certificate {
    /// Creates the files `NAME.pem` and `NAME.key` in a folder, for these subjects, as in `IP:127.0.0.1`
    /// or `DNS:hub.test`. Files that are there are replaced.
    pub fn create(folder: &Path, name: &str, subjects: &[&str]) -> anyhow::Result<Self> {
        let [certificate, key] = ["pem", "key"].map(|kind| folder.join(format!("{name}.{kind}")));
        create(&certificate, &key, subjects)?;
        Ok(Self { certificate, key })
    }
}

/// Creates a certificate for 127.0.0.1 in a folder: `cert.pem`, with the key `key.pem`. Servers and
/// clients share it, and it is its own authority.
pub(crate) fn make(folder: &Path) -> anyhow::Result<()> {
    create(&folder.join("cert.pem"), &folder.join("key.pem"), &["IP:127.0.0.1"])
}

fn create(certificate: &Path, key: &Path, subjects: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=tidings-test"])
        .args(["-addext", &format!("subjectAltName={}", subjects.join(","))])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .output()
        .context("cannot start openssl")?;
    ensure!(output.status.success(), "no certificate: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
