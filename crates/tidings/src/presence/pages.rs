//! The subscribers of this hub in pages, and which of these the others have yet to see.
//!
//! A subscriber stays on its page until it goes, and the one that comes takes a free place on the page with the smallest number: so a change costs one page, and there are as many
//! pages as the most subscribers there ever were need. A page that changed several times is shown once, as it is then.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Presence,
    encoding::{encode_page, encoded_bytes},
};

/// Most subscribers on one page.
const MEMBERS_MAX: usize = 32;
/// Nobody joins a page of so many bytes any more.
const BYTES_MAX: usize = 16 * 1024;
/// After this time a page is shown again, although it has not changed.
const SHOWN_AGAIN_AFTER: Duration = Duration::from_secs(40);
/// What is shown holds for this long: it may be late twice.
pub(super) const HOLDS_FOR: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub(super) struct Pages {
    numbered: Vec<Page>,
    /// Those with a free place.
    roomy: BTreeSet<usize>,
    /// Those that are to be shown.
    due: BTreeSet<usize>,
}

#[derive(Debug, Default)]
struct Page {
    members: Vec<Arc<Member>>,
    bytes: usize,
    shown_at: Option<Instant>,
}

/// A subscriber and its page.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) presence: Presence,
    page: usize,
}

/// A page to be shown, or to be taken away if nobody is on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Showing {
    pub(super) number: usize,
    pub(super) value: Option<Vec<u8>>,
}

impl Page {
    fn has_room(&self) -> bool {
        self.members.len() < MEMBERS_MAX && self.bytes < BYTES_MAX
    }
}

impl Pages {
    /// Puts a subscriber onto a page.
    pub(super) fn join(&mut self, presence: Presence) -> Arc<Member> {
        let number = self.roomy.first().copied().unwrap_or_else(|| {
            self.numbered.push(Page::default());
            self.numbered.len() - 1
        });
        let page = &mut self.numbered[number];
        page.bytes += encoded_bytes(&presence);
        let member = Arc::new(Member { presence, page: number });
        page.members.push(Arc::clone(&member));
        self.changed(number);
        member
    }

    /// Takes a subscriber off its page.
    pub(super) fn leave(&mut self, member: &Member) {
        let page = &mut self.numbered[member.page];
        if let Some(place) =
            page.members.iter().position(|other| other.presence.connection == member.presence.connection)
        {
            page.members.swap_remove(place);
            page.bytes -= encoded_bytes(&member.presence);
            self.changed(member.page);
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

    /// Everybody.
    pub(super) fn members(&self) -> impl Iterator<Item = &Presence> {
        self.numbered.iter().flat_map(|page| &page.members).map(|member| &member.presence)
    }

    /// What was shown long ago is to be shown again.
    pub(super) fn grow_old(&mut self, now: Instant) {
        for (number, page) in self.numbered.iter().enumerate() {
            if page.shown_at.is_some_and(|shown_at| now >= shown_at + SHOWN_AGAIN_AFTER) {
                self.due.insert(number);
            }
        }
    }

    /// Nobody knows anything any more.
    pub(super) fn forgotten(&mut self) {
        for (number, page) in self.numbered.iter_mut().enumerate() {
            if page.shown_at.take().is_some() {
                self.due.insert(number);
            }
        }
    }

    /// The next page behind this one that is to be shown, which then counts as shown unless [`not_shown`](Self::not_shown) says otherwise.
    pub(super) fn next_due(&mut self, behind: Option<usize>, now: Instant) -> Option<Showing> {
        let from = behind.map_or(0, |number| number + 1);
        let number = *self.due.range(from..).next()?;
        self.due.remove(&number);
        let page = &mut self.numbered[number];
        let value = (!page.members.is_empty())
            .then(|| encode_page(page.members.iter().map(|member| &member.presence)));
        page.shown_at = value.is_some().then_some(now);
        Some(Showing { number, value })
    }

    /// The page is to be shown again: the last attempt failed.
    pub(super) fn not_shown(&mut self, number: usize) {
        self.due.insert(number);
    }

    /// Those that others may have seen.
    pub(super) fn shown(&self) -> Vec<usize> {
        let is_shown = |(number, page): &(usize, &Page)| page.shown_at.is_some() || self.due.contains(number);
        self.numbered.iter().enumerate().filter(is_shown).map(|(number, _)| number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::encoding::{decode_page, tests::member};

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
    fn pages_are_filled_from_the_front_and_only_those_that_changed_are_shown() {
        let now = Instant::now();
        let mut pages = Pages::default();
        let joined: Vec<_> = (0..70).map(|number| pages.join(member(number, None, &["chat"]))).collect();
        let sizes: Vec<_> = shown(&mut pages, now).iter().map(|(_, members)| members.len()).collect();
        assert_eq!(sizes, [32, 32, 6]);
        assert_eq!(shown(&mut pages, now), []);

        pages.leave(&joined[3]);
        pages.leave(&joined[3]);
        assert_eq!(pages.join(member(100, None, &[])).page, 0, "there is a free place");
        let again = shown(&mut pages, now);
        assert_eq!(again.len(), 1);
        assert!(again[0].0 == 0 && again[0].1.contains(&100) && !again[0].1.contains(&3), "{again:?}");
        assert_eq!(pages.members().count(), 70);
    }

    #[test]
    fn those_who_comes_and_goes_unseen_is_never_shown_and_an_empty_page_is_taken_away() {
        let now = Instant::now();
        let mut pages = Pages::default();
        let joined = pages.join(member(1, None, &[]));
        pages.leave(&joined);
        assert_eq!(pages.next_due(None, now), Some(Showing { number: 0, value: None }));
        assert_eq!((pages.next_due(None, now), pages.shown()), (None, vec![]));
    }

    #[test]
    fn what_was_shown_long_ago_or_in_vain_or_is_forgotten_is_shown_again() {
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
    fn members_of_many_words_have_few_neighbours() {
        let mut pages = Pages::default();
        let label = "x".repeat(1_024);
        let last = (0..20).map(|number| pages.join(member(number, Some(&label), &[])).page).max();
        assert_eq!(last, Some(1));
    }
}
