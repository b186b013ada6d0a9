//! The front of the log: what retention hides, and what is told to those who miss it.
//!
//! Everything up to the front is hidden. The front moves on, never back, before each call that reads; each event that it passes is accounted for in
//! the floors. To know where it may go, the next events behind it are looked at one after the other, a few at a time; a segment of which nothing
//! may stay is passed as a whole, by what its index says of it. The bytes of hidden segments are freed by the writer.

use std::{collections::VecDeque, io, sync::Arc};

use super::{
    deletion::Deletions,
    file::Segment,
    reading::Fetcher,
    shared::{Shared, segments_after},
};
use crate::{Timestamp, draft::Audience, ledger::floors::Floors};

/// How many events are looked at ahead of the front.
const AHEAD_MAX: u32 = 128;

/// The front of the log.
#[derive(Debug)]
pub(super) struct Retention {
    /// The newest hidden event.
    pub(super) front: u64,
    pub(super) floors: Floors,
    pub(super) deletions: Arc<Deletions>,
    /// The events that come next.
    ahead: VecDeque<Ahead>,
}

#[derive(Debug)]
struct Ahead {
    number: u64,
    /// The bytes of the log before it.
    start: u64,
    /// `None`: it is lost.
    known: Option<(Timestamp, Audience)>,
    is_deleted: bool,
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
    pub(super) fn new(front: u64, floors: Floors, deletions: Deletions) -> Self {
        Self { front, floors, deletions: Arc::new(deletions), ahead: VecDeque::new() }
    }

    /// What comes next may have been deleted since it was looked at.
    pub(super) fn look_again(&mut self) {
        self.ahead.clear();
    }

    /// The log begins after this event, whatever became of those before.
    pub(super) fn begin_after(&mut self, number: u64) {
        if number > self.front {
            self.floors.forget_through(number);
            self.front = number;
        }
    }

    /// Whether the front stays where it is, as far as can be told without reading a file.
    pub(super) fn is_settled(&self, shared: &Shared, now: Timestamp) -> bool {
        let (newest, allowed, start) = {
            let state = shared.state();
            (state.newest, Allowed::of(shared, state.newest, state.end(), now), state.segments[0].base)
        };
        if self.front >= newest {
            return true;
        }
        let nothing_due = allowed.through == 0
            && start >= allowed.bytes
            && allowed.time == Timestamp::default()
            && self.deletions.is_empty();
        nothing_due || self.ahead.front().is_some_and(|next| !allowed.hides(next))
    }

    /// Moves the front to where it has to be.
    pub(super) fn advance(&mut self, shared: &Shared, now: Timestamp) -> io::Result<()> {
        while !self.is_settled(shared, now) {
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
            } else if self.ahead.front().is_some_and(|next| allowed.hides(next))
                && let Some(next) = self.ahead.pop_front()
            {
                self.front = next.number;
                match next.known {
                    Some((_, audience)) => {
                        self.floors.record(next.number, audience, &shared.settings.limits());
                    }
                    None => self.floors.forget_through(next.number),
                }
            }
        }
        Ok(())
    }

    fn pass(&mut self, segment: &Segment, next: u64, shared: &Shared) -> io::Result<()> {
        let last = segment.last();
        if last > self.front {
            let (_, audiences) = segment.lists(&*shared.disk)?;
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
        let places = segment.look(&*shared.disk, |places| {
            (from..until.min(from + AHEAD_MAX)).map(|index| Ok((index, places.offset(index)?))).collect()
        });
        let places: Vec<_> = places?;
        let mut fetcher = Fetcher::new(shared, segment);
        for (index, offset) in places {
            let entry = fetcher.get_hidden_too(index, offset)?;
            let is_deleted = entry.as_ref().is_some_and(|entry| self.deletions.hides(entry));
            let known = entry.map(|entry| (entry.time, Audience::of(&entry.event)));
            let start = segment.base + u64::from(offset);
            self.ahead.push_back(Ahead { number: first + u64::from(index), start, known, is_deleted });
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

    fn hides(&self, event: &Ahead) -> bool {
        event.is_deleted
            || event.number <= self.through
            || event.start < self.bytes
            || event.known.as_ref().is_none_or(|(time, _)| *time < self.time)
    }

    /// Whether nothing of a segment may stay. An event never expires before those in front of it, whatever the clock did.
    fn hides_all(&self, segment: &Segment) -> bool {
        segment.last() <= self.through
            || segment.base + segment.bytes() <= self.bytes
            || segment.times().1 < self.time
    }
}
