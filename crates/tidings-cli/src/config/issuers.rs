//! `[[issuer]]`: who may sign tokens, with which keys, and for what.

use std::{
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize};
use tidings_auth::{
    Algorithm, IssuerConfig, IssuerKeyConfig, JWKS_BYTES_MAX, JwksUrl, MatcherText, MercureRevision,
};

use super::secret_source::{SecretSource, parse, read_file, table};
use crate::failure::Failure;

/// Where a key may be.
const KEY_SOURCES: [&str; 4] = ["secret", "secret_env", "secret_file", "public_key_file"];

/// An `[[issuer]]`. One key may be written into it; several are `[[issuer.key]]`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct IssuerTable {
    #[serde(flatten)]
    fields: IssuerFields,
    #[serde(flatten)]
    secret: Option<SecretSource>,
    #[serde(rename = "key", skip_serializing_if = "Vec::is_empty")]
    keys: Vec<KeyTable>,
}

/// The fields of an issuer other than its keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerFields {
    iss: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<MercureRevision>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    audience: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    algorithms: Vec<Algorithm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    publish: Option<Vec<MatcherText>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribe: Option<Vec<MatcherText>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_http: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_private: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_secs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_secs_min: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_lifetime_secs_max: Option<NonZeroU64>,
}

/// An `[[issuer.key]]`.
#[derive(Clone, Debug, Serialize)]
struct KeyTable {
    #[serde(flatten)]
    fields: KeyFields,
    #[serde(flatten)]
    secret: SecretSource,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
}

impl IssuerTable {
    pub(super) fn read(value: toml::Value, place: &str) -> Result<Self, Failure> {
        let mut table = table(value, place)?;
        let secret = SecretSource::take_from(&mut table, &KEY_SOURCES, place)?;
        let keys = match table.remove("key") {
            None => Vec::new(),
            Some(toml::Value::Array(keys)) => keys,
            Some(_) => {
                let reason = "`key` must be written as [[issuer.key]]";
                return Err(Failure::usage(format!("{place}: {reason}")));
            }
        };
        let keys = keys.into_iter().enumerate().map(|(index, key)| {
            let place = format!("[[issuer.key]] number {} of {place}", index + 1);
            let (secret, rest) = SecretSource::split(key, &KEY_SOURCES, &place)?;
            Ok(KeyTable { fields: parse(rest, &place)?, secret })
        });
        let keys = keys.collect::<Result<_, Failure>>()?;
        let issuer = Self { fields: parse(table, place)?, secret, keys };
        issuer.refuse_without_effect(place)?;
        Ok(issuer)
    }

    fn refuse_without_effect(&self, place: &str) -> Result<(), Failure> {
        let IssuerFields { kid, jwks_url, allow_http, allow_private, refresh_secs, refresh_secs_min, .. } =
            &self.fields;
        if kid.is_some() && self.secret.is_none() {
            let reason = "`kid` is that of a secret or public key of the same table, and there is none";
            return Err(Failure::usage(format!("{place}: {reason}")));
        }
        if self.is_older() && self.has_audience() {
            let reason =
                "`audience` has no effect on tokens of revision 0.x, which any hub accepts: remove it";
            return Err(Failure::usage(format!("{place}: {reason}")));
        }
        let given = [
            ("allow_http", allow_http.is_some()),
            ("allow_private", allow_private.is_some()),
            ("refresh_secs", refresh_secs.is_some()),
            ("refresh_secs_min", refresh_secs_min.is_some()),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((name, _)) if jwks_url.is_none() => Err(Failure::usage(format!(
                "{place}: `{name}` has no effect without `jwks_url`: remove it, or add the URL of the keys"
            ))),
            _ => Ok(()),
        }
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = &SecretSource> {
        self.secret.iter().chain(self.keys.iter().map(|key| &key.secret))
    }

    /// Whether it names the audiences of its tokens itself.
    pub(super) fn has_audience(&self) -> bool {
        !self.fields.audience.is_empty()
    }

    /// Whether its tokens are of the older revision of the Mercure protocol.
    fn is_older(&self) -> bool {
        self.fields.revision == Some(MercureRevision::Older)
    }

    /// The issuer with its keys read. `own_urls` are its audiences unless it names others.
    pub(super) fn config(&self, folder: &Path, own_urls: &[String]) -> Result<IssuerConfig, Failure> {
        let fields = self.fields.clone();
        let place = format!("[[issuer]] `{}`", fields.iss.escape_debug());
        let audiences = if fields.audience.is_empty() { own_urls.to_vec() } else { fields.audience };
        if audiences.is_empty() && !self.is_older() {
            return Err(Failure::usage(format!(
                "{place} needs `audience`, or the hub needs `public_url`, which is then the audience of its tokens"
            )));
        }
        let own = self.secret.iter().map(|secret| (&self.fields.kid, secret));
        let keys =
            own.chain(self.keys.iter().map(|key| (&key.fields.kid, &key.secret))).map(|(kid, secret)| {
                Ok(IssuerKeyConfig { kid: kid.clone(), key: secret.fetch(folder, &place)? })
            });
        let jwks = fields.jwks_file.map(|file| read_file(&folder.join(file), JWKS_BYTES_MAX as u64, &place));
        let jwks_url = fields.jwks_url.map(|text| {
            let url = text.parse().map_err(|_| {
                let reason = "`jwks_url` is not a URL, such as https://issuer.example/jwks.json";
                Failure::usage(format!("{place}: {reason}"))
            })?;
            let default = JwksUrl::new(url);
            Ok::<_, Failure>(JwksUrl {
                allow_http: fields.allow_http.unwrap_or(default.allow_http),
                allow_private: fields.allow_private.unwrap_or(default.allow_private),
                refresh_secs: fields.refresh_secs.unwrap_or(default.refresh_secs),
                refresh_secs_min: fields.refresh_secs_min.unwrap_or(default.refresh_secs_min),
                ..default
            })
        });
        let everything = IssuerConfig::default();
        Ok(IssuerConfig {
            issuer: fields.iss,
            revision: fields.revision.unwrap_or_default(),
            audiences,
            algorithms: fields.algorithms,
            keys: keys.collect::<Result<_, Failure>>()?,
            jwks: jwks.transpose()?,
            jwks_url: jwks_url.transpose()?,
            publish: fields.publish.unwrap_or(everything.publish),
            subscribe: fields.subscribe.unwrap_or(everything.subscribe),
            stream_lifetime_secs_max: fields.stream_lifetime_secs_max,
        })
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
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
    use std::fs;

    use super::*;

    const SECRET: &str = "a-secret-that-is-never-shown";

    fn read(text: &str) -> Result<IssuerTable, Failure> {
        IssuerTable::read(toml::Value::Table(text.parse().unwrap()), "[[issuer]] number 1 in f.toml")
    }

    fn config(text: &str) -> IssuerConfig {
        read(&format!("iss = \"https://app.example\"\n{text}"))
            .unwrap()
            .config(Path::new("."), &["https://hub.example/".to_owned()])
            .unwrap()
    }

    #[test]
    fn an_issuer_has_one_audience_or_several_or_those_of_the_hub() {
        let audiences = |more: &str| config(&format!("secret = \"{SECRET}\"\n{more}")).audiences;
        assert_eq!(audiences(""), ["https://hub.example/"]);
        assert_eq!(audiences("audience = \"https://a.example\""), ["https://a.example"]);
        assert_eq!(audiences("audience = [\"a\", \"b\"]"), ["a", "b"]);
        let without = read(&format!("iss = \"a\"\nsecret = \"{SECRET}\"")).unwrap();
        let message = without.config(Path::new("."), &[]).unwrap_err().to_string();
        assert!(message.contains("`audience`") && message.contains("`public_url`"), "{message}");
    }

    #[test]
    fn an_issuer_has_one_key_or_several() {
        let keys = |text: &str| {
            config(text)
                .keys
                .into_iter()
                .map(|key| (key.kid, key.key.expose().to_owned()))
                .collect::<Vec<_>>()
        };
        let one = |kid: Option<&str>, text: &str| (kid.map(str::to_owned), text.to_owned());
        assert_eq!(keys("secret = \"a\""), [one(None, "a")]);
        assert_eq!(keys("secret = \"a\"\nkid = \"1\""), [one(Some("1"), "a")]);
        assert_eq!(
            keys("secret = \"a\"\n[[key]]\nkid = \"2\"\nsecret = \"b\"\n[[key]]\nsecret = \"c\""),
            [one(None, "a"), one(Some("2"), "b"), one(None, "c")]
        );
    }

    #[test]
    fn an_issuer_of_the_older_revision_needs_no_audience() {
        let older = read(&format!("iss = \"symfony\"\nrevision = \"0.x\"\nsecret = \"{SECRET}\"")).unwrap();
        assert_eq!(older.config(Path::new("."), &[]).unwrap().revision, MercureRevision::Older);
        assert_eq!(config("secret = \"a\"").revision, MercureRevision::Current);
    }

    #[test]
    fn an_issuer_may_publish_its_keys() {
        let defaults = config("jwks_url = \"https://issuer.example/jwks\"").jwks_url.unwrap();
        assert_eq!((defaults.refresh_secs, defaults.refresh_secs_min), (600, 30));
        assert!(!defaults.allow_http && !defaults.allow_private);
        let set = config(
            "jwks_url = \"https://issuer.example/jwks\"\nallow_http = true\nallow_private = true\nrefresh_secs = 60\nrefresh_secs_min = 5",
        )
        .jwks_url
        .unwrap();
        assert_eq!((set.refresh_secs, set.refresh_secs_min), (60, 5));
        assert!(set.allow_http && set.allow_private);
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("jwks.json"), "{}").unwrap();
        let table = read("iss = \"a\"\naudience = \"b\"\njwks_file = \"jwks.json\"").unwrap();
        assert_eq!(table.config(folder.path(), &[]).unwrap().jwks.unwrap(), "{}");
        let message = table.config(Path::new("/nowhere"), &[]).unwrap_err().to_string();
        assert!(message.starts_with("[[issuer]] `a`: cannot read /nowhere/jwks.json: "), "{message}");
    }

    #[test]
    fn an_issuer_may_limit_how_long_streams_last() {
        let secs = |more: &str| {
            let config = config(&format!("secret = \"a\"\n{more}"));
            config.stream_lifetime_secs_max.map(NonZeroU64::get)
        };
        assert_eq!((secs(""), secs("stream_lifetime_secs_max = 3600")), (None, Some(3_600)));
    }

    #[test]
    fn an_issuer_grants_everything_unless_it_is_bounded() {
        let grants = |text: &str| {
            let config = config(&format!("secret = \"a\"\n{text}"));
            [config.publish, config.subscribe]
                .map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(grants(""), [["*"], ["*"]]);
        assert_eq!(grants("publish = []\nsubscribe = [\"user-*\"]"), [vec![], vec!["user-*".to_owned()]]);
    }

    #[test]
    fn an_error_names_its_place_and_shows_no_secret() {
        for (wrong, part) in [
            ("secret = 4711", "`secret` must be a string"),
            ("secret = \"4711\"\nsecret_env = \"X\"", "needs only one of"),
            ("secret = \"4711\"\nalgorithms = [\"none\"]", "no such algorithm"),
            ("secret = \"4711\"\npublsh = []", "unknown field `publsh`"),
            ("secret = \"4711\"\naudience = 1", "`audience` must be a string or a list of strings"),
            ("secret = \"4711\"\nstream_lifetime_secs_max = 0", "nonzero"),
            ("secret = \"4711\"\nrefresh_secs = 60", "`refresh_secs` has no effect without `jwks_url`"),
            ("secret = \"4711\"\nrevision = \"0.9\"", "`0.9` is not a revision of the Mercure protocol"),
            (
                "secret = \"4711\"\nrevision = \"0.x\"\naudience = \"b\"",
                "`audience` has no effect on tokens of revision 0.x",
            ),
            ("secret = \"4711\"\nallow_private = true", "`allow_private` has no effect without `jwks_url`"),
            ("kid = \"1\"", "`kid` is that of a secret"),
            ("key = 1", "[[issuer.key]]"),
            ("[[key]]\nsecret = 4711", "[[issuer.key]] number 1 of "),
            ("[[key]]\nkid = \"1\"", "needs one of `secret`"),
            ("[[key]]\nsecret = \"4711\"\nalgorithm = \"HS256\"", "unknown field `algorithm`"),
        ] {
            let message = read(&format!("iss = \"a\"\n{wrong}")).unwrap_err().to_string();
            assert!(message.contains(part) && message.contains("[[issuer]] number 1 in f.toml"), "{message}");
            assert!(!message.contains("4711"), "{message}");
        }
        let table = read("iss = \"a\"\naudience = \"b\"\njwks_url = \"no URL\"").unwrap();
        let message = table.config(Path::new("."), &[]).unwrap_err().to_string();
        assert!(message.contains("`jwks_url` is not a URL"), "{message}");
    }

    #[test]
    fn a_printed_issuer_reads_back_as_the_same_and_hides_its_secrets() {
        let text = format!(
            "iss = \"a\"\naudience = \"b\"\nsecret = \"{SECRET}\"\nkid = \"1\"\npublish = [\"x\"]\njwks_url = \"https://c.example/\"\n\
             allow_private = true\nstream_lifetime_secs_max = 3600\n[[key]]\nkid = \"2\"\nsecret = \"{SECRET}\"\n"
        );
        let table = read(&text).unwrap();
        let printed = toml::to_string(&table).unwrap();
        assert!(!printed.contains(SECRET) && !format!("{table:?}").contains(SECRET), "{printed}");
        assert_eq!(toml::to_string(&read(&printed).unwrap()).unwrap(), printed);
    }
}
