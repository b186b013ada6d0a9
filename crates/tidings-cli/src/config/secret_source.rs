//! Tables of the file that hold secrets.
//!
//! Invariant: no message and no `Debug` shows a secret. Therefore secrets are taken out of the file
//! before anything that could quote them is parsed.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tidings_auth::Secret;

use crate::failure::Failure;

/// The largest file with a secret or a key.
const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where a secret is: exactly one field is set.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct SecretSource {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret_env: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key_file: Option<PathBuf>,
}

impl SecretSource {
    /// Takes the secret out of a table that has to have one, under one of these names.
    pub(super) fn split(
        value: toml::Value,
        names: &[&str],
        place: &str,
    ) -> Result<(Self, toml::Table), Failure> {
        let mut table = table(value, place)?;
        match Self::take_from(&mut table, names, place)? {
            Some(source) => Ok((source, table)),
            None => Err(Failure::usage(format!("{place} needs one of `{}`", names.join("`, `")))),
        }
    }

    /// Takes the secret out of a table, under one of these names, if it is there.
    pub(super) fn take_from(
        table: &mut toml::Table,
        names: &[&str],
        place: &str,
    ) -> Result<Option<Self>, Failure> {
        let mut given = Vec::new();
        for name in names {
            match table.remove(*name) {
                None => {}
                Some(toml::Value::String(text)) => given.push((*name, text)),
                // The value may be a secret, so the message omits it.
                Some(_) => return Err(Failure::usage(format!("{place}: `{name}` must be a string"))),
            }
        }
        if given.len() > 1 {
            return Err(Failure::usage(format!("{place} needs only one of `{}`", names.join("`, `"))));
        }
        let Some((name, text)) = given.pop() else { return Ok(None) };
        let mut source = Self::default();
        match name {
            "secret" => source.secret = Some(Secret::new(text)),
            "secret_env" => source.secret_env = Some(text),
            "secret_file" => source.secret_file = Some(text.into()),
            _ => source.public_key_file = Some(text.into()),
        }
        Ok(Some(source))
    }

    /// Reads the secret from its source.
    pub(super) fn fetch(&self, folder: &Path, place: &str) -> Result<Secret, Failure> {
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
    read_file(path, SECRET_FILE_BYTES_MAX, place).map(|text| Secret::new(text.trim()))
}

/// Reads a text of at most this many bytes.
pub(super) fn read_file(path: &Path, bytes_max: u64, place: &str) -> Result<String, Failure> {
    let refuse = |why: &str| Failure::usage(format!("{place}: cannot read {}: {why}", path.display()));
    let size = fs::metadata(path).map_err(|error| refuse(&error.to_string()))?.len();
    if size > bytes_max {
        return Err(refuse(&format!("it has {size} bytes, and a secret or key at most {bytes_max}")));
    }
    fs::read_to_string(path).map_err(|error| refuse(&error.to_string()))
}

pub(super) fn parse<T: for<'de> Deserialize<'de>>(table: toml::Table, place: &str) -> Result<T, Failure> {
    toml::Value::Table(table)
        .try_into()
        .map_err(|error: toml::de::Error| Failure::usage(format!("{place}: {}", error.message())))
}

/// The tables of a list `[[name]]`, each with its place in messages.
pub(super) fn tables(
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

pub(super) fn table(value: toml::Value, place: &str) -> Result<toml::Table, Failure> {
    match value {
        toml::Value::Table(table) => Ok(table),
        _ => Err(Failure::usage(format!("{place} must be a table"))),
    }
}
