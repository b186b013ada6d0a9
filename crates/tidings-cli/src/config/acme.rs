//! The table `[acme]`: the authority that issues the hub's certificate, and the names in it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::secret_source::{parse, read_file};
use crate::failure::Failure;

const DIRECTORY_DEFAULT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// The largest file with the certificates of a private authority.
const TRUSTED_BYTES_MAX: u64 = 1 << 20;
/// Most names in one certificate: the limit of Let's Encrypt.
const DOMAINS_MAX: usize = 100;

/// How the hub proves that it serves its names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Challenge {
    /// By a handshake on port 443 (RFC 8737).
    #[default]
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// By a request on port 80 (RFC 8555, 8.3).
    #[serde(rename = "http-01")]
    Http01,
}

/// The checked table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AcmeSettings {
    /// The names, in lower case; at least one.
    pub(crate) domains: Vec<String>,
    /// Where the account and the certificate are kept.
    pub(crate) cache: PathBuf,
    pub(crate) directory: Url,
    /// The certificates in PEM that the authority's server is verified with, instead of those of the
    /// system.
    pub(crate) trusted: Option<String>,
    /// Whether the authority may be on this machine or in a private network.
    pub(crate) allow_private: bool,
    pub(crate) email: Option<String>,
    pub(crate) challenge: Challenge,
    /// The kind of certificate that is asked for, of those that the authority offers.
    pub(crate) profile: Option<String>,
}

/// The table of the configuration file, as it was written.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Acme {
    #[serde(rename = "acme", skip_serializing_if = "Option::is_none")]
    table: Option<AcmeTable>,
    #[serde(skip)]
    file_name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcmeTable {
    domains: Vec<String>,
    cache: PathBuf,
    #[serde(default)]
    accept_terms: bool,
    #[serde(default = "directory_default")]
    directory: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory_ca: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    allow_private: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(default)]
    challenge: Challenge,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
}

fn directory_default() -> String {
    DIRECTORY_DEFAULT.to_owned()
}

impl Acme {
    /// Takes the table out of a parsed file.
    pub(super) fn take_from(file: &mut toml::Table, file_name: &str) -> Result<Self, Failure> {
        let table = match file.remove("acme") {
            None => None,
            Some(_) if !cfg!(feature = "acme") => {
                return Err(Failure::usage(format!(
                    "[acme] in {file_name}: this program was built without it: its cargo feature `acme` is off"
                )));
            }
            Some(toml::Value::Table(table)) => Some(parse(table, &place(file_name))?),
            Some(_) => return Err(Failure::usage(format!("`acme` in {file_name} must be a table, [acme]"))),
        };
        Ok(Self { table, file_name: file_name.to_owned() })
    }

    /// The checked settings. Paths are relative to the folder of the file.
    pub(super) fn settings(&self, folder: &Path) -> Result<Option<AcmeSettings>, Failure> {
        let place = place(&self.file_name);
        let Some(table) = &self.table else { return Ok(None) };
        let mut settings =
            table.settings(folder).map_err(|reason| Failure::usage(format!("{place}: {reason}")))?;
        if let Some(file) = &table.directory_ca {
            let file = folder.join(file);
            let text = read_file(&file, TRUSTED_BYTES_MAX, &place)?;
            let read = reqwest::Certificate::from_pem_bundle(text.as_bytes());
            if read.is_ok_and(|certificates| certificates.is_empty()) || !text.contains("BEGIN CERTIFICATE") {
                return Err(Failure::usage(format!(
                    "{place}: directory_ca: {} contains no certificate in PEM (-----BEGIN CERTIFICATE-----)",
                    file.display()
                )));
            }
            settings.trusted = Some(text);
        }
        Ok(Some(settings))
    }
}

fn place(file_name: &str) -> String {
    format!("[acme] in {file_name}")
}

impl AcmeTable {
    fn settings(&self, folder: &Path) -> Result<AcmeSettings, String> {
        if !self.accept_terms {
            return Err("the authority issues certificates to those who accept its terms of service: read them (for Let's Encrypt: \
                 https://letsencrypt.org/repository/), and set accept_terms = true"
                .to_owned());
        }
        let directory: Url = self.directory.parse().map_err(|error| {
            format!("directory: `{}` is not a URL: {error}", self.directory.escape_debug())
        })?;
        if directory.scheme() != "https" || !directory.username().is_empty() || directory.password().is_some()
        {
            return Err("directory: it must begin with https://, and have no user or password".to_owned());
        }
        if let Some(email) = self.email.as_ref().filter(|email| !is_email(email)) {
            return Err(format!("email: `{}` is not an address as in ops@example.com", email.escape_debug()));
        }
        if self.cache.as_os_str().is_empty() {
            return Err("cache: it is empty: name the folder where the account and the certificate are kept"
                .to_owned());
        }
        Ok(AcmeSettings {
            domains: self.domains()?,
            cache: folder.join(&self.cache),
            directory,
            trusted: None,
            allow_private: self.allow_private,
            email: self.email.clone(),
            challenge: self.challenge,
            profile: self.profile.clone(),
        })
    }

    fn domains(&self) -> Result<Vec<String>, String> {
        let mut domains = Vec::new();
        for name in &self.domains {
            let refuse = |reason: &str| Err(format!("domains: `{}` {reason}", name.escape_debug()));
            if name.contains('*') {
                return refuse(
                    "has a wildcard, which needs a challenge by DNS that the hub does not have: name each host, or use an ACME \
                     client with tls_certificate",
                );
            }
            let domain = match Host::parse(name) {
                Ok(Host::Domain(domain)) if !domain.ends_with('.') => domain,
                Ok(Host::Domain(_)) => return refuse("ends with a dot: leave it out"),
                Ok(_) => return refuse("is an address: name a host"),
                Err(_) => return refuse("is not the name of a host, as in hub.example.com"),
            };
            if domains.contains(&domain) {
                return refuse("is given twice");
            }
            domains.push(domain);
        }
        match domains.len() {
            0 => Err("domains: the list is empty: name the hosts that the certificate is for".to_owned()),
            1..=DOMAINS_MAX => Ok(domains),
            count => {
                Err(format!("domains: a certificate has at most {DOMAINS_MAX} names, and there are {count}"))
            }
        }
    }
}

fn is_email(text: &str) -> bool {
    let is_usual = |letter: char| letter.is_ascii_graphic() && !matches!(letter, ',' | '?' | ':');
    text.split_once('@')
        .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'))
        && text.chars().all(is_usual)
}

#[cfg(all(test, feature = "acme"))]
mod tests {
    use std::fs;

    use super::*;

    const TABLE: &str = "[acme]\ndomains = [\"Hub.Example.com\", \"bücher.example\"]\ncache = \"acme\"\naccept_terms = true\n";

    fn settings(text: &str, folder: &Path) -> Result<AcmeSettings, String> {
        let acme = Acme::take_from(&mut text.parse().unwrap(), "f.toml");
        let settings = acme.and_then(|acme| acme.settings(folder));
        settings.map(|settings| settings.expect("there is a table")).map_err(|failure| failure.to_string())
    }

    #[test]
    fn what_is_not_given_has_the_usual_value() {
        let read = settings(TABLE, Path::new("/etc/tidings")).unwrap();
        assert_eq!(read.domains, ["hub.example.com", "xn--bcher-kva.example"]);
        assert_eq!(read.cache, Path::new("/etc/tidings/acme"));
        assert_eq!(read.directory.as_str(), DIRECTORY_DEFAULT);
        assert_eq!((read.challenge, read.email, read.trusted), (Challenge::TlsAlpn01, None, None));
        let more =
            format!("{TABLE}challenge = \"http-01\"\nemail = \"ops@example.com\"\nprofile = \"shortlived\"");
        let read = settings(&more, Path::new("")).unwrap();
        assert_eq!((read.challenge, read.email.as_deref()), (Challenge::Http01, Some("ops@example.com")));
    }

    #[test]
    fn a_table_that_cannot_work_is_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("text"), "hello").unwrap();
        let with = |line: &str| format!("{TABLE}{line}\n");
        let naming = |domains: &str| TABLE.replace("[\"Hub.Example.com\", \"bücher.example\"]", domains);
        for (text, part) in [
            ("acme = 1".to_owned(), "must be a table"),
            ("[acme]\ncache = \"a\"".to_owned(), "missing field `domains`"),
            ("[acme]\ndomains = [\"a.test\"]".to_owned(), "missing field `cache`"),
            (TABLE.replace("true", "false"), "set accept_terms = true"),
            (TABLE.replace("\"acme\"", "\"\""), "cache: it is empty"),
            (with("challenge = \"dns-01\""), "unknown variant `dns-01`"),
            (with("domain = \"a\""), "unknown field `domain`"),
            (with("directory = \"http://a.test/\""), "must begin with https://"),
            (with("directory = \"a\""), "directory: `a` is not a URL"),
            (with("email = \"ops\""), "email: `ops` is not an address"),
            (with("directory_ca = \"missing\""), "cannot read"),
            (with("directory_ca = \"text\""), "contains no certificate in PEM"),
            (naming("[]"), "the list is empty"),
            (naming("[\"*.a.test\"]"), "`*.a.test` has a wildcard"),
            (naming("[\"10.0.0.1\"]"), "is an address"),
            (naming("[\"a.test\", \"A.test\"]"), "`A.test` is given twice"),
            (naming("[\"a.test.\"]"), "ends with a dot"),
            (naming("[\"a b\"]"), "is not the name of a host"),
        ] {
            let refused = settings(&text, folder.path()).unwrap_err();
            assert!(refused.contains(part) && refused.contains("f.toml"), "{text}: {refused}");
            assert_eq!(refused.lines().count(), 1, "{refused}");
        }
    }
}
