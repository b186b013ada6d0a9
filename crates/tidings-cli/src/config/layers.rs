//! The three sources of settings: the environment overrides the file, flags override the
//! environment.
//!
//! A layer is plain data: the words of one source as they were written. They are parsed afterwards,
//! in one place for all three sources.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};

use tidings_net::redacted;

use super::{
    settings::{Kind, Preset, SETTINGS, STORE, Setting, setting},
    values::LogFormat,
};
use crate::failure::Failure;

/// The words of one source, by the names of settings.
pub(crate) type Layer = BTreeMap<&'static str, Vec<String>>;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Default,
    File,
    Environment,
    Flag,
}

/// All settings, each from the source with the highest precedence. `Debug` shows no secret.
#[derive(Clone)]
pub(crate) struct Merged {
    values: BTreeMap<&'static str, (Source, Vec<String>)>,
    /// The name of the file in messages.
    file_name: String,
}

impl Merged {
    pub(crate) fn new(file: Layer, environment: Layer, flags: Layer, file_name: &str) -> Self {
        let mut values = BTreeMap::new();
        for setting in SETTINGS {
            if let Preset::Is(default) = setting.default {
                values.insert(setting.name, (Source::Default, vec![default.to_owned()]));
            }
        }
        for (source, layer) in
            [(Source::File, file), (Source::Environment, environment), (Source::Flag, flags)]
        {
            values.extend(layer.into_iter().map(|(name, words)| (name, (source, words))));
        }
        Self { values, file_name: file_name.to_owned() }
    }

    /// The file that was read, if there is one.
    pub(crate) fn file_name(&self) -> Option<&str> {
        Some(self.file_name.as_str()).filter(|name| !name.is_empty())
    }

    /// Fills in a default that depends on other settings.
    pub(crate) fn default_to(&mut self, name: &'static str, word: impl fmt::Display) {
        self.values.entry(name).or_insert_with(|| (Source::Default, vec![word.to_string()]));
    }

    /// Replaces the default of a setting that has one.
    #[cfg(unix)]
    pub(crate) fn replace_default(&mut self, name: &'static str, word: String) {
        let value = self.values.get_mut(name).filter(|(source, _)| *source == Source::Default);
        if let Some((_, words)) = value {
            *words = vec![word];
        }
    }

    /// The words of a setting and their source.
    pub(crate) fn get(&self, name: &str) -> Option<(Source, &[String])> {
        self.values.get(name).map(|(source, words)| (*source, words.as_slice()))
    }

    /// The names of the settings whose words differ.
    pub(crate) fn differences(&self, other: &Self) -> Vec<&'static str> {
        let words = |merged: &Self, name| merged.get(name).map(|(_, words)| words.to_vec());
        let names = SETTINGS.iter().map(|setting| setting.name);
        names.filter(|name| words(self, name) != words(other, name)).collect()
    }

    /// Whether the file contains the URL of a store or a bridge with a password, a token or the
    /// like.
    pub(crate) fn has_password_in_file(&self) -> bool {
        let words = ["store", "bridge"].into_iter().filter_map(|name| self.get(name));
        words.filter(|(source, _)| *source == Source::File).any(|(_, words)| {
            words.iter().any(|word| word.contains("://") && (word.contains('@') || word.contains("pass")))
        })
    }

    /// Reads a setting that has one value; `None` if it is not given.
    pub(crate) fn one<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Failure> {
        Ok(self.many(name, parse)?.pop())
    }

    /// Reads a setting that has a default, so that there always is a value.
    pub(crate) fn value<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        Ok(self.one(name, parse)?.expect("the setting has a default"))
    }

    /// Reads a setting that is a list.
    pub(crate) fn many<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Failure> {
        let Some((_, words)) = self.get(name) else {
            return Ok(Vec::new());
        };
        words
            .iter()
            .map(|word| {
                let word_shown = shown(name, word);
                parse(word).map_err(|reason| self.refuse(name, &format!("`{word_shown}` {reason}")))
            })
            .collect()
    }

    /// An error in a setting, reported with the name that its source uses.
    pub(crate) fn refuse(&self, name: &str, reason: &str) -> Failure {
        let setting = setting(name).expect("only settings of the table are read");
        let place = match self.get(name).map_or(Source::Default, |(source, _)| source) {
            Source::Flag | Source::Default => setting.flag(),
            Source::Environment => setting.variable(),
            Source::File => format!("`{name}` in {}", self.file_name),
        };
        Failure::usage(format!("{place}: {reason}"))
    }
}

/// A word as messages show it, without secrets. A topic is never a secret, even if it looks like a
/// URL.
pub(super) fn shown<'a>(setting: &str, word: &'a str) -> Cow<'a, str> {
    if setting == "stream" { word.into() } else { redacted(word) }
}

impl fmt::Debug for Merged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values.iter().map(|(name, (source, words))| {
            (name, (source, words.iter().map(|word| shown(name, word)).collect::<Vec<_>>()))
        });
        f.debug_map().entries(values).finish()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        })
    }
}

/// The flags and variables of all settings, as clap parses them.
#[derive(Clone, Default)]
pub(crate) struct SettingFlags {
    pub(crate) environment: Layer,
    pub(crate) flags: Layer,
    /// What `tidings run` adds.
    #[cfg(unix)]
    pub(crate) application: Option<super::ApplicationAccess>,
}

impl SettingFlags {
    /// The format of the log, as far as it is known before the file is read.
    pub(crate) fn log_format(&self) -> Option<LogFormat> {
        let words = self.flags.get("log").or_else(|| self.environment.get("log"))?;
        words.last()?.parse().ok()
    }

    fn found(settings: impl Iterator<Item = &'static Setting>, matches: &ArgMatches) -> Self {
        let mut found = Self::default();
        for setting in settings {
            let words: Vec<String> =
                matches.get_many::<String>(setting.name).unwrap_or_default().cloned().collect();
            match matches.value_source(setting.name) {
                Some(ValueSource::CommandLine) => found.flags.insert(setting.name, words),
                Some(ValueSource::EnvVariable) => match from_variable(setting, words) {
                    Some(words) => found.environment.insert(setting.name, words),
                    None => None,
                },
                _ => None,
            };
        }
        found
    }
}

/// Omits the words, which may be secrets.
impl fmt::Debug for SettingFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SettingFlags").finish_non_exhaustive()
    }
}

impl clap::Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().map(arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self::found(SETTINGS.iter(), matches))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The flags and variables of the store alone.
#[cfg_attr(not(feature = "demo"), allow(dead_code, reason = "for `tidings demo`"))]
#[derive(Clone, Debug, Default)]
pub(crate) struct StoreFlags(pub(crate) SettingFlags);

#[cfg_attr(not(feature = "demo"), allow(dead_code, reason = "for `tidings demo`"))]
fn settings_of_store() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.group == STORE)
}

impl clap::Args for StoreFlags {
    fn augment_args(command: Command) -> Command {
        command.args(settings_of_store().map(arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for StoreFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(SettingFlags::found(settings_of_store(), matches)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// An empty variable counts as absent. A list is separated by commas, a list of URLs by spaces.
fn from_variable(setting: &Setting, words: Vec<String>) -> Option<Vec<String>> {
    if words.iter().all(String::is_empty) {
        return None;
    }
    if setting.kind == Kind::Urls {
        return Some(words.iter().flat_map(|word| word.split_whitespace()).map(str::to_owned).collect());
    }
    if setting.kind != Kind::Texts {
        return Some(words);
    }
    let parts = words.iter().flat_map(|word| word.split(',')).map(|part| part.trim().to_owned());
    Some(parts.collect())
}

fn arg(setting: &'static Setting) -> Arg {
    let help = match setting.default {
        Preset::Is("false") => setting.help.to_owned(),
        Preset::Is(value) | Preset::Depends(value) => format!("{} [default: {value}]", setting.help),
    };
    let arg = Arg::new(setting.name)
        .long(setting.long())
        .value_name(setting.value_name)
        .help(help)
        .help_heading(setting.group)
        .env(setting.variable())
        .hide_env(true)
        .allow_hyphen_values(true)
        .action(if setting.is_list() { ArgAction::Append } else { ArgAction::Set });
    let arg = match setting.short {
        Some(short) => arg.short(short),
        None => arg,
    };
    if setting.kind == Kind::Flag {
        arg.num_args(0..=1).require_equals(true).default_missing_value("true").hide_possible_values(true)
    } else {
        arg
    }
}

/// Takes the settings out of a parsed file. The caller handles the other tables.
pub(crate) fn from_file(file: &mut toml::Table, file_name: &str) -> Result<Layer, Failure> {
    let mut layer = Layer::new();
    for setting in SETTINGS {
        let Some(value) = file.remove(setting.name) else { continue };
        let words = words(setting, value).map_err(|expected| {
            Failure::usage(format!("`{}` in {file_name} must be {expected}", setting.name))
        })?;
        layer.insert(setting.name, words);
    }
    Ok(layer)
}

fn words(setting: &Setting, value: toml::Value) -> Result<Vec<String>, &'static str> {
    match (setting.kind, value) {
        (Kind::Texts | Kind::Urls, toml::Value::Array(values)) => values
            .into_iter()
            .map(|value| match value {
                toml::Value::String(word) => Ok(word),
                _ => Err("a list of strings"),
            })
            .collect(),
        (Kind::Text | Kind::Texts | Kind::Urls | Kind::Number, toml::Value::String(word)) => Ok(vec![word]),
        (Kind::Text | Kind::Number, toml::Value::Integer(number)) => Ok(vec![number.to_string()]),
        (Kind::Flag | Kind::Choice, toml::Value::Boolean(truth)) => Ok(vec![truth.to_string()]),
        (Kind::Flag | Kind::Choice, _) => Err("true or false, without quotation marks"),
        (Kind::Texts | Kind::Urls, _) => Err("a list of strings"),
        (Kind::Number, _) => Err("an integer"),
        (Kind::Text, _) => Err("a string"),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn layer(setting: &Setting, word: &str) -> Layer {
        Layer::from([(setting.name, vec![word.to_owned()])])
    }

    #[test]
    fn flags_override_the_environment_and_the_environment_overrides_the_file() {
        for setting in SETTINGS {
            let merged = |file: bool, environment: bool, flag: bool| {
                let maybe = |there, word| if there { layer(setting, word) } else { Layer::new() };
                let (file, environment) = (maybe(file, "file"), maybe(environment, "environment"));
                let merged = Merged::new(file, environment, maybe(flag, "flag"), "f.toml");
                merged.get(setting.name).map(|(source, words)| (source, words[0].clone()))
            };
            let name = setting.name;
            for (environment, file) in [(false, false), (true, false), (false, true), (true, true)] {
                assert_eq!(
                    merged(file, environment, true),
                    Some((Source::Flag, "flag".to_owned())),
                    "{name}"
                );
            }
            let environment = Some((Source::Environment, "environment".to_owned()));
            assert_eq!(merged(true, true, false), environment, "{name}");
            assert_eq!(merged(false, true, false), environment, "{name}");
            assert_eq!(merged(true, false, false), Some((Source::File, "file".to_owned())), "{name}");
            let default = match setting.default {
                Preset::Is(value) => Some((Source::Default, value.to_owned())),
                Preset::Depends(_) => None,
            };
            assert_eq!(merged(false, false, false), default, "{name}");
        }
    }

    #[test]
    fn a_list_replaces_the_list_of_a_weaker_source() {
        let file = Layer::from([("stream", vec!["a".to_owned(), "b".to_owned()])]);
        let flags = Layer::from([("stream", vec!["c".to_owned()])]);
        let merged = Merged::new(file, Layer::new(), flags, "f.toml");
        assert_eq!(merged.many("stream", |word| Ok(word.to_owned())).unwrap(), ["c"]);
    }

    #[test]
    fn an_error_names_the_setting_as_its_source_does() {
        let setting = setting("heartbeat_secs").unwrap();
        let empty = Layer::new;
        let refuse = |merged: Merged| {
            merged.value("heartbeat_secs", |_| Err::<(), _>("is odd".to_owned())).unwrap_err().to_string()
        };
        let wrong = || layer(setting, "x");
        assert_eq!(refuse(Merged::new(empty(), empty(), wrong(), "")), "--heartbeat-secs: `x` is odd");
        assert_eq!(refuse(Merged::new(empty(), wrong(), empty(), "")), "TIDINGS_HEARTBEAT_SECS: `x` is odd");
        assert_eq!(
            refuse(Merged::new(wrong(), empty(), empty(), "f.toml")),
            "`heartbeat_secs` in f.toml: `x` is odd"
        );
    }

    #[test]
    fn every_setting_is_a_flag_of_its_kind() {
        for setting in SETTINGS {
            let parse = |args: &[String]| {
                let command = SettingFlags::augment_args(Command::new("test").no_binary_name(true));
                SettingFlags::from_arg_matches(&command.try_get_matches_from(args)?)
            };
            let flag = setting.flag();
            let given = |args: &[String]| parse(args).unwrap().flags.remove(setting.name);
            assert_eq!(given(&[]), None);
            match setting.kind {
                Kind::Flag => {
                    assert_eq!(given(std::slice::from_ref(&flag)), Some(vec!["true".to_owned()]));
                    assert_eq!(given(&[format!("{flag}=false")]), Some(vec!["false".to_owned()]));
                }
                Kind::Texts | Kind::Urls => {
                    let twice = [flag.clone(), "a".to_owned(), flag.clone(), "b".to_owned()];
                    assert_eq!(given(&twice), Some(vec!["a".to_owned(), "b".to_owned()]));
                }
                _ => {
                    assert_eq!(given(&[flag.clone(), "-7".to_owned()]), Some(vec!["-7".to_owned()]));
                    assert!(parse(&[flag.clone(), "a".to_owned(), flag, "b".to_owned()]).is_err());
                }
            }
        }
    }

    #[test]
    fn a_variable_may_hold_a_list_and_an_empty_one_counts_as_absent() {
        let [one, many] = ["public_url", "stream"].map(|name| setting(name).unwrap());
        let parsed = |setting, word: &str| from_variable(setting, vec![word.to_owned()]);
        assert_eq!(parsed(one, ""), None);
        assert_eq!(parsed(one, "a,b"), Some(vec!["a,b".to_owned()]));
        assert_eq!(parsed(many, ""), None);
        assert_eq!(parsed(many, "a, b"), Some(vec!["a".to_owned(), "b".to_owned()]));
        let urls = ["redis://h?channels=a,b".to_owned(), "redis://i?channels=c".to_owned()];
        assert_eq!(parsed(setting("bridge").unwrap(), &urls.join(" ")), Some(urls.to_vec()));
    }

    #[test]
    fn a_file_sets_what_flags_set() {
        let read = |text: &str| from_file(&mut text.parse().unwrap(), "f.toml");
        let layer =
            read("heartbeat_secs = 7\nretain_bytes = \"1MiB\"\nstream = [\"a\"]\nno_auth = true").unwrap();
        let expected =
            [("heartbeat_secs", "7"), ("no_auth", "true"), ("retain_bytes", "1MiB"), ("stream", "a")];
        assert_eq!(layer, expected.map(|(name, word)| (name, vec![word.to_owned()])).into());
        for wrong in [
            "no_auth = \"true\"",
            "heartbeat_secs = 1.5",
            "stream = [7]",
            "public_url = [\"a\"]",
            "listen = true",
            "listen = [8080]",
        ] {
            let message = read(wrong).unwrap_err().to_string();
            assert!(message.contains("in f.toml must be "), "{message}");
        }
    }
}
