//! The front of the log: which events have expired, and the floors that report this.
//!
//! Every event up to the front is hidden. The front advances, and never goes back, before each call
//! that reads; each event that it passes is recorded in the floors. The next events after the front
//! are examined a few at a time; a segment that has expired completely is passed at once by means
//! of its index. The writer frees the bytes of hidden segments. Retention rules
//! (`segment/ruled.rs`) and deletions hide further events after the front.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    sync::Arc,
};

use super::{
    file::Segment,
    hiding::{Fate, Hiding},
    reading::Fetcher,
    ruled::Ruled,
    shared::{Shared, segments_after},
};
use crate::{Timestamp, draft::Audience, ledger::floors::Floors};

/// How many events are looked at ahead of the front.
const AHEAD_MAX: u32 = 128;

/// The front of the log.
#[derive(Debug)]
pub(super) struct Retention {
    /// The newest hidden event before which everything is hidden.
    pub(super) front: u64,
    pub(super) floors: Floors,
    pub(super) hiding: Hiding,
    pub(super) ruled: Ruled,
    /// Segments, by their first events, in which something may have been hidden since compaction
    /// looked at them.
    pub(super) touched: BTreeSet<u64>,
    /// Compaction has taken something out of the log.
    pub(super) some_removed: bool,
    /// The events that come next.
    ahead: VecDeque<Ahead>,
}

#[derive(Debug)]
struct Ahead {
    number: u64,
    /// The bytes of the log before it.
    start: u64,
    bytes: u64,
    /// What becomes of it, where rules have to know.
    fate: Option<Fate>,
    known: Known,
}

#[derive(Debug)]
enum Known {
    Event { time: Timestamp, audience: Audience, fate: Fate },
    Lost,
    Removed,
}

/// What may stay.
#[derive(Debug)]
struct Allowed {
    /// Nothing up to this number.
    through: u64,
    /// Nothing that begins before so many bytes of the log.
    bytes: u64,
    /// Nothing from before this time.
    time: Timestamp,
}

impl Retention {
    pub(super) fn new(front: u64, floors: Floors, hiding: Hiding) -> Self {
        Self {
            front,
            floors,
            ruled: Ruled::new(hiding.rules.len()),
            hiding,
            touched: BTreeSet::new(),
            some_removed: false,
            ahead: VecDeque::new(),
        }
    }

    /// What comes next may have been hidden or moved since it was looked at.
    pub(super) fn look_again(&mut self) {
        self.ahead.clear();
        self.ruled.look_again(&self.hiding);
    }

    /// The log begins after this event, whatever became of those before.
    pub(super) fn begin_after(&mut self, number: u64) {
        if number > self.front {
            self.floors.forget_through(number);
            self.front = number;
        }
    }

    /// What lies beyond the newest event was of an end that was lost, and its numbers will be used
    /// again.
    pub(super) fn hide_up_to(&mut self, newest: u64) {
        self.hiding.deletions = Arc::new(self.hiding.deletions.up_to(newest));
        self.hiding.fronts = self.hiding.fronts.iter().map(|front| newest.min(*front)).collect();
        self.ruled.look_again(&self.hiding);
    }

    /// Whether all fronts stay where they are, as far as can be determined without reading a file.
    pub(super) fn is_settled(&self, shared: &Shared, now: Timestamp) -> bool {
        let newest = shared.state().newest;
        self.is_front_settled(shared, now) && self.ruled.is_settled(&self.hiding.rules, newest, now)
    }

    fn is_front_settled(&self, shared: &Shared, now: Timestamp) -> bool {
        let (newest, allowed, start) = {
            let state = shared.state();
            (state.newest, Allowed::of(shared, state.newest, state.end(), now), state.segments[0].base())
        };
        if self.front >= newest {
            return true;
        }
        let nothing_due = allowed.through == 0
            && start >= allowed.bytes
            && allowed.time == Timestamp::default()
            && self.hiding.is_empty()
            && !self.some_removed;
        nothing_due || self.ahead.front().is_some_and(|next| !self.hides(&allowed, next))
    }

    /// Moves all fronts to where they have to be.
    pub(super) fn advance(&mut self, shared: &Shared, now: Timestamp) -> io::Result<()> {
        if self.is_settled(shared, now) {
            return Ok(());
        }
        let before = Arc::clone(&self.hiding.fronts);
        self.count_new(shared)?;
        self.advance_front(shared, now)?;
        let advanced = self.advance_rules(shared, now);
        if !Arc::ptr_eq(&before, &self.hiding.fronts) {
            shared.state().hiding = self.hiding.clone();
        }
        advanced?;
        self.advance_front(shared, now)
    }

    fn advance_front(&mut self, shared: &Shared, now: Timestamp) -> io::Result<()> {
        while !self.is_front_settled(shared, now) {
            let (segments, newest, end) = {
                let state = shared.state();
                (Arc::clone(&state.segments), state.newest, state.end())
            };
            let allowed = Allowed::of(shared, newest, end, now);
            let following = segments_after(&segments, self.front);
            let segment = &following[0];
            if following.len() > 1 && (segment.last() <= self.front || allowed.hides_all(segment)) {
                self.pass(segment, following[1].first(), shared)?;
            } else if self.ahead.is_empty() {
                self.look_ahead(shared, segment, newest)?;
            } else if self.ahead.front().is_some_and(|next| self.hides(&allowed, next))
                && let Some(next) = self.ahead.pop_front()
            {
                if let Some(fate) = next.fate {
                    self.forget_ruled(next.number, next.bytes, fate);
                }
                self.front = next.number;
                match next.known {
                    Known::Event { audience, .. } => {
                        self.floors.record(next.number, audience, &shared.settings.limits());
                    }
                    Known::Lost => self.floors.forget_through(next.number),
                    Known::Removed => {}
                }
            }
        }
        Ok(())
    }

    fn hides(&self, allowed: &Allowed, event: &Ahead) -> bool {
        event.number <= allowed.through
            || event.start < allowed.bytes
            || match &event.known {
                Known::Event { time, fate, .. } => {
                    *time < allowed.time || self.hiding.hides_fated(*fate, event.number)
                }
                Known::Lost | Known::Removed => true,
            }
    }

    fn pass(&mut self, segment: &Segment, next: u64, shared: &Shared) -> io::Result<()> {
        let last = segment.last();
        if last > self.front {
            self.forget_ruled_through(shared, segment, last)?;
            let (_, mut audiences) = segment.lists(&*shared.disk)?;
            audiences.sort_unstable_by_key(|(newest, _)| *newest);
            for (newest, audience) in audiences {
                let number = segment.first() + u64::from(newest);
                if number > self.front {
                    self.floors.record(number, audience, &shared.settings.limits());
                }
            }
            if let Some(lost) = segment.newest_lost(self.front, last) {
                self.floors.forget_through(lost);
            }
        }
        // A segment between them may be gone.
        if next - 1 > last {
            self.floors.forget_through(next - 1);
        }
        self.front = next - 1;
        self.ahead.clear();
        Ok(())
    }

    fn look_ahead(&mut self, shared: &Shared, segment: &Arc<Segment>, newest: u64) -> io::Result<()> {
        let first = segment.first();
        let from = u32::try_from((self.front + 1).saturating_sub(first)).unwrap_or(u32::MAX);
        let until = u32::try_from(segment.last().min(newest) + 1 - first).unwrap_or(u32::MAX);
        let range = from..until.min(from + AHEAD_MAX);
        let rows = segment.rows(&*shared.disk, range.clone())?;
        let fates = self.fates(shared, segment)?;
        let mut fetcher = Fetcher::new(shared, segment);
        for (index, row) in range.zip(rows) {
            let number = first + u64::from(index);
            let fate = fates.as_ref().and_then(|fates| fates.get(row.audience as usize)).copied();
            let fate = fate.filter(|_| row.offset > 0);
            let known = match fetcher.get_hidden_too(index, row.offset)? {
                Some(entry) => {
                    let audience = Audience::of(&entry.event);
                    let fate = fate.unwrap_or_else(|| self.hiding.fate(&audience));
                    Known::Event { time: entry.time, fate, audience }
                }
                None if segment.newest_lost(number - 1, number).is_some() => Known::Lost,
                None => Known::Removed,
            };
            let (start, bytes) = (segment.base() + u64::from(row.offset), u64::from(row.length));
            self.ahead.push_back(Ahead { number, start, bytes, fate, known });
        }
        Ok(())
    }
}

impl Allowed {
    fn of(shared: &Shared, newest: u64, end: u64, now: Timestamp) -> Self {
        let settings = &shared.settings;
        Self {
            through: settings.count_max.map_or(0, |count_max| newest.saturating_sub(count_max)),
            bytes: end.saturating_sub(settings.bytes_max),
            time: settings.age_max.map_or(Timestamp::default(), |age_max| now.earlier_by(age_max)),
        }
    }

    /// Whether nothing of a segment may stay. An event never expires before those in front of it,
    /// whatever the clock did.
    fn hides_all(&self, segment: &Segment) -> bool {
        segment.last() <= self.through
            || segment.base() + segment.bytes() <= self.bytes
            || segment.times().1 < self.time
    }
}
