//! An index of patterns, which finds the few that must be compared with a topic.
//!
//! Each pattern is stored in a radix tree at its literal beginning: `/users/:id` at
//! `https://hub.example/users/`. A lookup follows the URL of a topic down the tree, and compares it
//! only with the patterns on this path, its candidates. A URI Template has a tree for the text of
//! topics instead of their URLs. A pattern without a literal beginning, such
//! as `/:a(\d+)x`, is a candidate for every topic, and many patterns can share a beginning. The
//! index therefore limits both the number of patterns and the total [weight](Pattern::weight) of
//! the candidates of any topic.
//!
//! A clone is a snapshot: it shares the nodes, so it costs a few reference counts, and topics can be
//! compared with it while the index changes. A change copies the nodes on its path that a snapshot
//! still shares.

use std::sync::Arc;

use url::{Position, Url};

use crate::{
    Pattern, Topic, TopicUrls,
    pattern::{Beginning, same_url},
};

/// The limits of a pattern index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PatternLimits {
    /// Most distinct patterns.
    pub count_max: usize,
    /// Most total weight of the candidates of one topic.
    pub weight_max: u32,
}

/// Why a pattern cannot be added to an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PatternsFull {
    /// The index already has [`count_max`](PatternLimits::count_max) patterns.
    Count,
    /// The candidates that share the beginning of this pattern would exceed
    /// [`weight_max`](PatternLimits::weight_max).
    Weight,
}

/// An index of distinct patterns, each with a value. Clones are cheap: they share what has not
/// changed since.
#[derive(Clone, Debug)]
pub struct PatternIndex<T> {
    /// The base URL of the URL Patterns in the trees.
    hub_url: Option<Arc<Url>>,
    /// Patterns by the beginning of the complete URL. None until there is one.
    by_url: Option<Arc<Node<T>>>,
    /// Patterns that leave scheme, host or port open, by the beginning of the path.
    by_path: Option<Arc<Node<T>>>,
    /// URI Templates, by the beginning of the text of the topic.
    by_text: Option<Arc<Node<T>>>,
    /// Patterns that are based on another hub URL. The hub that owns this index creates none.
    foreign: Vec<(Pattern, T)>,
    count: usize,
}

impl<T> Default for PatternIndex<T> {
    fn default() -> Self {
        Self { hub_url: None, by_url: None, by_path: None, by_text: None, foreign: Vec::new(), count: 0 }
    }
}

impl<T> PatternIndex<T> {
    /// The number of patterns.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether the index is empty.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The value of a pattern.
    pub fn get(&self, pattern: &Pattern) -> Option<&T> {
        if self.is_foreign(pattern) {
            let mut foreign = self.foreign.iter();
            return foreign.find_map(|(known, value)| (known == pattern).then_some(value));
        }
        let (root, beginning) = match pattern.beginning() {
            Beginning::Url(beginning) => (&self.by_url, beginning),
            Beginning::Path(beginning) => (&self.by_path, beginning),
            Beginning::Text(beginning) => (&self.by_text, beginning),
        };
        root.as_ref()?.get(beginning.as_bytes(), pattern)
    }

    /// The values of all patterns, in no particular order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        let mut nodes: Vec<_> = self.by_url.iter().chain(&self.by_path).chain(&self.by_text).collect();
        let in_trees = std::iter::from_fn(move || {
            let node = nodes.pop()?;
            nodes.extend(&node.children);
            Some(&node.patterns)
        });
        in_trees.flatten().chain(&self.foreign).map(|(_, value)| value)
    }

    /// Calls `matched` once with the value of each pattern that matches one of these topics.
    /// Returns the total weight of the candidates that were compared.
    pub fn for_each_match<'a>(&'a self, topics: &TopicUrls<'_>, mut matched: impl FnMut(&'a T)) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let mut work = 0;
        if let Some(by_text) = &self.by_text {
            let topics = topics.topics();
            for (index, topic) in topics.iter().enumerate() {
                let admits = |pattern: &Pattern, topic: &Topic| pattern.matches_text(topic.as_str());
                by_text.for_each_on_path(topic.as_str().as_bytes(), &mut |pattern, value| {
                    work += u64::from(pattern.weight());
                    let is_new = || !topics[..index].iter().any(|earlier| admits(pattern, earlier));
                    if admits(pattern, topic) && is_new() {
                        matched(value);
                    }
                });
            }
        }
        let Some(hub_url) = &self.hub_url else { return work };
        let urls = topics.based_on(hub_url);
        for (index, url) in urls.iter().enumerate() {
            let Some(url) = url else { continue };
            self.for_each_candidate(url, |pattern, value| {
                work += u64::from(pattern.weight());
                let is_new = || !urls[..index].iter().flatten().any(|earlier| pattern.matches_url(earlier));
                if pattern.matches_url(url) && is_new() {
                    matched(value);
                }
            });
        }
        for (pattern, value) in &self.foreign {
            work += u64::from(pattern.weight());
            if topics.match_pattern(pattern) {
                matched(value);
            }
        }
        work
    }

    fn for_each_candidate<'a>(&'a self, url: &Url, mut visit: impl FnMut(&'a Pattern, &'a T)) {
        if let Some(by_path) = &self.by_path {
            by_path.for_each_on_path(url.path().as_bytes(), &mut visit);
        }
        let Some(by_url) = self.by_url.as_ref().filter(|_| url.has_host()) else { return };
        if url.username().is_empty() && url.password().is_none() {
            by_url.for_each_on_path(url[..Position::AfterPath].as_bytes(), &mut visit);
        } else {
            let place = [url.scheme(), "://", &url[Position::BeforeHost..Position::AfterPath]].concat();
            by_url.for_each_on_path(place.as_bytes(), &mut visit);
        }
    }

    fn is_foreign(&self, pattern: &Pattern) -> bool {
        let bases = self.hub_url.as_ref().zip(pattern.hub_url());
        bases.is_some_and(|(own, its)| !same_url(own, its))
    }
}

impl<T: Clone> PatternIndex<T> {
    /// The value of a pattern, to be changed.
    pub fn get_mut(&mut self, pattern: &Pattern) -> Option<&mut T> {
        if self.is_foreign(pattern) {
            let mut foreign = self.foreign.iter_mut();
            return foreign.find_map(|(known, value)| (known == pattern).then_some(value));
        }
        let (root, beginning) = self.tree(pattern);
        root.get_mut(beginning, pattern)
    }

    /// Adds a pattern that is not in the index yet, within the limits.
    pub fn insert(&mut self, pattern: Pattern, value: T, limits: PatternLimits) -> Result<(), PatternsFull> {
        if self.count >= limits.count_max {
            return Err(PatternsFull::Count);
        }
        if self.count == 0 {
            self.hub_url = None;
        }
        if self.hub_url.is_none() {
            self.hub_url = pattern.hub_url().cloned();
        }
        let foreign: u32 = self.foreign.iter().map(|(pattern, _)| pattern.weight()).sum();
        let [by_url, by_path, by_text] = [&self.by_url, &self.by_path, &self.by_text]
            .map(|root| root.as_ref().map_or(0, |root| root.heaviest));
        // A topic is compared with candidates of all trees.
        let others = match pattern.beginning() {
            Beginning::Url(_) => [by_path, by_text],
            Beginning::Path(_) => [by_url, by_text],
            Beginning::Text(_) => [by_url, by_path],
        };
        if self.is_foreign(&pattern) {
            self.foreign.push((pattern, value));
            self.count += 1;
            return Ok(());
        }
        let (root, beginning) = self.tree(&pattern);
        let together = [foreign, root.heaviest_through(beginning), pattern.weight()];
        if together.into_iter().chain(others).fold(0, u32::saturating_add) > limits.weight_max {
            return Err(PatternsFull::Weight);
        }
        root.insert(beginning, pattern.clone(), value);
        self.count += 1;
        Ok(())
    }

    /// Removes a pattern.
    pub fn remove(&mut self, pattern: &Pattern) -> Option<T> {
        let value = if self.is_foreign(pattern) {
            let index = self.foreign.iter().position(|(known, _)| known == pattern)?;
            self.foreign.swap_remove(index).1
        } else {
            let (root, beginning) = self.tree(pattern);
            root.remove(beginning, pattern)?
        };
        self.count -= 1;
        Some(value)
    }

    /// The tree that a pattern belongs to, and its key there.
    fn tree<'p>(&mut self, pattern: &'p Pattern) -> (&mut Node<T>, &'p [u8]) {
        let (root, beginning) = match pattern.beginning() {
            Beginning::Url(beginning) => (&mut self.by_url, beginning),
            Beginning::Path(beginning) => (&mut self.by_path, beginning),
            Beginning::Text(beginning) => (&mut self.by_text, beginning),
        };
        let root = root.get_or_insert_with(|| Arc::new(Node::new(b"")));
        (Arc::make_mut(root), beginning.as_bytes())
    }
}

/// A node of a tree.
#[derive(Clone, Debug)]
struct Node<T> {
    /// The text after that of the parent node.
    label: Box<[u8]>,
    /// Sorted by the first bytes of their labels, no two of which are equal.
    children: Vec<Arc<Node<T>>>,
    /// The patterns whose beginning ends here.
    patterns: Vec<(Pattern, T)>,
    /// Weight of the heaviest path from here downwards, this node included.
    heaviest: u32,
}

impl<T> Node<T> {
    fn new(label: &[u8]) -> Self {
        Self { label: label.into(), children: Vec::new(), patterns: Vec::new(), heaviest: 0 }
    }

    /// The index of the child whose label begins with this byte, or where to insert it.
    fn child(&self, first: u8) -> Result<usize, usize> {
        self.children.binary_search_by_key(&first, |child| child.label[0])
    }

    fn for_each_on_path<'a>(&'a self, mut rest: &[u8], visit: &mut impl FnMut(&'a Pattern, &'a T)) {
        let mut node = self;
        loop {
            for (pattern, value) in &node.patterns {
                visit(pattern, value);
            }
            let Some(first) = rest.first() else { return };
            let Ok(index) = node.child(*first) else { return };
            node = &node.children[index];
            let Some(after) = rest.strip_prefix(&*node.label) else { return };
            rest = after;
        }
    }

    /// The maximum weight of the candidates of a topic that begins with this text.
    fn heaviest_through(&self, mut rest: &[u8]) -> u32 {
        let mut node = self;
        let mut above = 0_u32;
        while let Some(first) = rest.first() {
            above += node.weight();
            let Ok(index) = node.child(*first) else { return above };
            node = &node.children[index];
            match rest.strip_prefix(&*node.label) {
                Some(after) => rest = after,
                None if node.label.starts_with(rest) => break,
                None => return above,
            }
        }
        above + node.heaviest
    }

    fn get(&self, rest: &[u8], pattern: &Pattern) -> Option<&T> {
        let Some(first) = rest.first() else {
            return self.patterns.iter().find_map(|(known, value)| (known == pattern).then_some(value));
        };
        let child = &self.children[self.child(*first).ok()?];
        child.get(rest.strip_prefix(&*child.label)?, pattern)
    }

    fn weight(&self) -> u32 {
        self.patterns.iter().map(|(pattern, _)| pattern.weight()).sum()
    }
}

impl<T: Clone> Node<T> {
    fn get_mut(&mut self, rest: &[u8], pattern: &Pattern) -> Option<&mut T> {
        let Some(first) = rest.first() else {
            return self.patterns.iter_mut().find_map(|(known, value)| (known == pattern).then_some(value));
        };
        let index = self.child(*first).ok()?;
        let child = Arc::make_mut(&mut self.children[index]);
        child.get_mut(rest.strip_prefix(&*child.label)?, pattern)
    }

    fn insert(&mut self, rest: &[u8], pattern: Pattern, value: T) {
        if let Some(first) = rest.first() {
            let index = self.child(*first).unwrap_or_else(|index| {
                self.children.insert(index, Arc::new(Self::new(rest)));
                index
            });
            let child = Arc::make_mut(&mut self.children[index]);
            let common = child.label.iter().zip(rest).take_while(|(one, other)| one == other).count();
            if common < child.label.len() {
                child.split(common);
            }
            child.insert(&rest[common..], pattern, value);
        } else {
            self.patterns.push((pattern, value));
        }
        self.weigh();
    }

    /// Splits this node after this many bytes of its label.
    fn split(&mut self, common: usize) {
        let mut below = Self::new(&self.label[common..]);
        std::mem::swap(&mut below.children, &mut self.children);
        std::mem::swap(&mut below.patterns, &mut self.patterns);
        below.heaviest = self.heaviest;
        self.label = self.label[..common].into();
        self.children.push(Arc::new(below));
    }

    fn remove(&mut self, rest: &[u8], pattern: &Pattern) -> Option<T> {
        let value = if let Some(first) = rest.first() {
            let index = self.child(*first).ok()?;
            let child = Arc::make_mut(&mut self.children[index]);
            let value = child.remove(rest.strip_prefix(&*child.label)?, pattern)?;
            child.join_only_child();
            if child.patterns.is_empty() && child.children.is_empty() {
                self.children.remove(index);
            }
            value
        } else {
            let index = self.patterns.iter().position(|(known, _)| known == pattern)?;
            self.patterns.swap_remove(index).1
        };
        self.weigh();
        Some(value)
    }

    /// Merges a node that has no patterns with its only child.
    fn join_only_child(&mut self) {
        if self.patterns.is_empty()
            && self.children.len() == 1
            && let Some(child) = self.children.pop()
        {
            let mut child = Arc::unwrap_or_clone(child);
            child.label = [&*self.label, &*child.label].concat().into();
            *self = child;
        }
    }

    fn weigh(&mut self) {
        let below = self.children.iter().map(|child| child.heaviest).max();
        self.heaviest = self.weight() + below.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Matcher, PatternSyntax, Validator};

    const UNLIMITED: PatternLimits = PatternLimits { count_max: usize::MAX, weight_max: u32::MAX };

    fn pattern(text: &str) -> Pattern {
        match Validator::default().pattern(text) {
            Ok(Matcher::Pattern(pattern)) => pattern,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn index(texts: &[&str]) -> PatternIndex<String> {
        let mut index = PatternIndex::default();
        for text in texts {
            index.insert(pattern(text), (*text).to_owned(), UNLIMITED).expect("within the limits");
        }
        index
    }

    fn template(text: &str) -> Pattern {
        match Validator::default().matcher(PatternSyntax::UriTemplate, text) {
            Ok(Matcher::Pattern(pattern)) => pattern,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn matches(index: &PatternIndex<String>, topics: &[&str]) -> (Vec<String>, u64) {
        let topics: Vec<_> = topics.iter().map(|text| Topic::new_unchecked(text)).collect();
        let mut found = Vec::new();
        let work = index.for_each_match(&TopicUrls::new(&topics), |value| found.push(value.clone()));
        found.sort_unstable();
        (found, work)
    }

    #[test]
    fn a_topic_is_compared_only_with_patterns_that_share_its_beginning() {
        let texts: Vec<_> = (0..1_000).map(|number| format!("/users/{number}/:room")).collect();
        let index = index(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let one = u64::from(pattern("/users/77/:room").weight());
        assert_eq!(matches(&index, &["/users/77/a"]), (vec!["/users/77/:room".to_owned()], one));
        assert_eq!(matches(&index, &["/other/77/a", "chat", "urn:a"]), (vec![], 0));
    }

    #[test]
    fn a_pattern_that_two_topics_match_is_visited_once() {
        let index = index(&["/a/*", "/a/b", "*://*/a/b"]);
        assert_eq!(matches(&index, &["/a/b", "/a/c"]).0, ["*://*/a/b", "/a/*", "/a/b"]);
    }

    #[test]
    fn a_pattern_of_another_hub_is_matched_by_its_own_url() {
        let mut index = index(&["/a"]);
        let elsewhere = Validator::new("https://b.example/hub".parse().expect("a URL"));
        let Ok(Matcher::Pattern(foreign)) = elsewhere.pattern("/a") else { panic!("a pattern") };
        index.insert(foreign.clone(), "foreign".to_owned(), UNLIMITED).expect("within the limits");
        assert_eq!(matches(&index, &["https://b.example/a"]).0, ["foreign"]);
        assert_eq!(matches(&index, &["/a"]).0, ["/a", "foreign"]);
        assert!(index.get_mut(&foreign).is_some());
        assert_eq!(index.remove(&foreign).as_deref(), Some("foreign"));
        assert_eq!(index.len(), 1);
    }

    #[test]
    fn templates_are_found_by_the_text_of_a_topic_and_patterns_by_its_url() {
        let mut index = index(&["/users/:id"]);
        for text in ["/users/{id}", "urn:{id}", "/users/{id}/{room}"] {
            index.insert(template(text), format!("template {text}"), UNLIMITED).expect("within the limits");
        }
        let found = |topics: &[&str]| matches(&index, topics).0;
        assert_eq!(found(&["/users/1"]), ["/users/:id", "template /users/{id}"]);
        assert_eq!(
            found(&["/users/1", "/users/2", "urn:1"]),
            ["/users/:id", "template /users/{id}", "template urn:{id}"]
        );
        assert_eq!(found(&["/x/../users/1"]), ["/users/:id"], "a template is not compared with the URL");
        assert_eq!(
            found(&["/users/{id}"]),
            ["/users/:id", "template /users/{id}"],
            "the topic of the same text"
        );
        assert_eq!(index.values().count(), 4);
        assert_eq!(index.get(&template("urn:{id}")).map(String::as_str), Some("template urn:{id}"));
        assert!(index.remove(&template("urn:{id}")).is_some());
        assert_eq!(matches(&index, &["urn:1"]), (vec![], 0));
    }

    #[test]
    fn a_text_can_be_a_pattern_in_both_syntaxes() {
        let (of_urls, of_text) = (pattern("/a{b}"), template("/a{b}"));
        assert_ne!(of_urls, of_text);
        let mut index = index(&["/a{b}"]);
        index.insert(of_text.clone(), "template".to_owned(), UNLIMITED).expect("within the limits");
        assert_eq!(matches(&index, &["/ab"]).0, ["/a{b}", "template"]);
        assert_eq!(matches(&index, &["/axyz"]).0, ["template"]);
        assert_eq!(index.remove(&of_urls).as_deref(), Some("/a{b}"));
        assert_eq!(matches(&index, &["/ab"]).0, ["template"]);
    }

    #[test]
    fn candidates_of_one_topic_are_bounded_by_weight_over_both_syntaxes() {
        let weight = template("/users/{id}").weight();
        let limits = PatternLimits { count_max: 100, weight_max: 2 * weight };
        let mut index = PatternIndex::default();
        assert_eq!(index.insert(template("/users/{id}"), (), limits), Ok(()));
        assert_eq!(index.insert(template("/rooms/{id}"), (), limits), Ok(()));
        assert_eq!(index.insert(pattern("/users/:id"), (), limits), Ok(()));
        assert_eq!(index.insert(template("/users/{no}"), (), limits), Err(PatternsFull::Weight));
        assert_eq!(index.insert(template("{+any}"), (), limits), Err(PatternsFull::Weight));
    }

    #[test]
    fn candidates_of_one_topic_are_bounded_by_weight() {
        let limits = PatternLimits { count_max: 100, weight_max: 30 };
        let mut index = PatternIndex::default();
        let mut insert = |text: &str| index.insert(pattern(text), (), limits);
        assert_eq!(insert("/chat/room/:a"), Ok(()));
        assert_eq!(insert("/chat/:a"), Ok(()));
        assert_eq!(insert("/news/:a"), Ok(()));
        assert_eq!(insert("*://*/chat/:a"), Ok(()), "counted apart from those under its own beginning");
        assert_eq!(insert("/chat/room/1"), Err(PatternsFull::Weight));
        assert_eq!(insert("/:a"), Err(PatternsFull::Weight), "it would be compared with /chat/room/1, too");
        assert_eq!(insert("/news/1"), Ok(()));
        assert_eq!(insert("/users/:a(\\d+)"), Err(PatternsFull::Weight), "an expression weighs more");
        assert!(index.remove(&pattern("/chat/:a")).is_some());
        assert_eq!(index.insert(pattern("/chat/room/1"), (), limits), Ok(()));
    }

    #[test]
    fn patterns_are_bounded_in_number() {
        let limits = PatternLimits { count_max: 2, weight_max: 1_000 };
        let mut index = PatternIndex::default();
        assert_eq!(index.insert(pattern("/a/:a"), (), limits), Ok(()));
        assert_eq!(index.insert(pattern("/b/:a"), (), limits), Ok(()));
        assert_eq!(index.insert(pattern("/c/:a"), (), limits), Err(PatternsFull::Count));
        index.remove(&pattern("/a/:a"));
        assert_eq!(index.insert(pattern("/c/:a"), (), limits), Ok(()));
    }

    #[test]
    fn a_snapshot_stays_as_it_was_whatever_is_added_and_removed() {
        let mut index = index(&["/abc/:x", "/abd/:x", "/ab/:x"]);
        let before = index.clone();
        assert!(index.remove(&pattern("/abc/:x")).is_some());
        for text in ["/abc/:y", "/a", "/abd/1"] {
            index.insert(pattern(text), text.to_owned(), UNLIMITED).expect("within the limits");
        }
        "changed".clone_into(index.get_mut(&pattern("/abd/:x")).expect("it is there"));
        assert_eq!(matches(&before, &["/abc/1", "/abd/1", "/a"]).0, ["/abc/:x", "/abd/:x"]);
        assert_eq!(matches(&index, &["/abc/1", "/abd/1", "/a"]).0, ["/a", "/abc/:y", "/abd/1", "changed"]);
        assert_eq!(before.get(&pattern("/abd/:x")).map(String::as_str), Some("/abd/:x"));
    }

    #[test]
    fn removed_patterns_leave_nothing_behind() {
        let texts = ["/abc/:x", "/abd/:x", "/ab/:x", "/a", "/abc/d/:x", "*://*/a/b", "/"];
        let mut index = index(&texts);
        let templates = ["/a{x}", "/ab{x}", "{x}"];
        for text in templates {
            index.insert(template(text), text.to_owned(), UNLIMITED).expect("within the limits");
        }
        for text in templates {
            assert_eq!(index.remove(&template(text)).as_deref(), Some(text));
        }
        for text in texts {
            assert_eq!(index.remove(&pattern(text)).as_deref(), Some(text));
            assert_eq!(index.remove(&pattern(text)), None);
        }
        for root in index.by_url.iter().chain(&index.by_path).chain(&index.by_text) {
            assert!(root.children.is_empty() && root.patterns.is_empty() && root.heaviest == 0);
        }
        assert_eq!((index.len(), index.values().count()), (0, 0));
    }
}
