//! Certificates for TLS: `tls_certificate` with `tls_key`, which flags can set too, and
//! `[[certificate]]` tables for further names.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidings_server::CertificateFiles;

use super::layers::Merged;
use crate::failure::Failure;

/// The tables of the configuration file, as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct CertificateTables {
    #[serde(rename = "certificate", skip_serializing_if = "Vec::is_empty")]
    tables: Vec<CertificateTable>,
}

/// A `[[certificate]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateTable {
    certificate_file: PathBuf,
    key_file: PathBuf,
}

impl CertificateTables {
    /// Takes its tables out of a parsed file. The caller refuses what is left.
    pub(super) fn take_from(file: &mut toml::Table, file_name: &str) -> Result<Self, Failure> {
        let Some(tables) = file.remove("certificate") else { return Ok(Self::default()) };
        let toml::Value::Array(tables) = tables else {
            return Err(Failure::usage(format!(
                "`certificate` in {file_name} must be written as [[certificate]], or as `tls_certificate`"
            )));
        };
        let read = |(index, table): (usize, toml::Value)| {
            table.try_into().map_err(|error: toml::de::Error| {
                let number = index + 1;
                Failure::usage(format!("[[certificate]] number {number} in {file_name}: {}", error.message()))
            })
        };
        Ok(Self { tables: tables.into_iter().enumerate().map(read).collect::<Result<_, _>>()? })
    }

    /// All files, those of the setting first: that certificate is for clients that name no other host.
    /// Paths of tables are relative to the folder of the file.
    pub(super) fn files(
        &self,
        merged: &Merged,
        [certificate, key]: [Option<PathBuf>; 2],
        folder: &Path,
    ) -> Result<Vec<CertificateFiles>, Failure> {
        let first = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(CertificateFiles { certificate, key }),
            (Some(_), None) => {
                return Err(merged.refuse("tls_certificate", "needs tls_key, the file of its key"));
            }
            (None, Some(_)) => {
                return Err(merged.refuse("tls_key", "needs tls_certificate, the file of its certificate"));
            }
            (None, None) => None,
        };
        let tables = self.tables.iter().map(|table| CertificateFiles {
            certificate: folder.join(&table.certificate_file),
            key: folder.join(&table.key_file),
        });
        Ok(first.into_iter().chain(tables).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layers::Layer;

    fn files(text: &str, flags: &[Option<&str>; 2]) -> Result<Vec<CertificateFiles>, String> {
        let tables = CertificateTables::take_from(&mut text.parse().unwrap(), "f.toml")
            .map_err(|failure| failure.to_string())?;
        let merged = Merged::new(Layer::new(), Layer::new(), Layer::new(), "f.toml");
        let flags = flags.map(|path| path.map(PathBuf::from));
        tables.files(&merged, flags, Path::new("/etc")).map_err(|failure| failure.to_string())
    }

    const TABLE: &str = "[[certificate]]\ncertificate_file = \"b.pem\"\nkey_file = \"/keys/b.pem\"\n";

    #[test]
    fn the_certificate_of_the_setting_is_the_first() {
        let pair = |certificate: &str, key: &str| CertificateFiles {
            certificate: certificate.into(),
            key: key.into(),
        };
        assert_eq!(files("", &[None, None]), Ok(Vec::new()));
        assert_eq!(
            files(TABLE, &[Some("a.pem"), Some("a.key")]),
            Ok(vec![pair("a.pem", "a.key"), pair("/etc/b.pem", "/keys/b.pem")])
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        for (text, flags, part) in [
            ("", [Some("a.pem"), None], "--tls-certificate: needs tls_key"),
            ("", [None, Some("a.key")], "--tls-key: needs tls_certificate"),
            ("certificate = \"a.pem\"", [None, None], "[[certificate]]"),
            ("[[certificate]]\ncertificate_file = \"a\"", [None, None], "key_file"),
            ("[[certificate]]\nfile = \"a\"", [None, None], "number 1 in f.toml"),
        ] {
            let refused = files(text, &flags).unwrap_err();
            assert!(refused.contains(part), "{refused}");
        }
    }
}
