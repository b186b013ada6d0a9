//! Regular expressions in a pattern, bounded in memory and time.
//!
//! The components of a parsed URL are ASCII, and the character classes of a URL Pattern are those
//! of JavaScript, where `\d` and `\w` are ASCII too. Expressions therefore work on bytes and
//! without Unicode tables, which would make `\w` alone exceed the limit. Only an NFA without
//! capture groups is kept: topics are short, and the memory for a search belongs to the thread, not
//! to the pattern.

use std::{cell::RefCell, sync::OnceLock};

use regex_automata::{
    Anchored, Input,
    nfa::thompson::{
        Compiler, NFA, WhichCaptures, backtrack, backtrack::BoundedBacktracker, pikevm, pikevm::PikeVM,
    },
    util::syntax,
};
use urlpattern::{parser::RegexSyntax, regexp::RegExp};

/// Most memory of one compiled expression: this base, plus an amount in proportion to its text. A
/// long text is thus no reason to refuse a pattern, and a short one cannot expand without bound. A
/// larger expression is refused like an invalid pattern.
const COMPILED_BYTES_BASE: usize = 16 * 1024;
/// The limit per byte of the text; a plain character needs about half of it.
const COMPILED_BYTES_PER_BYTE: usize = 64;

/// The minimum weight of a search, most of which is the time to prepare it.
const WEIGHT_BASE: u32 = 60;
/// This many bytes of a compiled expression add one to its weight: a larger expression takes more
/// work per byte of the topic.
const BYTES_PER_WEIGHT: usize = 32;

/// A compiled expression, which must match the complete text.
pub(super) struct Expression(BoundedBacktracker);

impl Expression {
    /// `None` if it is invalid or too large when compiled.
    pub(super) fn compile(text: &str) -> Option<Self> {
        let bytes_max = COMPILED_BYTES_BASE + COMPILED_BYTES_PER_BYTE * text.len();
        let config =
            NFA::config().utf8(false).which_captures(WhichCaptures::None).nfa_size_limit(Some(bytes_max));
        let syntax = syntax::Config::new().unicode(false).utf8(false);
        let nfa = Compiler::new().syntax(syntax).configure(config).build(text).ok()?;
        BoundedBacktracker::builder().build_from_nfa(nfa).ok().map(Self)
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        // URL Pattern, "Generate a regular expression": it begins with `^` and ends with `$`.
        let input = Input::new(text).anchored(Anchored::Yes);
        SEARCH.with_borrow_mut(|memory| {
            let memory = memory.get_or_insert_with(|| SearchMemory::new(&self.0));
            memory.backtracking.reset(&self.0);
            if let Ok(matches) = self.0.try_is_match(&mut memory.backtracking, input.clone()) {
                return matches;
            }
            // The text is too long for the bounded backtracker; the Pike VM needs no memory per
            // position.
            let Ok(slow) = PikeVM::new_from_nfa(self.0.get_nfa().clone()) else { return false };
            memory.stepping.reset(&slow);
            slow.is_match(&mut memory.stepping, input)
        })
    }

    pub(super) fn weight(&self) -> u32 {
        let parts = self.0.get_nfa().memory_usage() / BYTES_PER_WEIGHT;
        WEIGHT_BASE + u32::try_from(parts).unwrap_or(u32::MAX / 16)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<NFA>() + self.0.get_nfa().memory_usage()
    }
}

thread_local! {
    static SEARCH: RefCell<Option<SearchMemory>> = const { RefCell::new(None) };
}

/// Scratch memory of a search, reused by later searches of the same thread: at most 256 KiB for
/// visited positions, plus a little for each state of the largest expression.
struct SearchMemory {
    backtracking: backtrack::Cache,
    stepping: pikevm::Cache,
}

impl SearchMemory {
    fn new(any: &BoundedBacktracker) -> Self {
        let slow = PikeVM::always_match().expect("the empty expression is valid");
        Self { backtracking: any.create_cache(), stepping: slow.create_cache() }
    }
}

/// An expression as the pattern parser passes it.
///
/// The parser creates one for each component and another for the component without its literal
/// ends, and uses only those of the protocol itself. Therefore an expression is compiled only when
/// it is first used.
pub(super) struct LazyExpression {
    text: String,
    compiled: OnceLock<Option<Expression>>,
}

impl LazyExpression {
    /// `None` if it is invalid or too large when compiled.
    pub(super) fn into_expression(self) -> Option<Expression> {
        self.compiled.into_inner().unwrap_or_else(|| Expression::compile(&self.text))
    }
}

impl RegExp for LazyExpression {
    fn syntax() -> RegexSyntax {
        RegexSyntax::Rust
    }

    fn parse(pattern: &str, _flags: &str, _force_eval: bool) -> Result<Self, ()> {
        Ok(Self { text: pattern.to_owned(), compiled: OnceLock::new() })
    }

    // The captured groups are never used.
    fn matches<'a>(&self, text: &'a str) -> Option<Vec<Option<&'a str>>> {
        let compiled = self.compiled.get_or_init(|| Expression::compile(&self.text));
        compiled.as_ref().is_some_and(|expression| expression.matches(text)).then(Vec::new)
    }

    fn pattern_string(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_too_long_for_the_backtracker_is_still_matched() {
        let expression = Expression::compile("^(?:/([\\w.+-]{1,64})*)$").expect("an expression");
        let long = format!("/{}", "a".repeat(60_000));
        assert!(long.len() > expression.0.max_haystack_len());
        assert!(expression.matches(&long) && !expression.matches(&format!("{long}?")));
        assert!(expression.matches("/a") && !expression.matches("a"));
    }

    #[test]
    fn searches_of_different_expressions_share_their_memory() {
        let [digits, words] =
            ["^(\\d+)$", "^(?:(\\w+)-?)+$"].map(|text| Expression::compile(text).expect("valid"));
        for _ in 0..3 {
            assert!(digits.matches("123") && !digits.matches("12a") && !digits.matches(""));
            assert!(words.matches("one-two") && !words.matches("one two"));
        }
    }
}
