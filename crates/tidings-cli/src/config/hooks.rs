//! `[[hook]]`: applications that are notified of who comes to a topic and who leaves it.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tidings_net::redacted;
use url::Url;

use super::{
    secret_source::{SecretSource, parse, tables},
    values,
};
use crate::{
    failure::Failure,
    hooks::{HookSettings, Kind, SigningSecret},
};

/// Where a secret may be.
const SOURCES: [&str; 3] = ["secret", "secret_env", "secret_file"];

/// How long an attempt may take, by default.
const TIMEOUT_SECS_DEFAULT: u64 = 10;

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 100;

/// All tables, as they were written.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct HookTables {
    #[serde(rename = "hook", skip_serializing_if = "Vec::is_empty")]
    tables: Vec<HookTable>,
    #[serde(skip)]
    file_name: String,
}

/// A `[[hook]]`.
#[derive(Clone, Debug, Serialize)]
struct HookTable {
    #[serde(flatten)]
    fields: HookFields,
    #[serde(flatten)]
    secret: SecretSource,
}

/// The fields of a hook other than its secrets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HookFields {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default = "all", skip_serializing_if = "is_all")]
    events: Vec<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_secs: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    allow_http: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    allow_private: bool,
}

fn all() -> Vec<Kind> {
    Kind::PRESENCE.to_vec()
}

fn is_all(kinds: &[Kind]) -> bool {
    kinds == Kind::PRESENCE
}

impl HookTables {
    /// Takes its tables out of a parsed file.
    pub(super) fn take_from(file: &mut toml::Table, file_name: &str) -> Result<Self, Failure> {
        let mut hooks = Self { tables: Vec::new(), file_name: file_name.to_owned() };
        for (value, place) in tables(file, "hook", file_name)? {
            let (secret, rest) = SecretSource::split(value, &SOURCES, &place)?;
            hooks.tables.push(HookTable { fields: parse(rest, &place)?, secret });
        }
        Ok(hooks)
    }

    /// The checked hooks, with their secrets read. Paths are relative to the file that names them.
    pub(super) fn settings(&self, folder: &Path) -> Result<Vec<HookSettings>, Failure> {
        let mut names = HashSet::new();
        let mut hooks = Vec::new();
        for (index, table) in self.tables.iter().enumerate() {
            let place = format!("[[hook]] number {} in {}", index + 1, self.file_name);
            let refuse = |reason: String| Failure::usage(format!("{place}: {reason}"));
            let secret = table.secret.fetch(folder, &place)?;
            let hook = table.fields.settings(secret.expose()).map_err(refuse)?;
            if !names.insert(hook.name.clone()) {
                let reason = format!(
                    "the name `{}` is that of an earlier hook, too: give it another `name`",
                    hook.name
                );
                return Err(refuse(reason));
            }
            hooks.push(hook);
        }
        Ok(hooks)
    }

    /// Whether the file itself contains a secret.
    pub(super) fn holds_secret(&self) -> bool {
        self.tables.iter().any(|table| table.secret.secret.is_some())
    }

    /// The files that hold secrets. Paths are relative to the file that names them.
    pub(super) fn secret_files(&self, folder: &Path) -> Vec<PathBuf> {
        let files = self.tables.iter().filter_map(|table| table.secret.secret_file.as_ref());
        files.map(|file| folder.join(file)).collect()
    }

    /// The environment variables that secrets come from.
    pub(super) fn secret_variables(&self) -> Vec<&str> {
        self.tables.iter().filter_map(|table| table.secret.secret_env.as_deref()).collect()
    }

    /// The tables, to be printed: what a URL may contain of secrets is hidden.
    pub(super) fn shown(&self) -> Self {
        let mut shown = self.clone();
        for table in &mut shown.tables {
            table.fields.url = redacted(&table.fields.url).into_owned();
        }
        shown
    }
}

impl HookFields {
    fn settings(&self, secrets: &str) -> Result<HookSettings, String> {
        let url = self.url()?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let name = self.name.clone().unwrap_or(host);
        let is_visible = |text: &str| text.chars().all(|letter| letter.is_ascii_graphic());
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !is_visible(&name) {
            return Err(format!(
                "name: `{}` should be 1 to {NAME_BYTES_MAX} letters, digits or signs of ASCII, without spaces",
                name.escape_debug()
            ));
        }
        if self.events.is_empty() {
            return Err(format!(
                "events: the list is empty: name some of `{}`, or leave it out for all",
                Kind::PRESENCE.map(Kind::name).join("`, `")
            ));
        }
        let secrets: Result<Vec<SigningSecret>, _> = secrets.split_whitespace().map(str::parse).collect();
        let secrets = secrets.map_err(|reason| format!("secret: it {reason}"))?;
        if secrets.is_empty() {
            return Err("secret: it is empty".to_owned());
        }
        let secs = self.timeout_secs.unwrap_or(TIMEOUT_SECS_DEFAULT);
        let secs =
            values::seconds(&secs.to_string()).map_err(|why| format!("timeout_secs: `{secs}` {why}"))?;
        Ok(HookSettings {
            name,
            url,
            kinds: self.events.clone(),
            secrets,
            allow_private: self.allow_private,
            time: Duration::from_secs(secs),
        })
    }

    fn url(&self) -> Result<Url, String> {
        let refuse = |reason: &str| format!("url: `{}` {reason}", redacted(&self.url));
        let url: Url = self.url.parse().map_err(|error| refuse(&format!("is not a URL: {error}")))?;
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            "http" => {
                return Err(refuse(
                    "has no TLS, so others can read who is present: use https, or set allow_http = true",
                ));
            }
            _ => return Err(refuse("should begin with https://")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("contains a user or a password: messages are signed instead"));
        }
        if url.fragment().is_some() {
            return Err(refuse("contains a `#`, which is never sent"));
        }
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn settings(lines: &str) -> Result<Vec<HookSettings>, String> {
        let mut file = lines.replace("SECRET", &format!("secret = \"{SECRET}\"")).parse().unwrap();
        let tables = HookTables::take_from(&mut file, "f.toml").map_err(|failure| failure.to_string())?;
        tables.settings(Path::new(".")).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_hook_reports_everything_unless_it_says_what() {
        let hooks = settings("[[hook]]\nurl = \"https://app.example/hook\"\nSECRET").unwrap();
        assert_eq!((hooks[0].name.as_str(), hooks[0].kinds.as_slice()), ("app.example", &Kind::PRESENCE[..]));
        assert_eq!((hooks[0].time, hooks[0].allow_private), (Duration::from_secs(10), false));
        let lines = "[[hook]]\nurl = \"http://127.0.0.1/\"\nname = \"mine\"\nevents = [\"presence.left\"]\n\
                     allow_http = true\nallow_private = true\ntimeout_secs = 3\n";
        let hooks = settings(&format!("{lines}secret = \"{SECRET} {SECRET}\"")).unwrap();
        assert_eq!((hooks[0].name.as_str(), hooks[0].kinds.as_slice()), ("mine", &[Kind::Left][..]));
        assert_eq!((hooks[0].secrets.len(), hooks[0].allow_private), (2, true));
    }

    #[test]
    fn a_hook_that_cannot_work_is_refused_with_its_number_and_without_its_secret() {
        let url = "url = \"https://a.example/\"";
        for (lines, part) in [
            (format!("{url}\n"), "needs one of `secret`, `secret_env`, `secret_file`"),
            ("SECRET".to_owned(), "missing field `url`"),
            (format!("{url}\nSECRET\nevent = []"), "unknown field `event`"),
            (format!("{url}\nSECRET\nevents = []"), "events: the list is empty"),
            (format!("{url}\nSECRET\nevents = [\"joined\"]"), "`joined` is not one of `topic.occupied`"),
            (format!("{url}\nSECRET\nname = \"a b\""), "name: `a b` should be"),
            (format!("{url}\nSECRET\ntimeout_secs = 0"), "timeout_secs: `0` must be at least 1"),
            (format!("{url}\nsecret = \"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\""), "does not begin with `whsec_`"),
            (format!("{url}\nsecret = \" \""), "secret: it is empty"),
            ("url = \"http://a.example/\"\nSECRET".to_owned(), "set allow_http = true"),
            ("url = \"ftp://a.example/\"\nSECRET".to_owned(), "should begin with https://"),
            ("url = \"a\"\nSECRET".to_owned(), "is not a URL"),
            ("url = \"https://me:hidden@a.example/\"\nSECRET".to_owned(), "contains a user"),
            ("url = \"https://a.example/#x\"\nSECRET".to_owned(), "contains a `#`"),
        ] {
            let refused = settings(&format!("[[hook]]\n{lines}")).unwrap_err();
            assert!(refused.contains(part) && refused.contains("[[hook]] number 1"), "{lines}: {refused}");
            assert!(!refused.contains("MfKQ") && !refused.contains("hidden"), "{refused}");
        }
        let twice = format!("[[hook]]\n{url}\nSECRET\n").repeat(2);
        assert!(settings(&twice).unwrap_err().contains("number 2 in f.toml: the name `a.example` is that"));
    }
}
