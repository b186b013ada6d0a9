//! Names that belong to the one that gave them.
//!
//! Two tenants of one hub may choose the same name for something of their own, an idempotency key above all. Neither may meet the
//! other's, by chance or on purpose. So the hub keeps a digest of the name together with whose it is. Every part goes in with its length: no
//! choice of characters makes two different lists of parts one.

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{Access, Subject};

impl Access {
    /// Stands for this name in the mouth of this credential: 43 letters, digits, `-` and `_`, whatever the name is.
    ///
    /// The same name gives the same result for one key, by its name in the configuration, and for all tokens of one `sub`, so that a
    /// token that was renewed meanwhile still finds what the old one named. A token without `sub` belongs to those with the same rights to
    /// publish, in the same order. A hub without keys has one scope.
    pub fn scoped(&self, name: &str) -> String {
        let mut digest = Context::new(&SHA256);
        let mut add = |part: &str| {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        };
        match &self.subject {
            Subject::Anonymous => add("anonymous"),
            Subject::Everybody => add("everybody"),
            Subject::Key(key) => ["key", key].into_iter().for_each(&mut add),
            Subject::Token(Some(subject)) => ["token", subject].into_iter().for_each(&mut add),
            Subject::Token(None) => {
                add("nameless token");
                for matcher in self.publish.matchers() {
                    add(matcher.type_name());
                    add(matcher.as_str());
                }
            }
        }
        add(name);
        URL_SAFE_NO_PAD.encode(digest.finish())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tidings_topic::{Grants, Validator};

    use super::*;

    fn access(subject: Subject, publish: &[&str]) -> Access {
        let validator = Validator::default();
        let exact = |topic: &&str| validator.exact(topic).expect("a topic");
        Access::new(subject, publish.iter().map(exact).collect(), Grants::NONE)
    }

    fn key(name: &str) -> Access {
        access(Subject::Key(name.into()), &["chat"])
    }

    fn token(subject: Option<&str>, publish: &[&str]) -> Access {
        access(Subject::Token(subject.map(Into::into)), publish)
    }

    #[test]
    fn a_name_belongs_to_those_who_gave_it_and_no_choice_of_characters_reaches_another() {
        let named = [
            (key("a"), "k"),
            (key("a"), "K"),
            (key("b"), "k"),
            (key("ak"), ""),
            (key(""), "ak"),
            (key("a\u{1}k"), "k"),
            (token(Some("a"), &["chat"]), "k"),
            (token(None, &["a"]), "k"),
            (token(None, &["a", "b"]), "k"),
            (token(None, &["ab"]), "k"),
            (token(None, &[]), "k"),
            (Access::everything(), "k"),
            (Access::anonymous(), "k"),
        ];
        let scoped: HashSet<_> = named.iter().map(|(access, name)| access.scoped(name)).collect();
        assert_eq!(scoped.len(), named.len());
    }

    #[test]
    fn rights_and_time_do_not_change_what_a_name_stands_for() {
        let renewed = token(Some("app"), &["chat", "news"]).until(7, Vec::new());
        assert_eq!(token(Some("app"), &["chat"]).scoped("k"), renewed.scoped("k"));
        assert_eq!(key("app").scoped("k"), access(Subject::Key("app".into()), &[]).scoped("k"));
    }

    #[test]
    fn however_long_the_name_what_stands_for_it_is_short_and_plain() {
        for name in ["", "k", "two \"words\"", &"k".repeat(10_000)] {
            let scoped = Access::everything().scoped(name);
            assert_eq!(scoped.len(), 43);
            assert!(scoped.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        }
    }
}
