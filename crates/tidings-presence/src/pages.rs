//! The subscribers of this hub in pages, and which of these have yet to be published.
//!
//! A subscriber stays on its page until it disconnects, and a new one takes a free entry on the
//! page with the smallest number: so a change costs one page, and there are as many pages as the
//! largest number of subscribers ever needed. A page that changed several times is published once,
//! in its latest state.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use tidings::{ConnectionId, Presence};
use tokio::time::Instant;

use crate::encoding::{encode_page, encoded_bytes};

/// Most subscribers on one page.
const MEMBERS_MAX: usize = 32;
/// No subscriber joins a page that has reached so many bytes.
const BYTES_MAX: usize = 16 * 1024;
/// After this time a page is published again, although it has not changed.
const SHOWN_AGAIN_AFTER: Duration = Duration::from_secs(40);
/// A published page is kept for this long: two renewals may be late.
pub(crate) const HOLDS_FOR: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub(crate) struct Pages {
    numbered: Vec<Page>,
    /// The page that each subscriber is on.
    numbers: HashMap<ConnectionId, usize>,
    /// Pages with a free entry.
    roomy: BTreeSet<usize>,
    /// Pages to be published.
    due: BTreeSet<usize>,
}

#[derive(Debug, Default)]
struct Page {
    members: Vec<Presence>,
    bytes: usize,
    shown_at: Option<Instant>,
}

/// A page to be published, or to be removed if it is empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Showing {
    pub(crate) number: usize,
    pub(crate) value: Option<Vec<u8>>,
}

impl Page {
    fn has_room(&self) -> bool {
        self.members.len() < MEMBERS_MAX && self.bytes < BYTES_MAX
    }
}

impl Pages {
    /// Adds a subscriber to a page, and returns its number. One that has other topics now stays on
    /// its page: others must not see it leave one page after it has joined another.
    pub(crate) fn join(&mut self, presence: Presence) -> usize {
        if let Some(&number) = self.numbers.get(&presence.connection) {
            let page = &mut self.numbered[number];
            let is_it = |member: &&mut Presence| member.connection == presence.connection;
            if let Some(member) = page.members.iter_mut().find(is_it) {
                page.bytes += encoded_bytes(&presence);
                page.bytes -= encoded_bytes(member);
                *member = presence;
            }
            self.changed(number);
            return number;
        }
        let number = self.roomy.first().copied().unwrap_or_else(|| {
            self.numbered.push(Page::default());
            self.numbered.len() - 1
        });
        self.numbers.insert(presence.connection, number);
        let page = &mut self.numbered[number];
        page.bytes += encoded_bytes(&presence);
        page.members.push(presence);
        self.changed(number);
        number
    }

    /// Removes a subscriber from its page.
    pub(crate) fn leave(&mut self, connection: &ConnectionId) {
        let Some(number) = self.numbers.remove(connection) else { return };
        let page = &mut self.numbered[number];
        if let Some(place) = page.members.iter().position(|member| member.connection == *connection) {
            let member = page.members.swap_remove(place);
            page.bytes -= encoded_bytes(&member);
            self.changed(number);
        }
    }

    fn changed(&mut self, number: usize) {
        if self.numbered[number].has_room() {
            self.roomy.insert(number);
        } else {
            self.roomy.remove(&number);
        }
        self.due.insert(number);
    }

    /// How many members there are.
    pub(crate) fn count(&self) -> usize {
        self.numbers.len()
    }

    /// All members.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Presence> {
        self.numbered.iter().flat_map(|page| &page.members)
    }

    /// Marks pages for renewal that were published long ago.
    pub(crate) fn grow_old(&mut self, now: Instant) {
        for (number, page) in self.numbered.iter().enumerate() {
            if page.shown_at.is_some_and(|shown_at| now >= shown_at + SHOWN_AGAIN_AFTER) {
                self.due.insert(number);
            }
        }
    }

    /// The cluster has forgotten all pages.
    pub(crate) fn forgotten(&mut self) {
        for (number, page) in self.numbered.iter_mut().enumerate() {
            if page.shown_at.take().is_some() {
                self.due.insert(number);
            }
        }
    }

    /// The next page after this one that is to be published, which then counts as published unless
    /// [`not_shown`](Self::not_shown) is called.
    pub(crate) fn next_due(&mut self, behind: Option<usize>, now: Instant) -> Option<Showing> {
        let from = behind.map_or(0, |number| number + 1);
        let number = *self.due.range(from..).next()?;
        self.due.remove(&number);
        let page = &mut self.numbered[number];
        let value = (!page.members.is_empty()).then(|| encode_page(&page.members));
        page.shown_at = value.is_some().then_some(now);
        Some(Showing { number, value })
    }

    /// The page is to be published again: the last attempt failed.
    pub(crate) fn not_shown(&mut self, number: usize) {
        self.due.insert(number);
    }

    /// The pages that other hubs may have seen.
    pub(crate) fn shown(&self) -> Vec<usize> {
        let is_shown = |(number, page): &(usize, &Page)| page.shown_at.is_some() || self.due.contains(number);
        self.numbered.iter().enumerate().filter(is_shown).map(|(number, _)| number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::{decode_page, tests::member};

    fn shown(pages: &mut Pages, now: Instant) -> Vec<(usize, Vec<u8>)> {
        let mut all = Vec::new();
        let mut behind = None;
        while let Some(Showing { number, value }) = pages.next_due(behind, now) {
            behind = Some(number);
            let members = value.map(|value| decode_page(&value).expect("a page")).unwrap_or_default();
            all.push((number, members.iter().map(|member| member.connection.to_bytes()[0]).collect()));
        }
        all
    }

    #[test]
    fn pages_fill_from_the_front_and_only_changed_ones_are_published() {
        let now = Instant::now();
        let mut pages = Pages::default();
        for number in 0..70 {
            pages.join(member(number, None, &["chat"]));
        }
        let sizes: Vec<_> = shown(&mut pages, now).iter().map(|(_, members)| members.len()).collect();
        assert_eq!(sizes, [32, 32, 6]);
        assert_eq!(shown(&mut pages, now), []);

        let fourth = member(3, None, &[]).connection;
        pages.leave(&fourth);
        pages.leave(&fourth);
        assert_eq!(pages.join(member(100, None, &[])), 0, "there is a free entry");
        let again = shown(&mut pages, now);
        assert_eq!(again.len(), 1);
        assert!(again[0].0 == 0 && again[0].1.contains(&100) && !again[0].1.contains(&3), "{again:?}");
        assert_eq!(pages.members().count(), 70);
    }

    #[test]
    fn a_subscriber_with_other_topics_stays_on_its_page() {
        let now = Instant::now();
        let mut pages = Pages::default();
        for number in 0..40 {
            pages.join(member(number, None, &["chat"]));
        }
        pages.leave(&member(0, None, &[]).connection);
        shown(&mut pages, now);
        let changed = member(39, None, &["chat", "news"]);
        assert_eq!(pages.join(changed.clone()), 1, "there is room on the first page");
        assert_eq!(pages.count(), 39);
        let shown = shown(&mut pages, now);
        assert!(shown.len() == 1 && shown[0].0 == 1 && shown[0].1.contains(&39), "{shown:?}");
        assert!(pages.members().any(|member| *member == changed));
        pages.leave(&changed.connection);
        assert_eq!(pages.numbered[1].bytes, 7 * encoded_bytes(&member(1, None, &["chat"])));
    }

    #[test]
    fn an_unpublished_visit_is_never_shown_and_an_empty_page_is_removed() {
        let now = Instant::now();
        let mut pages = Pages::default();
        pages.join(member(1, None, &[]));
        pages.leave(&member(1, None, &[]).connection);
        assert_eq!(pages.next_due(None, now), Some(Showing { number: 0, value: None }));
        assert_eq!((pages.next_due(None, now), pages.shown()), (None, vec![]));
    }

    #[test]
    fn an_old_failed_or_forgotten_page_is_published_again() {
        let now = Instant::now();
        let mut pages = Pages::default();
        pages.join(member(1, None, &[]));
        assert_eq!(shown(&mut pages, now).len(), 1);
        pages.grow_old(now + SHOWN_AGAIN_AFTER - Duration::from_millis(1));
        assert_eq!(shown(&mut pages, now), []);
        pages.grow_old(now + SHOWN_AGAIN_AFTER);
        assert_eq!(shown(&mut pages, now + SHOWN_AGAIN_AFTER).len(), 1);
        pages.not_shown(0);
        assert_eq!(shown(&mut pages, now).len(), 1);
        pages.forgotten();
        assert_eq!(shown(&mut pages, now).len(), 1);
    }

    #[test]
    fn large_members_share_a_page_with_few_others() {
        let mut pages = Pages::default();
        let label = "x".repeat(1_024);
        let last = (0..20).map(|number| pages.join(member(number, Some(&label), &[]))).max();
        assert_eq!(last, Some(1));
    }
}
