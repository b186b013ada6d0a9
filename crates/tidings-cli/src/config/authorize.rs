//! The paths whose streams an application decides about: `authorize` for `/stream`, and
//! `[[authorize]]` in the configuration file, which can name several.

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use tidings_net::redacted;
use tidings_server::{AuthorizedPath, InvalidAuthorizedPath, stream_path_is_free};

use super::{layers::Merged, values};
use crate::failure::Failure;

/// The path of the setting `authorize`.
const STREAM: &str = "/stream";

/// All tables, as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Authorize {
    #[serde(rename = "authorize", skip_serializing_if = "Vec::is_empty")]
    tables: Vec<PathTable>,
    #[serde(skip)]
    file_name: String,
}

/// An `[[authorize]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PathTable {
    #[serde(default = "stream")]
    path: String,
    #[serde(serialize_with = "without_secrets")]
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_secs: Option<u64>,
}

fn stream() -> String {
    STREAM.to_owned()
}

fn without_secrets<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&redacted(url))
}

impl Authorize {
    /// Takes its tables out of a parsed file. `authorize` as a string is a setting like others.
    pub(super) fn take_from(file: &mut toml::Table, file_name: &str) -> Result<Self, Failure> {
        let mut authorize = Self { tables: Vec::new(), file_name: file_name.to_owned() };
        if !file.get("authorize").is_some_and(toml::Value::is_array) {
            return Ok(authorize);
        }
        let Some(toml::Value::Array(tables)) = file.remove("authorize") else {
            unreachable!("it is an array");
        };
        for (index, table) in tables.into_iter().enumerate() {
            let table = table.try_into().map_err(|error: toml::de::Error| {
                Failure::usage(format!("{}: {}", authorize.place(index), error.message()))
            })?;
            authorize.tables.push(table);
        }
        Ok(authorize)
    }

    /// The checked paths. The setting replaces a table of the same path. `secs` is how long an
    /// application may take, and `hub_path` the path of the Mercure API.
    pub(super) fn paths(
        &self,
        merged: &Merged,
        secs: u64,
        hub_path: &str,
    ) -> Result<Vec<AuthorizedPath>, Failure> {
        let time = Duration::from_secs(secs);
        let setting = merged
            .one("authorize", |url| AuthorizedPath::new(STREAM, url).map_err(|error| error.to_string()))?;
        let mut paths: Vec<_> = setting.into_iter().map(|path| path.with_time(time)).collect();
        let is_given = !paths.is_empty();
        for (index, table) in self.tables.iter().enumerate() {
            let refuse = |reason: String| Failure::usage(format!("{}: {reason}", self.place(index)));
            let path = table.path(time).map_err(refuse)?;
            if !stream_path_is_free(path.path()) || path.path() == hub_path {
                let reason = InvalidAuthorizedPath::PathInUse;
                return Err(refuse(format!("path: `{}` {reason}", path.path())));
            }
            if is_given && path.path() == STREAM {
                continue;
            }
            if paths.iter().any(|earlier: &AuthorizedPath| earlier.path() == path.path()) {
                return Err(refuse(format!("path: `{}` is that of an earlier table, too", path.path())));
            }
            paths.push(path);
        }
        Ok(paths)
    }

    /// Whether there are tables. They contain the setting, too, once they are
    /// [effective](Self::effective).
    pub(super) fn has_tables(&self) -> bool {
        !self.tables.is_empty()
    }

    /// The tables that have an effect, to be printed. A file cannot have both the setting and tables.
    pub(super) fn effective(&self, merged: &Merged) -> Self {
        let mut effective = self.clone();
        if let Some((_, [url])) = merged.get("authorize").filter(|_| self.has_tables()) {
            effective.tables.retain(|table| table.path != STREAM);
            let table = PathTable { path: stream(), url: url.clone(), host: None, timeout_secs: None };
            effective.tables.insert(0, table);
        }
        effective
    }

    fn place(&self, index: usize) -> String {
        format!("[[authorize]] number {} in {}", index + 1, self.file_name)
    }
}

impl PathTable {
    fn path(&self, time: Duration) -> Result<AuthorizedPath, String> {
        let path = AuthorizedPath::new(&self.path, &self.url).map_err(|error| match error {
            InvalidAuthorizedPath::Path => format!("path: `{}` {error}", self.path),
            _ => format!("url: `{}` {error}", redacted(&self.url)),
        })?;
        let time = match self.timeout_secs {
            None => time,
            Some(secs) => values::seconds(&secs.to_string())
                .map(Duration::from_secs)
                .map_err(|reason| format!("timeout_secs: `{secs}` {reason}"))?,
        };
        let path = path.with_time(time);
        match &self.host {
            None => Ok(path),
            Some(host) => path.with_host(host).map_err(|error| format!("host: `{host}` {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layers::Layer;

    fn paths(file: &str, url: Option<&str>) -> Result<Vec<(String, String, u64)>, String> {
        let refused = |failure: Failure| failure.to_string();
        let authorize = Authorize::take_from(&mut file.parse().unwrap(), "f.toml").map_err(refused)?;
        let flags = url.map(|url| ("authorize", vec![url.to_owned()])).into_iter().collect();
        let merged = Merged::new(Layer::new(), Layer::new(), flags, "f.toml");
        let paths = authorize.paths(&merged, 10, "/.well-known/mercure").map_err(refused)?;
        let shown =
            |path: &AuthorizedPath| (path.path().to_owned(), path.url().to_string(), path.time().as_secs());
        Ok(paths.iter().map(shown).collect())
    }

    const TABLES: &str = "[[authorize]]\nurl = \"http://a/\"\n\
        [[authorize]]\npath = \"/events\"\nurl = \"https://b/x?y\"\ntimeout_secs = 3\nhost = \"b.internal\"\n";

    #[test]
    fn the_flag_replaces_the_table_of_its_path() {
        let of = |path: &str, url: &str, secs| (path.to_owned(), url.to_owned(), secs);
        let events = of("/events", "https://b/x?y", 3);
        assert_eq!(paths("", None), Ok(vec![]));
        assert_eq!(paths("", Some("http://c/")), Ok(vec![of("/stream", "http://c/", 10)]));
        assert_eq!(paths(TABLES, None), Ok(vec![of("/stream", "http://a/", 10), events.clone()]));
        assert_eq!(paths(TABLES, Some("http://c/")), Ok(vec![of("/stream", "http://c/", 10), events]));
    }

    #[test]
    fn a_table_that_cannot_work_is_refused_with_its_number() {
        let table = |lines: &str| format!("[[authorize]]\n{lines}\n");
        for (file, part) in [
            (table(""), "missing field `url`"),
            (table("url = \"http://a/\"\npth = \"/x\""), "unknown field `pth`"),
            (table("url = \"a\""), "url: `a` is not a URL"),
            (table("url = \"http://me:secret@a/\""), "url: `http://…@a/` contains a user"),
            (table("url = \"http://a/\"\npath = \"x\""), "path: `x` is not a path"),
            (table("url = \"http://a/\"\npath = \"/topics\""), "path: `/topics` is a path that the hub uses"),
            (table("url = \"http://a/\"\npath = \"/topics/a\""), "the hub uses"),
            (table("url = \"http://a/\"\npath = \"/.well-known/mercure\""), "the hub uses"),
            (table("url = \"http://a/\"\ntimeout_secs = 0"), "timeout_secs: `0` must be at least 1"),
            (table("url = \"http://a/\"\nhost = \"a b\""), "host: `a b` is not a host"),
            (
                table("url = \"http://a/\"").repeat(2),
                "number 2 in f.toml: path: `/stream` is that of an earlier",
            ),
        ] {
            let refused = paths(&file, None).unwrap_err();
            assert!(refused.contains(part) && refused.contains("[[authorize]] number "), "{file}: {refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
        assert!(paths("", Some("a")).unwrap_err().starts_with("--authorize: `a` is not a URL"));
    }

    #[test]
    fn printed_tables_read_back_as_the_same() {
        let authorize = Authorize::take_from(&mut TABLES.parse().unwrap(), "f.toml").unwrap();
        for url in [None, Some("http://c/")] {
            let flags = url.map(|url| ("authorize", vec![url.to_owned()])).into_iter().collect();
            let merged = Merged::new(Layer::new(), Layer::new(), flags, "f.toml");
            let printed = toml::to_string(&authorize.effective(&merged)).unwrap();
            let again = TABLES.replace("http://a/", url.unwrap_or("http://a/")).replace("x?y", "x?y=…");
            assert_eq!(paths(&printed.replace("x?…", "x?y=…"), None), paths(&again, None), "{printed}");
        }
    }
}
