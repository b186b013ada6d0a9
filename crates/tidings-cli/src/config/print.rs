//! The effective configuration in the format of the file, complete except for secrets.

use std::fmt::Write;

use super::{
    access::Access,
    acme::Acme,
    authorize::Authorize,
    certificates::CertificateTables,
    hooks::HookTables,
    layers::{Merged, shown},
    retention::Retention,
    settings::{Kind, Preset, SETTINGS, Setting},
    values,
};

pub(super) fn to_toml(
    merged: &Merged,
    access: &Access,
    certificates: &CertificateTables,
    acme: &Acme,
    retention: &Retention,
    authorize: &Authorize,
    hooks: &HookTables,
) -> String {
    let authorize = authorize.effective(merged);
    let mut text = String::new();
    for setting in SETTINGS {
        let line = match merged.get(setting.name) {
            Some(_) if setting.name == "authorize" && authorize.has_tables() => {
                "# authorize: see [[authorize]]".to_owned()
            }
            Some((source, words)) => format!("{} = {}  # {source}", setting.name, value(setting, words)),
            None => match setting.default {
                Preset::Is(default) | Preset::Depends(default) => format!("# {}: {default}", setting.name),
            },
        };
        writeln!(text, "{line}").expect("writing to a string cannot fail");
    }
    text += &toml::to_string(access).expect("strings and lists of strings serialize");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text += &toml::to_string(certificates).expect("paths that were read from TOML serialize");
    text += &toml::to_string(acme).expect("strings and paths that were read from TOML serialize");
    text += &toml::to_string(retention).expect("strings and numbers serialize");
    text += &toml::to_string(&authorize).expect("strings and numbers serialize");
    text + &toml::to_string(&hooks.shown()).expect("strings and numbers serialize")
}

/// A value as the file has it.
pub(super) fn value(setting: &Setting, words: &[String]) -> toml::Value {
    let text = |word: &String| toml::Value::String(shown(setting.name, word).into_owned());
    match (setting.kind, words) {
        (Kind::Texts | Kind::Urls, words) => toml::Value::Array(words.iter().map(text).collect()),
        (kind, [word]) => {
            let number = word.parse().ok().filter(|_| kind == Kind::Number).map(toml::Value::Integer);
            let truth = values::truth(word).ok().filter(|_| setting.is_boolean()).map(toml::Value::Boolean);
            number.or(truth).unwrap_or_else(|| text(word))
        }
        (_, words) => toml::Value::Array(words.iter().map(text).collect()),
    }
}
