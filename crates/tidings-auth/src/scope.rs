//! Names scoped by credential.
//!
//! Two tenants of one hub may choose the same name, above all the same idempotency key. They must
//! not collide, by chance or on purpose. So the hub keeps a digest of the name and its holder.
//! Every part is hashed with its length: no choice of characters makes two different lists of parts
//! equal.

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{Access, Subject};

impl Access {
    /// This name, scoped to this credential: 43 letters, digits, `-` and `_`, whatever the name is.
    ///
    /// The same name gives the same result for one key, by its name in the configuration, and for
    /// all tokens of one `sub` of one issuer, so that a renewed token has the scope of the old one.
    /// Tokens of one issuer without `sub` share a scope if they have the same publish grants, in the
    /// same order. A hub without keys has one scope.
    pub fn scoped(&self, name: &str) -> String {
        let mut digest = Context::new(&SHA256);
        let mut add = |part: &str| {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        };
        // Two issuers may know different users by the same name.
        add(self.issuer.as_deref().unwrap_or_default());
        match &self.subject {
            Subject::Anonymous => add("anonymous"),
            Subject::Everybody => add("everybody"),
            Subject::Application => add("application"),
            Subject::Key(key) => ["key", key].into_iter().for_each(&mut add),
            Subject::Token(Some(subject)) => ["token", subject].into_iter().for_each(&mut add),
            // A ticket never publishes, so these scopes are never used.
            Subject::Ticket(label) => {
                ["ticket", label.as_deref().unwrap_or_default()].into_iter().for_each(&mut add);
            }
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
    fn scoped_names_of_different_credentials_never_collide() {
        let named = [
            (key("a"), "k"),
            (key("a"), "K"),
            (key("b"), "k"),
            (key("ak"), ""),
            (key(""), "ak"),
            (key("a\u{1}k"), "k"),
            (token(Some("a"), &["chat"]), "k"),
            (token(Some("a"), &["chat"]).of_issuer(&"https://a.example".into()), "k"),
            (token(Some("a"), &["chat"]).of_issuer(&"https://b.example".into()), "k"),
            (token(None, &["a"]).of_issuer(&"https://b.example".into()), "k"),
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
    fn grants_and_expiry_do_not_change_a_scoped_name() {
        let renewed = token(Some("app"), &["chat", "news"]).until(Some(7), Vec::new());
        assert_eq!(token(Some("app"), &["chat"]).scoped("k"), renewed.scoped("k"));
        assert_eq!(key("app").scoped("k"), access(Subject::Key("app".into()), &[]).scoped("k"));
    }

    #[test]
    fn a_scoped_name_is_short_and_plain_for_any_name() {
        for name in ["", "k", "two \"words\"", &"k".repeat(10_000)] {
            let scoped = Access::everything().scoped(name);
            assert_eq!(scoped.len(), 43);
            assert!(scoped.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        }
    }
}
