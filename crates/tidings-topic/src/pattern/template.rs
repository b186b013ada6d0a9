//! URI Templates (RFC 6570), matched in reverse.
//!
//! A template matches every text that it could be expanded to, whatever the values of its variables
//! are: texts, lists or pairs, and each of them may be undefined. The values themselves are not
//! extracted, so one expression for the complete template is enough.

use std::fmt::Write;

use super::{check::Check, expression::Expression};

/// The check of a template. `None` if the text is no template, or too large when compiled.
pub(super) fn template_check(text: &str) -> Option<Check> {
    let parts = parse(text)?;
    let prefix = match parts.first() {
        Some(Part::Literal(literal)) => *literal,
        _ => "",
    };
    let mut regex = String::from("^(?:");
    for part in &parts[usize::from(!prefix.is_empty())..] {
        match part {
            Part::Literal(literal) => push_literal(&mut regex, literal),
            Part::Expansion(expansion) => expansion.push_to(&mut regex),
        }
    }
    regex.push_str(")$");
    let expression = Expression::compile(&regex)?;
    Some(Check::Expression { prefix: prefix.into(), suffix: "".into(), expression })
}

/// Whether a text is a template: it has at least one expression, and all are well-formed.
pub(crate) fn is_template(text: &str) -> bool {
    parse(text).is_some()
}

/// A part of a template.
enum Part<'t> {
    Literal(&'t str),
    Expansion(Expansion<'t>),
}

/// `{…}`: what is put in its place (RFC 6570, section 2.2).
struct Expansion<'t> {
    operator: Operator,
    variables: Vec<Variable<'t>>,
}

/// A variable and its modifier (RFC 6570, section 2.4).
struct Variable<'t> {
    name: &'t str,
    modifier: Modifier,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Modifier {
    None,
    /// `:3`: the first characters of the value.
    Prefix(u16),
    /// `*`: each item of a list is a value of its own, and so is each pair.
    Explode,
}

/// A row of the table of RFC 6570, appendix A.
#[derive(Clone, Copy)]
struct Operator {
    /// Precedes the first value, if one is defined.
    first: &'static str,
    /// Separates two values.
    separator: &'static str,
    /// Whether values follow the name of their variable.
    is_named: bool,
    /// Whether reserved characters are not encoded.
    allows_reserved: bool,
}

/// `None` if there is no expression, or one that is malformed.
fn parse(text: &str) -> Option<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(brace) = rest.find(['{', '}']) {
        let (literal, from_brace) = rest.split_at(brace);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        let (expansion, after) = from_brace.strip_prefix('{')?.split_once('}')?;
        parts.push(Part::Expansion(Expansion::parse(expansion)?));
        rest = after;
    }
    if parts.is_empty() {
        return None;
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest));
    }
    Some(parts)
}

impl<'t> Expansion<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let (operator, variables) = Operator::split_from(text);
        let variables = variables.split(',').map(Variable::parse).collect::<Option<_>>()?;
        Some(Self { operator, variables })
    }

    /// Appends an expression for everything that it can be expanded to: nothing, if no variable is
    /// defined; otherwise at most one value for each variable, or any number with `*`.
    fn push_to(&self, regex: &mut String) {
        let mut values = Vec::new();
        for variable in &self.variables {
            let value = self.operator.value(variable);
            if !values.contains(&value) {
                values.push(value);
            }
        }
        let value = format!("(?:{})", values.join("|"));
        let is_exploded = self.variables.iter().any(|variable| variable.modifier == Modifier::Explode);
        let times = if is_exploded { "*".to_owned() } else { format!("{{0,{}}}", self.variables.len() - 1) };
        regex.push_str("(?:");
        push_literal(regex, self.operator.first);
        regex.push_str(&value);
        if is_exploded || self.variables.len() > 1 {
            regex.push_str("(?:");
            push_literal(regex, self.operator.separator);
            regex.push_str(&value);
            regex.push(')');
            regex.push_str(&times);
        }
        regex.push_str(")?");
    }
}

impl<'t> Variable<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let (name, modifier) = if let Some(name) = text.strip_suffix('*') {
            (name, Modifier::Explode)
        } else if let Some((name, length)) = text.split_once(':') {
            let is_number = length.len() <= 4 && length.bytes().all(|byte| byte.is_ascii_digit());
            let length = length.parse().ok().filter(|_| is_number && !length.starts_with('0'))?;
            (name, Modifier::Prefix(length))
        } else {
            (text, Modifier::None)
        };
        is_name(name).then_some(Self { name, modifier })
    }
}

/// RFC 6570, section 2.3: words of letters, digits, `_` and percent-encodings, separated by dots.
fn is_name(name: &str) -> bool {
    name.split('.').all(|word| {
        let mut bytes = word.bytes();
        let mut is_valid = !word.is_empty();
        while let Some(byte) = bytes.next() {
            is_valid &= match byte {
                b'%' => (0..2).all(|_| bytes.next().is_some_and(|digit| digit.is_ascii_hexdigit())),
                _ => byte.is_ascii_alphanumeric() || byte == b'_',
            };
        }
        is_valid
    })
}

impl Operator {
    /// The operator that begins an expression, and the rest of the expression.
    fn split_from(text: &str) -> (Self, &str) {
        let plain = Self { first: "", separator: ",", is_named: false, allows_reserved: false };
        let row = match text.bytes().next() {
            Some(b'+') => Self { allows_reserved: true, ..plain },
            Some(b'#') => Self { first: "#", allows_reserved: true, ..plain },
            Some(b'.') => Self { first: ".", separator: ".", ..plain },
            Some(b'/') => Self { first: "/", separator: "/", ..plain },
            Some(b';') => Self { first: ";", separator: ";", is_named: true, ..plain },
            Some(b'?') => Self { first: "?", separator: "&", is_named: true, ..plain },
            Some(b'&') => Self { first: "&", separator: "&", is_named: true, ..plain },
            _ => return (plain, text),
        };
        (row, &text[1..])
    }

    /// An expression for one value of a variable, with its name where there is one.
    fn value(self, variable: &Variable<'_>) -> String {
        let value = self.plain_value(variable.modifier);
        if !self.is_named {
            return value;
        }
        // The items of an exploded list have the name of the variable, pairs have names of their own.
        let name = match variable.modifier {
            Modifier::Explode => format!("(?:{})+", self.unit("")),
            Modifier::None | Modifier::Prefix(_) => {
                let mut name = String::new();
                push_literal(&mut name, variable.name);
                name
            }
        };
        // RFC 6570, section 3.2.7: with `;`, the name of an empty value is not followed by `=`.
        if self.first == ";" { format!("{name}(?:={value})?") } else { format!("{name}={value}") }
    }

    fn plain_value(self, modifier: Modifier) -> String {
        match modifier {
            // The comma separates the items of a list.
            Modifier::None => format!("(?:{})*", self.unit(",")),
            Modifier::Prefix(length) => format!("(?:{}){{0,{length}}}", self.unit("")),
            // `=` is between the name and the value of a pair.
            Modifier::Explode => format!("(?:{})*", self.unit(",=")),
        }
    }

    /// An expression for one character of a value: unreserved, reserved if the operator allows it,
    /// one of these others, or percent-encoded (RFC 6570, section 1.5).
    fn unit(self, others: &str) -> String {
        let mut class = String::from("0-9A-Za-z");
        push_literal(&mut class, "-._~");
        push_literal(&mut class, if self.allows_reserved { ":/?#[]@!$&'()*+,;=" } else { others });
        format!("[{class}]|%[0-9A-Fa-f]{{2}}")
    }
}

/// Appends an expression for this text, or its characters to a class. Expressions match bytes.
fn push_literal(regex: &mut String, literal: &str) {
    for byte in literal.bytes() {
        if byte.is_ascii_alphanumeric() {
            regex.push(char::from(byte));
        } else {
            write!(regex, "\\x{byte:02X}").expect("a String accepts every text");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(template: &str, text: &str) -> bool {
        template_check(template).expect(template).admits(text)
    }

    /// Expansions from RFC 6570, section 3.2, and texts that no values expand to.
    #[test]
    fn a_template_matches_what_it_can_be_expanded_to() {
        for (template, expansions, others) in [
            ("{var}", &["value", "", "a%20b", "red,green"][..], &["a/b", "a b", "a%2", "é", "a=b"][..]),
            ("/users/{id}", &["/users/42", "/users/"], &["/users", "/users/4/2", "/users/42?a", "x/users/4"]),
            ("{x,y}", &["1024,768", "1024", ""], &["/"]),
            ("O{x:1}X", &["OX", "O1X", "O%20X"], &["O12X"]),
            ("{+host}", &["https://example.com/a?b=c#d", "[::1]:80", ""], &["a b", "<"]),
            ("{+path,x}/here", &["/foo/bar,1024/here", "/here"], &["here"]),
            ("{#x,hello,y}", &["#1024,Hello%20World!,768", "", "#"], &["1024"]),
            ("X{.list*}", &["X.red.green.blue", "X", "X.semi=%3B"], &["Xred"]),
            ("{/var,x}/here", &["/value/1024/here", "/value/here", "/here"], &["/a/b/c/here", "here"]),
            ("{/list*,path:4}", &["/red/green/blue/%2Ffoo", "/a=b/c"], &["a"]),
            ("{;x,y,empty}", &[";x=1024;y=768;empty", ";y=", ""], &[";z=1", "x=1"]),
            (
                "/b{?topic}",
                &["/b?topic=a%2Fb", "/b", "/b?topic="],
                &["/b?", "/b?topic", "/b?other=1", "/b?topic=a&topic=b"],
            ),
            ("{?x,y}", &["?x=1024&y=768", "?y=768"], &["?x=1&y=2&x=3"]),
            ("{?keys*}", &["?semi=%3B&dot=.&comma=%2C"], &["?", "?a"]),
            ("?fixed=yes{&x}", &["?fixed=yes&x=1024", "?fixed=yes"], &["?fixed=yes&y=1"]),
            ("{/topic}{/subscriber}", &["/a/b", "/a", ""], &["/a/b/c"]),
            ("é{a}é", &["éxé", "éé"], &["xé", "éx"]),
            ("a{b.c_%20}", &["a1"], &["b"]),
        ] {
            for expansion in expansions {
                assert!(matches(template, expansion), "{template} {expansion}");
            }
            for other in others {
                assert!(!matches(template, other), "{template} {other}");
            }
        }
    }

    #[test]
    fn a_text_without_well_formed_expressions_is_no_template() {
        for text in [
            "",
            "a",
            "a*",
            "{",
            "}",
            "a}",
            "{}",
            "{+}",
            "{a",
            "{a{b}}",
            "{a}}",
            "{a,}",
            "{=a}",
            "{!a}",
            "{|a}",
            "{a:0}",
            "{a:01}",
            "{a:10000}",
            "{a:x}",
            "{a:}",
            "{a b}",
            "{é}",
            "{.a.}",
            "{a..b}",
            "{%2}",
            "{*}",
            "{a**}",
            "{\"a\":1}",
        ] {
            assert!(!is_template(text), "{text}");
        }
    }

    #[test]
    fn a_template_that_is_too_large_is_refused() {
        assert!(is_template("{a:9999}") && template_check("{a:9999}").is_none());
        assert!(template_check(&"{a}".repeat(50)).is_some(), "length alone is no reason");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[{}a-c,+#./;?&:*0-9%é ]{0,24}", topic in ".{0,12}") {
            if let Some(check) = template_check(&text) {
                check.admits(&topic);
            }
        }

        /// An independent expansion of single values, for every operator.
        #[test]
        fn every_expansion_of_a_value_matches(
            operator in prop::sample::select(&["", "+", "#", ".", "/", ";", "?", "&"][..]),
            value in "[a-zA-Z0-9._~-]{1,8}",
            before in "[a-z:/]{0,8}",
            after in "[a-z/]{0,4}",
        ) {
            let expanded = match operator {
                "" | "+" => value.clone(),
                ";" | "?" | "&" => format!("{operator}v={value}"),
                first => format!("{first}{value}"),
            };
            let template = format!("{before}{{{operator}v}}{after}");
            let expanded = [&*before, &*expanded, &*after].concat();
            prop_assert!(matches(&template, &expanded), "{} {}", template, expanded);
            let without = [&*before, &*after].concat();
            prop_assert!(matches(&template, &without), "an undefined variable: {}", template);
        }
    }
}
