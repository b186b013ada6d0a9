//! `[[retention]]`: how long the events of some topics are kept. Rules can only be set in the
//! configuration file, because their order matters.

use serde::{Deserialize, Serialize};
use tidings::Validator;
#[cfg(unix)]
use tidings::{Matcher, log::RetentionRule};

use super::values;
use crate::{
    failure::Failure,
    store::{Keeping, Store},
};

/// All rules, as they were written.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Retention {
    #[serde(rename = "retention", skip_serializing_if = "Vec::is_empty")]
    rules: Vec<RuleTable>,
    #[serde(skip)]
    file_name: String,
}

/// A `[[retention]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    exact: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
}

/// A number of bytes, with a unit or without.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "`bytes` must be a size such as \"10MiB\"")]
enum Size {
    Text(String),
    Bytes(u64),
}

impl Retention {
    /// Takes its tables out of a parsed file.
    pub(super) fn take_from(file: &mut toml::Table, file_name: &str) -> Result<Self, Failure> {
        let mut retention = Self { rules: Vec::new(), file_name: file_name.to_owned() };
        let tables = match file.remove("retention") {
            None => Vec::new(),
            Some(toml::Value::Array(tables)) => tables,
            Some(_) => {
                return Err(Failure::usage(format!(
                    "`retention` in {file_name} must be written as [[retention]]"
                )));
            }
        };
        for (index, table) in tables.into_iter().enumerate() {
            let rule = table.try_into().map_err(|error: toml::de::Error| {
                Failure::usage(format!("{}: {}", retention.place(index), error.message()))
            })?;
            retention.rules.push(rule);
        }
        Ok(retention)
    }

    /// Moves the rules into `keeping`, or refuses a store that has no support for them.
    pub(crate) fn put_into(&self, keeping: &mut Keeping, validator: &Validator) -> Result<(), Failure> {
        if !self.rules.is_empty() && !matches!(keeping.store, Store::Directory(_)) {
            return Err(Failure::usage(format!(
                "[[retention]] in {} needs a store in a directory (--store DIR): other stores keep all topics equally long",
                self.file_name
            )));
        }
        #[cfg(unix)]
        {
            if self.rules.len() > RetentionRule::COUNT_MAX {
                return Err(Failure::usage(format!(
                    "there are more than {} [[retention]] tables in {}",
                    RetentionRule::COUNT_MAX,
                    self.file_name
                )));
            }
            keeping.rules = self
                .rules
                .iter()
                .enumerate()
                .map(|(index, table)| {
                    let refuse = |reason: String| Failure::usage(format!("{}: {reason}", self.place(index)));
                    table.rule(validator).map_err(refuse)
                })
                .collect::<Result<_, _>>()?;
            for index in 0..keeping.rules.len() {
                let refuse = |reason: String| Failure::usage(format!("{}: {reason}", self.place(index)));
                takes_effect(index, keeping).map_err(refuse)?;
            }
        }
        #[cfg(not(unix))]
        let _ = validator;
        Ok(())
    }

    fn place(&self, index: usize) -> String {
        format!("[[retention]] number {} in {}", index + 1, self.file_name)
    }
}

/// Refuses a rule that never applies, or a limit beyond that of the log: it would never have an
/// effect.
#[cfg(unix)]
fn takes_effect(index: usize, keeping: &Keeping) -> Result<(), String> {
    let rule = &keeping.rules[index];
    let hides = |earlier: &RetentionRule| earlier.matcher == Matcher::Any || earlier.matcher == rule.matcher;
    if let Some(earlier) = keeping.rules[..index].iter().position(hides) {
        let number = earlier + 1;
        return Err(format!(
            "it never applies: number {number} matches the same topics, and the first rule that matches applies"
        ));
    }
    let beyond = |field: &str, setting: &str| {
        Err(format!(
            "`{field}` is beyond the limit of the log, which applies as well: raise `{setting}`, or leave it out"
        ))
    };
    if rule.age_max.zip(keeping.age_max).is_some_and(|(rule, log)| rule > log) {
        return beyond("age", "retain");
    }
    if rule.bytes_max.is_some_and(|bytes| bytes > keeping.bytes_max) {
        return beyond("bytes", "retain_bytes");
    }
    if rule.count_max.zip(keeping.count_max).is_some_and(|(rule, log)| rule > log) {
        return beyond("count", "retain_count");
    }
    Ok(())
}

#[cfg(unix)]
impl RuleTable {
    fn rule(&self, validator: &Validator) -> Result<RetentionRule, String> {
        let matcher = match (&self.exact, &self.pattern) {
            (Some(text), None) => {
                validator.exact(text).map_err(|error| format!("match: `{text}`: {error}"))?
            }
            (None, Some(text)) => {
                validator.pattern(text).map_err(|error| format!("pattern: `{text}`: {error}"))?
            }
            _ => return Err("it needs one of `match` and `pattern`".to_owned()),
        };
        let age_max = self
            .age
            .as_ref()
            .map(|word| values::time(word).map_err(|reason| format!("age: `{word}` {reason}")));
        let bytes_max = self.bytes.as_ref().map(|size| match size {
            Size::Text(word) => values::bytes(word).map_err(|reason| format!("bytes: `{word}` {reason}")),
            Size::Bytes(0) => Err("bytes: `0` is not a size: leave it out, or write 10MiB".to_owned()),
            Size::Bytes(bytes) => Ok(*bytes),
        });
        if self.count == Some(0) {
            return Err("count: `0` is not an integer of at least 1".to_owned());
        }
        let rule = RetentionRule {
            matcher,
            age_max: age_max.transpose()?,
            bytes_max: bytes_max.transpose()?,
            count_max: self.count,
        };
        if (rule.age_max, rule.bytes_max, rule.count_max) == (None, None, None) {
            return Err("it needs at least one of `age`, `bytes` and `count`".to_owned());
        }
        Ok(rule)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::Sync;

    fn keeping(store: Store) -> Keeping {
        Keeping {
            store,
            sync: Sync::Always,
            age_max: None,
            bytes_max: 1 << 30,
            count_max: None,
            rules: Vec::new(),
            has_journal: false,
        }
    }

    fn rules(text: &str, store: Store) -> Result<Vec<RetentionRule>, String> {
        let refused = |failure: Failure| failure.to_string();
        let retention = Retention::take_from(&mut text.parse().unwrap(), "f.toml").map_err(refused)?;
        let mut keeping = keeping(store);
        retention.put_into(&mut keeping, &Validator::default()).map_err(refused)?;
        Ok(keeping.rules)
    }

    fn in_directory(text: &str) -> Result<Vec<RetentionRule>, String> {
        rules(text, Store::Directory("events".into()))
    }

    const ALL: &str = "[[retention]]\nmatch = \"chat\"\nage = \"1h\"\nbytes = \"10MiB\"\ncount = 100\n\
                       [[retention]]\npattern = \"/users/:id\"\nbytes = 4096\n\
                       [[retention]]\nmatch = \"*\"\nage = \"7d\"\n";

    #[test]
    fn rules_are_read_in_order() {
        let rules = in_directory(ALL).unwrap();
        let shown: Vec<_> =
            rules.iter().map(|rule| (rule.matcher.type_name(), rule.matcher.as_str())).collect();
        assert_eq!(shown, [("exact", "chat"), ("urlpattern", "/users/:id"), ("exact", "*")]);
        assert_eq!(
            (rules[0].age_max, rules[0].bytes_max, rules[0].count_max),
            (Some(Duration::from_secs(3_600)), Some(10 << 20), Some(100))
        );
        assert_eq!((rules[1].age_max, rules[1].bytes_max, rules[1].count_max), (None, Some(4_096), None));
        assert_eq!(rules[2].matcher, tidings::Matcher::Any);
        assert_eq!(in_directory("").unwrap(), []);
    }

    #[test]
    fn printed_rules_read_back_as_the_same() {
        let retention = Retention::take_from(&mut ALL.parse().unwrap(), "f.toml").unwrap();
        let printed = toml::to_string(&retention).unwrap();
        assert_eq!(in_directory(&printed), in_directory(ALL));
    }

    #[test]
    fn a_rule_that_never_applies_is_refused() {
        let any = "[[retention]]\nmatch = \"*\"\nage = \"1h\"\n";
        let chat = "[[retention]]\nmatch = \"chat\"\nage = \"1h\"\n";
        for rules in [[any, chat], [any, any], [chat, chat]] {
            let refused = in_directory(&rules.concat()).unwrap_err();
            assert!(
                refused.contains("number 2") && refused.contains("it never applies: number 1"),
                "{refused}"
            );
        }
        assert!(in_directory(&[chat, any].concat()).is_ok());
    }

    #[test]
    fn a_limit_beyond_that_of_the_log_is_refused() {
        let validator = Validator::default();
        for (limit, part) in [
            ("age = \"8d\"", "`retain`"),
            ("bytes = \"2GiB\"", "`retain_bytes`"),
            ("count = 11", "`retain_count`"),
        ] {
            let text = format!("[[retention]]\nmatch = \"chat\"\n{limit}");
            let retention = Retention::take_from(&mut text.parse().unwrap(), "f.toml").unwrap();
            let mut keeping = keeping(Store::Directory("events".into()));
            keeping.age_max = Some(Duration::from_secs(7 * 24 * 3_600));
            keeping.count_max = Some(10);
            let refused = retention.put_into(&mut keeping, &validator).unwrap_err().to_string();
            assert!(refused.contains(part) && refused.contains("number 1 in f.toml"), "{refused}");
        }
    }

    #[test]
    fn a_store_without_support_for_rules_refuses_them() {
        let refused = rules(ALL, Store::Memory).unwrap_err();
        assert!(refused.contains("[[retention]] in f.toml") && refused.contains("--store DIR"), "{refused}");
        assert_eq!(rules("", Store::Memory).unwrap(), []);
    }

    #[test]
    fn an_error_names_its_table() {
        for (text, part) in [
            ("[retention]\nmatch = \"a\"", "[[retention]]"),
            ("[[retention]]\nage = \"1h\"", "`match` and `pattern`"),
            ("[[retention]]\nmatch = \"a\"\npattern = \"a\"\nage = \"1h\"", "`match` and `pattern`"),
            ("[[retention]]\nmatch = \"a\"", "`age`, `bytes` and `count`"),
            ("[[retention]]\nmatch = \"a\"\nage = \"soon\"", "`soon`"),
            ("[[retention]]\nmatch = \"a\"\nbytes = \"much\"", "`much`"),
            ("[[retention]]\nmatch = \"a\"\ncount = 0", "count"),
            ("[[retention]]\nmatch = \"a\"\nages = \"1h\"", "ages"),
            (
                "[[retention]]\nmatch = \"a\"\nage = \"1h\"\n[[retention]]\npattern = \"/(\"\nage = \"1h\"",
                "number 2",
            ),
        ] {
            let refused = in_directory(text).unwrap_err();
            assert!(refused.contains(part) && refused.contains("f.toml"), "{text}: {refused}");
        }
    }
}
