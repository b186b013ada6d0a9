//! A certificate for servers of loopback.

use std::{path::Path, process::Command};

use anyhow::{Context, ensure};

/// Creates a certificate for 127.0.0.1 in a folder: `cert.pem`, with the key `key.pem`. Servers and
/// clients share it, and it is its own authority.
pub(crate) fn make(folder: &Path) -> anyhow::Result<()> {
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
        .args(["-subj", "/CN=tidings-test", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder)
        .output()
        .context("cannot start openssl")?;
    ensure!(output.status.success(), "no certificate: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
