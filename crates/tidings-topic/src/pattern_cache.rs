//! A cache of patterns that are in use or were compiled recently, so that each text is compiled and
//! stored once.
//!
//! Refused texts are cached as well: requesting the same invalid pattern again costs nothing. The
//! least recently requested patterns are evicted first, except those in use, whose number the
//! limits of the hub bound.

use std::{collections::HashMap, fmt, sync::Mutex};

use crate::Pattern;

/// Most memory of one generation of patterns that are not in use; there are two generations.
const UNUSED_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The approximate memory of a cache entry in addition to its text and pattern.
const ENTRY_BYTES: usize = 96;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct PatternCache(Mutex<Generations>);

/// A requested text moves to the young generation. When that is full, it becomes the old one, and
/// the rest of the previous old one is evicted.
#[derive(Default)]
struct Generations {
    young: HashMap<Box<str>, Known>,
    old: HashMap<Box<str>, Known>,
    young_bytes: usize,
    /// The part of `young_bytes` that was in use when the generation began.
    used_bytes: usize,
}

/// `None`: the text is not a usable pattern.
type Known = Option<Pattern>;

impl PatternCache {
    /// The cached result for a text, if any.
    pub(crate) fn get(&self, text: &str) -> Option<Known> {
        self.0.lock().expect("no code panics while it holds the lock").get(text)
    }

    /// Caches the result for a text. Returns the result that another thread has cached meanwhile,
    /// if any.
    pub(crate) fn put(&self, text: &str, known: Known) -> Known {
        let mut generations = self.0.lock().expect("no code panics while it holds the lock");
        if let Some(known) = generations.get(text) {
            return known;
        }
        generations.put(text.into(), known.clone());
        known
    }
}

impl Generations {
    fn get(&mut self, text: &str) -> Option<Known> {
        if let Some(known) = self.young.get(text) {
            return Some(known.clone());
        }
        let (text, known) = self.old.remove_entry(text)?;
        self.put(text, known.clone());
        Some(known)
    }

    fn put(&mut self, text: Box<str>, known: Known) {
        self.young_bytes += bytes_of(&text, &known);
        self.young.insert(text, known);
        if self.young_bytes - self.used_bytes <= UNUSED_BYTES_MAX {
            return;
        }
        let is_used = |known: &Known| known.as_ref().is_some_and(Pattern::is_in_use);
        let before = std::mem::take(&mut self.old);
        let mut next: HashMap<_, _> = before.into_iter().filter(|(_, known)| is_used(known)).collect();
        std::mem::swap(&mut self.old, &mut self.young);
        std::mem::swap(&mut self.young, &mut next);
        self.young_bytes = self.young.iter().map(|(text, known)| bytes_of(text, known)).sum();
        self.used_bytes = self.young_bytes;
    }
}

fn bytes_of(text: &str, known: &Known) -> usize {
    ENTRY_BYTES + text.len() + known.as_ref().map_or(0, Pattern::memory_bytes)
}

impl fmt::Debug for PatternCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PatternCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Matcher, Validator};

    fn compile(validator: &Validator, text: &str) -> Pattern {
        match validator.pattern(text) {
            Ok(Matcher::Pattern(pattern)) => pattern,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_text_in_use_is_stored_once() {
        let validator = Validator::default();
        let used = compile(&validator, "/used/:id");
        assert!(used.is_same(&compile(&validator.clone(), "/used/:id")), "clones share the cache");
        for number in 0..20_000 {
            compile(&validator, &format!("/flood/{number}/:id"));
        }
        assert!(used.is_same(&compile(&validator, "/used/:id")));
    }

    #[test]
    fn unused_patterns_are_bounded_and_evicted() {
        let cache = PatternCache::default();
        let text = "x".repeat(4_000);
        for number in 0..2_000 {
            assert_eq!(cache.put(&format!("{number}{text}"), None), None);
            let generations = cache.0.lock().expect("unpoisoned");
            let bytes = |known: &HashMap<Box<str>, Known>| known.keys().map(|text| text.len()).sum::<usize>();
            assert!(bytes(&generations.young) + bytes(&generations.old) <= 2 * UNUSED_BYTES_MAX + 5_000);
        }
        assert_eq!((cache.get(&format!("0{text}")), cache.get(&format!("1999{text}"))), (None, Some(None)));
    }

    #[test]
    fn a_requested_text_stays_cached() {
        let cache = PatternCache::default();
        let text = "x".repeat(4_000);
        cache.put("wanted", None);
        for number in 0..2_000 {
            cache.put(&format!("{number}{text}"), None);
            assert_eq!(cache.get("wanted"), Some(None), "{number}");
        }
    }
}
