//! Keys, the issuers of tokens, the secrets of tickets and private topics. They can only be set in
//! the configuration file, because a command line is visible to every user of the machine.

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tidings::TopicGlob;
use tidings_auth::{AuthConfig, CookieName, KeyConfig, MatcherText, TicketSecretConfig};

use super::{
    issuers::IssuerTable,
    secret_source::{SecretSource, parse, tables},
};
use crate::failure::Failure;

/// The part of the configuration file about access, as it was written.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Access {
    private_topics: Vec<String>,
    #[serde(rename = "key", skip_serializing_if = "Vec::is_empty")]
    keys: Vec<KeyTable>,
    #[serde(rename = "issuer", skip_serializing_if = "Vec::is_empty")]
    pub(super) issuers: Vec<IssuerTable>,
    #[serde(rename = "ticket_secret", skip_serializing_if = "Vec::is_empty")]
    ticket_secrets: Vec<TicketSecretTable>,
}

/// A `[[key]]`.
#[derive(Clone, Debug, Serialize)]
struct KeyTable {
    #[serde(flatten)]
    fields: KeyFields,
    #[serde(flatten)]
    secret: SecretSource,
}

/// The fields of a key other than its secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFields {
    name: String,
    #[serde(default)]
    publish: Vec<MatcherText>,
    #[serde(default)]
    subscribe: Vec<MatcherText>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    admin: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    streams_max: Option<NonZeroU32>,
}

/// A `[[ticket_secret]]`.
#[derive(Clone, Debug, Serialize)]
struct TicketSecretTable {
    #[serde(flatten)]
    fields: TicketSecretFields,
    #[serde(flatten)]
    secret: SecretSource,
}

/// The fields of a secret of tickets other than the secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TicketSecretFields {
    id: String,
}

impl Access {
    /// Takes its tables out of a parsed file. The caller refuses what is left.
    pub(crate) fn take_from(file: &mut toml::Table, file_name: &str) -> Result<Self, Failure> {
        let mut access = Self::default();
        if let Some(topics) = file.remove("private_topics") {
            access.private_topics = topics.try_into().map_err(|_| {
                Failure::usage(format!("`private_topics` in {file_name} must be a list of strings"))
            })?;
        }
        for (key, place) in tables(file, "key", file_name)? {
            access.keys.push(KeyTable::read(key, &place)?);
        }
        for (issuer, place) in tables(file, "issuer", file_name)? {
            access.issuers.push(IssuerTable::read(issuer, &place)?);
        }
        for (secret, place) in tables(file, "ticket_secret", file_name)? {
            access.ticket_secrets.push(TicketSecretTable::read(secret, &place)?);
        }
        Ok(access)
    }

    /// Whether the file itself contains a secret.
    pub(crate) fn holds_secret(&self) -> bool {
        self.sources().any(|source| source.secret.is_some())
    }

    /// The files that hold secrets. Paths are relative to the file that names them.
    pub(crate) fn secret_files(&self, folder: &Path) -> Vec<PathBuf> {
        self.sources()
            .filter_map(|source| source.secret_file.as_ref())
            .map(|file| folder.join(file))
            .collect()
    }

    fn sources(&self) -> impl Iterator<Item = &SecretSource> {
        let keys = self.keys.iter().map(|key| &key.secret);
        let of_tickets = self.ticket_secrets.iter().map(|table| &table.secret);
        keys.chain(self.issuers.iter().flat_map(IssuerTable::sources)).chain(of_tickets)
    }

    /// Whether the private topics are the same.
    pub(crate) fn has_private_topics_of(&self, other: &Self) -> bool {
        self.private_topics == other.private_topics
    }

    /// The globs of private topics.
    pub(crate) fn private_topics(&self, file_name: &str) -> Result<Vec<TopicGlob>, Failure> {
        let parse = |text: &String| {
            text.parse().map_err(|reason| {
                Failure::usage(format!("`private_topics` in {file_name}: `{text}` {reason}"))
            })
        };
        self.private_topics.iter().map(parse).collect()
    }

    /// The configuration of authentication, with every secret read. Paths are relative to the file
    /// that names them. `own_urls` are the audiences of tokens unless the file names others.
    pub(crate) fn auth_config(
        &self,
        folder: &Path,
        own_urls: &[String],
        cookie_name: CookieName,
    ) -> Result<AuthConfig, Failure> {
        let key = |key: &KeyTable| {
            let KeyFields { name, publish, subscribe, admin, streams_max } = key.fields.clone();
            let secret = key.secret.fetch(folder, &format!("[[key]] `{name}`"))?;
            Ok(KeyConfig { name, secret, publish, subscribe, admin, streams_max })
        };
        let issuers = self.issuers.iter().map(|issuer| issuer.config(folder, own_urls));
        let ticket_secret = |table: &TicketSecretTable| {
            let TicketSecretFields { id } = table.fields.clone();
            let secret = table.secret.fetch(folder, &format!("[[ticket_secret]] `{id}`"))?;
            Ok(TicketSecretConfig { id, secret })
        };
        Ok(AuthConfig {
            keys: self.keys.iter().map(key).collect::<Result<_, Failure>>()?,
            issuers: issuers.collect::<Result<_, Failure>>()?,
            ticket_secrets: self.ticket_secrets.iter().map(ticket_secret).collect::<Result<_, Failure>>()?,
            cookie_name,
        })
    }

    /// The environment variables that secrets come from.
    pub(crate) fn secret_variables(&self) -> Vec<&str> {
        self.sources().filter_map(|source| source.secret_env.as_deref()).collect()
    }
}

impl KeyTable {
    fn read(value: toml::Value, place: &str) -> Result<Self, Failure> {
        let (secret, rest) = SecretSource::split(value, &["secret", "secret_env", "secret_file"], place)?;
        Ok(Self { fields: parse(rest, place)?, secret })
    }
}

impl TicketSecretTable {
    fn read(value: toml::Value, place: &str) -> Result<Self, Failure> {
        let (secret, rest) = SecretSource::split(value, &["secret", "secret_env", "secret_file"], place)?;
        Ok(Self { fields: parse(rest, place)?, secret })
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs};

    use super::*;

    const SECRET: &str = "a-secret-that-is-never-shown";

    fn access(text: &str) -> Result<Access, Failure> {
        Access::take_from(&mut text.parse().unwrap(), "f.toml")
    }

    fn refused(text: &str) -> String {
        access(text).unwrap_err().to_string()
    }

    #[test]
    fn a_key_has_a_secret_and_grants() {
        let text = format!("[[key]]\nname = \"ci\"\nsecret = \"{SECRET}\"\npublish = [\"a\", \"b-*\"]\n");
        let config = access(&text).unwrap().auth_config(Path::new("."), &[], CookieName::default()).unwrap();
        let key = &config.keys[0];
        assert_eq!((key.name.as_str(), key.secret.expose()), ("ci", SECRET));
        assert_eq!(key.publish, [MatcherText::Exact("a".into()), MatcherText::Pattern("b-*".into())]);
        assert!(key.subscribe.is_empty() && !key.admin);
    }

    #[test]
    fn a_key_is_an_administrator_only_by_its_own_line() {
        let read = |more: &str| access(&format!("[[key]]\nname = \"ops\"\nsecret = \"{SECRET}\"\n{more}"));
        let admin = read("admin = true").unwrap();
        assert!(admin.auth_config(Path::new("."), &[], CookieName::default()).unwrap().keys[0].admin);
        assert!(toml::to_string(&admin).unwrap().contains("admin = true"));
        assert!(!toml::to_string(&read("admin = false").unwrap()).unwrap().contains("admin = true"));
        for wrong in ["admin = 1", "admin = \"true\"", "admin = []"] {
            let message = read(wrong).unwrap_err().to_string();
            assert!(message.contains("[[key]] number 1 in f.toml"), "{message}");
        }
    }

    #[test]
    fn a_key_may_limit_its_streams() {
        let read = |more: &str| access(&format!("[[key]]\nname = \"a\"\nsecret = \"{SECRET}\"\n{more}"));
        for (more, streams_max) in [("", None), ("streams_max = 5", NonZeroU32::new(5))] {
            let access = read(more).unwrap();
            let config = access.auth_config(Path::new("."), &[], CookieName::default()).unwrap();
            assert_eq!(config.keys[0].streams_max, streams_max);
            assert_eq!(toml::to_string(&access).unwrap().contains("streams_max = 5"), streams_max.is_some());
        }
        for wrong in ["streams_max = 0", "streams_max = -1", "streams_max = \"many\""] {
            let message = read(wrong).unwrap_err().to_string();
            assert!(message.contains("[[key]] number 1 in f.toml"), "{message}");
        }
    }

    #[test]
    fn a_ticket_secret_has_an_id_and_a_secret() {
        let text = format!("[[ticket_secret]]\nid = \"b\"\nsecret = \"{SECRET}\"\n");
        let config = access(&text).unwrap().auth_config(Path::new("."), &[], CookieName::default()).unwrap();
        let secret = &config.ticket_secrets[0];
        assert_eq!((secret.id.as_str(), secret.secret.expose()), ("b", SECRET));
        assert!(refused("[[ticket_secret]]\nsecret = \"4711\"").contains("missing field `id`"));
        assert!(refused("[ticket_secret]\nid = \"a\"").contains("[[ticket_secret]]"));
        let unknown = refused("[[ticket_secret]]\nid = \"a\"\nsecret = \"4711\"\ntopics = []");
        assert!(unknown.contains("unknown field `topics`") && !unknown.contains("4711"), "{unknown}");
    }

    #[test]
    fn a_secret_may_be_in_a_file_or_a_variable() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), format!("{SECRET}\n")).unwrap();
        let text =
            "[[key]]\nname = \"a\"\nsecret_file = \"secret\"\n[[key]]\nname = \"b\"\nsecret_env = \"PATH\"";
        let config = access(text).unwrap().auth_config(folder.path(), &[], CookieName::default()).unwrap();
        assert_eq!(config.keys[0].secret.expose(), SECRET);
        assert_eq!(config.keys[1].secret.expose(), env::var("PATH").unwrap());
        for missing in ["secret_file = \"nowhere\"", "secret_env = \"TIDINGS_NOT_SET\""] {
            let access = access(&format!("[[key]]\nname = \"a\"\n{missing}")).unwrap();
            let message =
                access.auth_config(folder.path(), &[], CookieName::default()).unwrap_err().to_string();
            assert!(message.starts_with("[[key]] `a`: "), "{message}");
        }
    }

    #[test]
    fn an_error_names_its_place_and_shows_no_secret() {
        for (wrong, part) in [
            ("secret = 4711", "`secret` must be a string"),
            ("", "needs one of `secret`"),
            ("secret = \"4711\"\nsecret_env = \"X\"", "needs only one of"),
            ("secret = \"4711\"\npublsh = []", "unknown field `publsh`"),
            ("secret = \"4711\"\npublish = \"a\"", "f.toml: "),
        ] {
            let message = refused(&format!("[[key]]\nname = \"a\"\n{wrong}"));
            assert!(message.contains(part) && message.contains("[[key]] number 1 in f.toml"), "{message}");
            assert!(!message.contains("4711"), "{message}");
        }
        assert!(refused("[[key]]\nsecret = \"4711\"").contains("missing field `name`"));
        assert!(refused("[key]\nname = \"a\"").contains("[[key]]"));
        assert!(refused("private_topics = \"a\"").contains("list of strings"));
        assert!(access("private_topics = [\"\"]").unwrap().private_topics("f.toml").is_err());
    }

    #[test]
    fn debug_and_print_hide_secrets() {
        let text = format!(
            "[[key]]\nname = \"ci\"\nsecret = \"{SECRET}\"\n[[issuer]]\niss = \"a\"\naudience = \"b\"\nsecret = \"{SECRET}\"\n\
             [[ticket_secret]]\nid = \"a\"\nsecret = \"{SECRET}\"\n"
        );
        let access = access(&text).unwrap();
        let printed = toml::to_string(&access).unwrap();
        assert!(printed.contains("secret = \"[hidden]\""), "{printed}");
        let config = access.auth_config(Path::new("."), &[], CookieName::default()).unwrap();
        for shown in [printed, format!("{access:?}"), format!("{config:?}")] {
            assert!(!shown.contains(SECRET), "{shown}");
        }
    }
}
