//! Keys, the issuer of tokens, the secrets of tickets and private topics. They can only be set in the configuration file,
//! because a command line is visible to every user of the machine.
//!
//! Invariant: no message and no `Debug` shows a secret. Therefore secrets are taken out of the file
//! before anything that could quote them is parsed.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tidings::TopicGlob;
use tidings_auth::{
    Algorithm, AuthConfig, CookieName, IssuerConfig, KeyConfig, MatcherText, Secret, TicketSecretConfig,
};
use url::Url;

use crate::failure::Failure;

/// The largest file with a secret or a key.
const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// The part of the configuration file about access, as it was written.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Access {
    private_topics: Vec<String>,
    #[serde(rename = "key", skip_serializing_if = "Vec::is_empty")]
    keys: Vec<KeyTable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<IssuerTable>,
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
}

/// The `[issuer]`.
#[derive(Clone, Debug, Serialize)]
struct IssuerTable {
    #[serde(flatten)]
    fields: IssuerFields,
    #[serde(flatten)]
    secret: SecretSource,
}

/// The fields of an issuer other than its secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerFields {
    iss: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    audience: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    algorithms: Vec<Algorithm>,
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

/// Where a secret is: exactly one field is set.
#[derive(Clone, Debug, Default, Serialize)]
struct SecretSource {
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_env: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key_file: Option<PathBuf>,
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
        for (secret, place) in tables(file, "ticket_secret", file_name)? {
            access.ticket_secrets.push(TicketSecretTable::read(secret, &place)?);
        }
        if let Some(issuer) = file.remove("issuer") {
            access.issuer = Some(IssuerTable::read(issuer, &format!("[issuer] in {file_name}"))?);
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
        keys.chain(self.issuer.iter().map(|issuer| &issuer.secret)).chain(of_tickets)
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
    /// that names them. The audience of tokens is the public URL of the hub unless the file names
    /// another.
    pub(crate) fn auth_config(
        &self,
        folder: &Path,
        public_url: Option<&Url>,
        cookie_name: CookieName,
    ) -> Result<AuthConfig, Failure> {
        let key = |key: &KeyTable| {
            let KeyFields { name, publish, subscribe, admin } = key.fields.clone();
            let secret = key.secret.fetch(folder, &format!("[[key]] `{name}`"))?;
            Ok(KeyConfig { name, secret, publish, subscribe, admin })
        };
        let issuer = |issuer: &IssuerTable| {
            let IssuerFields { iss, mut audience, algorithms } = issuer.fields.clone();
            if audience.is_empty() {
                let url = public_url.ok_or_else(|| {
                    Failure::usage("[issuer] needs `audience`, or the hub needs `public_url`, which is then the audience of its tokens")
                })?;
                audience.push(url.to_string());
            }
            let key = issuer.secret.fetch(folder, "[issuer]")?;
            Ok::<_, Failure>(IssuerConfig { issuer: iss, audiences: audience, algorithms, key })
        };
        let ticket_secret = |table: &TicketSecretTable| {
            let TicketSecretFields { id } = table.fields.clone();
            let secret = table.secret.fetch(folder, &format!("[[ticket_secret]] `{id}`"))?;
            Ok(TicketSecretConfig { id, secret })
        };
        Ok(AuthConfig {
            keys: self.keys.iter().map(key).collect::<Result<_, Failure>>()?,
            issuer: self.issuer.as_ref().map(issuer).transpose()?,
            ticket_secrets: self.ticket_secrets.iter().map(ticket_secret).collect::<Result<_, Failure>>()?,
            cookie_name,
        })
    }
}

impl Access {
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

impl IssuerTable {
    fn read(value: toml::Value, place: &str) -> Result<Self, Failure> {
        let names = ["secret", "secret_env", "secret_file", "public_key_file"];
        let (secret, rest) = SecretSource::split(value, &names, place)?;
        Ok(Self { fields: parse(rest, place)?, secret })
    }
}

impl TicketSecretTable {
    fn read(value: toml::Value, place: &str) -> Result<Self, Failure> {
        let (secret, rest) = SecretSource::split(value, &["secret", "secret_env", "secret_file"], place)?;
        Ok(Self { fields: parse(rest, place)?, secret })
    }
}

/// The tables of a list `[[name]]`, each with its place in messages.
fn tables(
    file: &mut toml::Table,
    name: &str,
    file_name: &str,
) -> Result<Vec<(toml::Value, String)>, Failure> {
    let Some(value) = file.remove(name) else { return Ok(Vec::new()) };
    let toml::Value::Array(tables) = value else {
        return Err(Failure::usage(format!("`{name}` in {file_name} must be written as [[{name}]]")));
    };
    let place = |index| format!("[[{name}]] number {} in {file_name}", index + 1);
    Ok(tables.into_iter().enumerate().map(|(index, table)| (table, place(index))).collect())
}

impl SecretSource {
    /// Takes the secret out of a table, under one of these names.
    fn split(value: toml::Value, names: &[&str], place: &str) -> Result<(Self, toml::Table), Failure> {
        let toml::Value::Table(mut table) = value else {
            return Err(Failure::usage(format!("{place} must be a table")));
        };
        let mut given = Vec::new();
        for name in names {
            match table.remove(*name) {
                None => {}
                Some(toml::Value::String(text)) => given.push((*name, text)),
                // The value may be a secret, so the message omits it.
                Some(_) => return Err(Failure::usage(format!("{place}: `{name}` must be a string"))),
            }
        }
        let [(name, text)] = &mut given[..] else {
            let names = names.join("`, `");
            let count = if given.is_empty() { "one" } else { "only one" };
            return Err(Failure::usage(format!("{place} needs {count} of `{names}`")));
        };
        let text = std::mem::take(text);
        let mut source = Self::default();
        match *name {
            "secret" => source.secret = Some(Secret::new(text)),
            "secret_env" => source.secret_env = Some(text),
            "secret_file" => source.secret_file = Some(text.into()),
            _ => source.public_key_file = Some(text.into()),
        }
        Ok((source, table))
    }

    /// Reads the secret from its source.
    fn fetch(&self, folder: &Path, place: &str) -> Result<Secret, Failure> {
        if let Some(secret) = &self.secret {
            return Ok(secret.clone());
        }
        if let Some(name) = &self.secret_env {
            return env::var(name).map(Secret::new).map_err(|_| {
                Failure::usage(format!(
                    "{place}: the environment variable `{name}` is not set, or not valid UTF-8"
                ))
            });
        }
        let path = self.secret_file.as_ref().or(self.public_key_file.as_ref());
        read_secret_file(&folder.join(path.expect("a secret has one source")), place)
    }
}

/// Reads a secret or a key, without the line end that editors append.
pub(crate) fn read_secret_file(path: &Path, place: &str) -> Result<Secret, Failure> {
    let refuse = |why: &str| Failure::usage(format!("{place}: cannot read {}: {why}", path.display()));
    let size = fs::metadata(path).map_err(|error| refuse(&error.to_string()))?.len();
    if size > SECRET_FILE_BYTES_MAX {
        return Err(refuse("it is too large to be a secret or a key"));
    }
    let text = fs::read_to_string(path).map_err(|error| refuse(&error.to_string()))?;
    Ok(Secret::new(text.trim()))
}

fn parse<T: for<'de> Deserialize<'de>>(table: toml::Table, place: &str) -> Result<T, Failure> {
    toml::Value::Table(table)
        .try_into()
        .map_err(|error: toml::de::Error| Failure::usage(format!("{place}: {}", error.message())))
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "`audience` must be a string or a list of strings")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(texts) => texts,
    })
}

#[cfg(test)]
mod tests {
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
        let config = access(&text).unwrap().auth_config(Path::new("."), None, CookieName::default()).unwrap();
        let key = &config.keys[0];
        assert_eq!((key.name.as_str(), key.secret.expose()), ("ci", SECRET));
        assert_eq!(key.publish, [MatcherText::Exact("a".into()), MatcherText::Pattern("b-*".into())]);
        assert!(key.subscribe.is_empty() && !key.admin);
    }

    #[test]
    fn a_key_is_an_administrator_only_by_its_own_line() {
        let read = |more: &str| access(&format!("[[key]]\nname = \"ops\"\nsecret = \"{SECRET}\"\n{more}"));
        let admin = read("admin = true").unwrap();
        assert!(admin.auth_config(Path::new("."), None, CookieName::default()).unwrap().keys[0].admin);
        assert!(toml::to_string(&admin).unwrap().contains("admin = true"));
        assert!(!toml::to_string(&read("admin = false").unwrap()).unwrap().contains("admin = true"));
        for wrong in ["admin = 1", "admin = \"true\"", "admin = []"] {
            let message = read(wrong).unwrap_err().to_string();
            assert!(message.contains("[[key]] number 1 in f.toml"), "{message}");
        }
    }

    #[test]
    fn a_ticket_secret_has_an_id_and_a_secret() {
        let text = format!("[[ticket_secret]]\nid = \"b\"\nsecret = \"{SECRET}\"\n");
        let config = access(&text).unwrap().auth_config(Path::new("."), None, CookieName::default()).unwrap();
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
        let config = access(text).unwrap().auth_config(folder.path(), None, CookieName::default()).unwrap();
        assert_eq!(config.keys[0].secret.expose(), SECRET);
        assert_eq!(config.keys[1].secret.expose(), env::var("PATH").unwrap());
        for missing in ["secret_file = \"nowhere\"", "secret_env = \"TIDINGS_NOT_SET\""] {
            let access = access(&format!("[[key]]\nname = \"a\"\n{missing}")).unwrap();
            let message =
                access.auth_config(folder.path(), None, CookieName::default()).unwrap_err().to_string();
            assert!(message.starts_with("[[key]] `a`: "), "{message}");
        }
    }

    #[test]
    fn an_issuer_has_one_audience_or_several_or_that_of_the_hub() {
        let issuer = |more: &str| {
            let text = format!("[issuer]\niss = \"https://app.example\"\nsecret = \"{SECRET}\"\n{more}");
            let url = "https://hub.example/".parse().unwrap();
            access(&text)
                .unwrap()
                .auth_config(Path::new("."), Some(&url), CookieName::default())
                .unwrap()
                .issuer
                .unwrap()
        };
        assert_eq!(issuer("").audiences, ["https://hub.example/"]);
        assert_eq!(issuer("audience = \"https://a.example\"").audiences, ["https://a.example"]);
        assert_eq!(issuer("audience = [\"a\", \"b\"]").audiences, ["a", "b"]);
        assert_eq!(issuer("algorithms = [\"HS512\"]").algorithms, [Algorithm::Hs512]);
        let without = access(&format!("[issuer]\niss = \"a\"\nsecret = \"{SECRET}\"")).unwrap();
        let message =
            without.auth_config(Path::new("."), None, CookieName::default()).unwrap_err().to_string();
        assert!(message.contains("`audience`") && message.contains("`public_url`"), "{message}");
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
        assert!(
            refused("[issuer]\niss = \"a\"\nsecret = \"4711\"\nalgorithms = [\"none\"]").contains("[issuer]")
        );
        assert!(refused("private_topics = \"a\"").contains("list of strings"));
        assert!(access("private_topics = [\"\"]").unwrap().private_topics("f.toml").is_err());
    }

    #[test]
    fn debug_and_print_hide_secrets() {
        let text = format!(
            "[[key]]\nname = \"ci\"\nsecret = \"{SECRET}\"\n[issuer]\niss = \"a\"\naudience = \"b\"\nsecret = \"{SECRET}\"\n\
             [[ticket_secret]]\nid = \"a\"\nsecret = \"{SECRET}\"\n"
        );
        let access = access(&text).unwrap();
        let printed = toml::to_string(&access).unwrap();
        assert!(printed.contains("secret = \"[hidden]\""), "{printed}");
        let config = access.auth_config(Path::new("."), None, CookieName::default()).unwrap();
        for shown in [printed, format!("{access:?}"), format!("{config:?}")] {
            assert!(!shown.contains(SECRET), "{shown}");
        }
    }
}
