//! The shard: the driver of cursors whose connections are sockets.
//!
//! A shard owns its subscribers exclusively, and sends from snapshots of the feeds, so it holds no
//! lock while it sends. It knows neither sockets nor clocks: bytes leave through
//! [`Wire`](wire::Wire), time is an argument, and [`driver`] provides both. That makes it testable.
//!
//! How an event travels through it:
//!
//! 1. The writer has appended to a feed and notifies the shard through its
//!    [`FeedNotifier`](crate::shard::inbox::FeedNotifier) there: the **group** of subscribers that
//!    read this feed has a pass to make ([`Shard::grown`]).
//! 2. [`Shard::slice`] visits some of the group's members, then returns, so that new input is
//!    looked for in between: events that arrive meanwhile are sent along to all members that have
//!    not been visited yet. Coalescing is a matter of scheduling, there is no timer. Groups alternate.
//! 3. A visit ([`Shard::visit`]) is at most one `write` of everything that the subscriber lacks of
//!    a segment, straight from a [snapshot] of the feed that serves many members. Where a socket
//!    accepts only a part, the rest of the partial frame is kept and goes first the next time
//!    ([`Pending`](pending::Pending)).
//! 4. A subscriber with more than one write pending (a page of history, a socket that has become
//!    writable again, several matchers) is queued, and is visited out of turn.
//!
//! Invariants:
//! - The bytes that a socket accepts are a prefix of: response headers, then complete chunks, each
//!   event once, in order.
//! - A subscriber without anything to send has no buffer ([`Subscriber::pending`] is `None`).
//! - A visit never waits and holds no lock while it writes; history is read elsewhere and arrives
//!   as a message.
//! - Nothing is done for all subscribers at once: work for each of them is cut into slices as
//!   sending is.

#[cfg(target_os = "linux")]
pub(crate) mod driver;
mod editing;
mod filters;
mod groups;
#[cfg(target_os = "linux")]
mod hand_over;
pub(crate) mod inbox;
pub(crate) mod lag;
mod pending;
mod snapshot;
#[cfg(target_os = "linux")]
pub(crate) mod socket;
mod subscriber;
#[cfg(test)]
mod tests;
mod visit;
mod wire;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use slab::Slab;

pub(crate) use self::subscriber::NewSubscriber;
use self::{
    filters::Filters,
    groups::{Groups, Member},
    snapshot::LastSnapshot,
    subscriber::{Phase, Subscriber},
    visit::{Gathered, Visit, VisitContext},
    wire::Wire,
};
use crate::{
    counts::{self, closed::CloseReason, deliveries::Delivered, reader_lag::LagSurvey},
    edits::Registration,
    engine::Engine,
    feed::encode::EndReason,
    feed::sampling::Mark,
    replay::{ReplayRequest, Replayed},
    shard::inbox::FeedNotifier,
};

/// Sends of one slice, after which the shard looks for new input.
const SLICE_SENDS: usize = 64;
/// Visits that find nothing to send and together cost about as much as a send.
const VISITS_PER_SEND: usize = 32;
/// Subscribers that a sweep looks at before others have their turn: together they cost about as
/// much as a send.
const SWEEP_STEP: usize = VISITS_PER_SEND;
/// How far apart sweeps are at most.
const SWEEP_MAX: Duration = Duration::from_secs(1);
/// And at least, where heartbeats are so close that a second between two looks would make them
/// late.
const SWEEP_MIN: Duration = Duration::from_millis(50);
/// A socket that has accepted nothing of what is pending for so long is closed. Its client resumes
/// by id.
const STALLED_MAX: Duration = Duration::from_secs(45);
/// And for so long once its stream or the hub has ended.
const CLOSING_STALLED_MAX: Duration = Duration::from_secs(2);

/// Identifies a subscriber of a shard, also one that has left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    pub(crate) slot: u32,
    pub(crate) serial: u32,
}

/// See the module's documentation.
pub(crate) struct Shard<W> {
    subscribers: Slab<Subscriber<W>>,
    groups: Groups,
    filters: Filters,
    /// Subscribers with something pending that the turns of their groups alone do not bring.
    queue: VecDeque<Key>,
    /// Subscribers that are due a heartbeat.
    silent: VecDeque<Key>,
    /// When streams end by themselves, of those that do, or when that is to be announced: a
    /// credential must not be outlived until the next sweep. One entry for each of these streams.
    ends: BTreeSet<(Instant, Key)>,
    /// Where the topics of streams can be changed, of those of which they can, by their slots.
    editable: HashMap<u32, Box<Registration>>,
    /// The slot that the sweep comes to next, while there is one.
    sweep_slot: Option<usize>,
    /// How far apart sweeps are.
    pub(crate) sweep_interval: Duration,
    /// History that has to be read, for the driver.
    pub(crate) requests: Vec<(Key, ReplayRequest)>,
    /// Bytes that wait for sockets which are full, outside of feeds. What has only just come, and
    /// waits for its turn, is not counted: the next visit sends it, or finds the socket full.
    pending_bytes: usize,
    next_serial: u32,
    /// For members of groups in their turn, and for subscribers out of turn.
    snapshots: [LastSnapshot; 2],
    gathered: Gathered,
    /// What was handed to sockets and has not been counted yet.
    delivered: Delivered,
    /// How far behind the subscribers are that the sweep has looked at.
    survey: LagSurvey,
    /// What the last complete sweep has found, for the driver.
    pub(crate) surveyed: Option<LagSurvey>,
}

/// Which of the snapshots a visit uses.
#[derive(Clone, Copy)]
enum Visiting {
    InTurn = 0,
    OutOfTurn = 1,
}

impl<W: Wire> Shard<W> {
    /// A shard without subscribers, whose sweeps are close enough for heartbeats this far apart.
    pub(crate) fn new(heartbeat: Duration) -> Self {
        let sweep_interval =
            if heartbeat.is_zero() { SWEEP_MAX } else { (heartbeat / 8).clamp(SWEEP_MIN, SWEEP_MAX) };
        Self {
            subscribers: Slab::new(),
            groups: Groups::default(),
            filters: Filters::default(),
            queue: VecDeque::new(),
            silent: VecDeque::new(),
            ends: BTreeSet::new(),
            editable: HashMap::new(),
            sweep_slot: None,
            sweep_interval,
            requests: Vec::new(),
            pending_bytes: 0,
            next_serial: 0,
            snapshots: Default::default(),
            gathered: Gathered::default(),
            delivered: Delivered::default(),
            survey: LagSurvey::default(),
            surveyed: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    pub(crate) fn wire(&self, key: Key) -> Option<&W> {
        let subscriber = self.subscribers.get(key.slot as usize);
        subscriber.filter(|subscriber| subscriber.serial == key.serial).map(|subscriber| &subscriber.wire)
    }

    /// Adds a subscriber, which is sent what is pending for it from the next slice on.
    pub(crate) fn adopt(
        &mut self,
        mut new_subscriber: NewSubscriber<W>,
        new_notifier: impl Fn(u32) -> FeedNotifier,
        now: Instant,
    ) -> Key {
        let filter_number = self.filters.intern(&mut new_subscriber.parts.reader.filter);
        new_subscriber.parts.reader.hand_over();
        let entry = self.subscribers.vacant_entry();
        let key = Key { slot: slot(entry.key()), serial: self.next_serial };
        self.next_serial = self.next_serial.wrapping_add(1);
        let feeds = new_subscriber.parts.reader.feeds();
        let members = feeds.map(|feed| self.groups.join(feed, key.slot, &new_notifier)).collect();
        // A heartbeat that would be due before the next sweep is sent in this one.
        let heartbeat = &mut new_subscriber.parts.heartbeat;
        *heartbeat = heartbeat.saturating_sub(self.sweep_interval);
        if let Some(editable) = new_subscriber.parts.editable.take() {
            self.editable.insert(key.slot, editable);
        }
        let subscriber = Subscriber::new(new_subscriber, key.serial, filter_number, members, now);
        self.ends.extend(subscriber.end().map(|end| (end.next_at(), key)));
        entry.insert(subscriber);
        self.enqueue(key);
        key
    }

    /// The feed of this group has grown, at this point of what the writer writes or later.
    pub(crate) fn grown(&mut self, group: u32, since: u64) {
        self.groups.mark_grown(group, since);
    }

    /// Up to where every subscriber whose socket accepts it has been sent what was written; none if
    /// that is everything.
    pub(crate) fn served(&self) -> Option<u64> {
        self.groups.served()
    }

    /// The marks of the entries that every subscriber of a feed has been sent since this was called
    /// last, if its socket accepts them.
    pub(crate) fn take_served_marks(&mut self) -> impl Iterator<Item = Mark> {
        self.groups.take_served_marks()
    }

    /// A page of history has been read.
    pub(crate) fn take_page(&mut self, key: Key, page: Replayed) {
        self.change(key, |subscriber, _| subscriber.take_page(page));
        self.enqueue(key);
    }

    /// The socket has something to read: at the end of input the stream ends, with what is due.
    pub(crate) fn readable(&mut self, key: Key, engine: &Engine) {
        match self.change(key, |subscriber, _| subscriber.read_input().map(|()| subscriber.phase)) {
            Some(Err(error)) => self.remove(key.slot, CloseReason::of_io(error.kind()), engine),
            Some(Ok(Phase::InputEnded)) => self.enqueue(key),
            _ => {}
        }
    }

    /// The connection is of no use, for this reason.
    pub(crate) fn drop_subscriber(&mut self, key: Key, reason: CloseReason, engine: &Engine) {
        if self.subscriber_mut(key).is_some() {
            self.remove(key.slot, reason, engine);
        }
    }

    /// The socket accepts bytes again.
    pub(crate) fn writable(&mut self, key: Key) {
        let was_blocked = self.change(key, |subscriber, _| std::mem::take(&mut subscriber.is_blocked));
        if was_blocked == Some(true) {
            self.enqueue(key);
        }
    }

    /// Makes about [`SLICE_SENDS`] sends. Whether there is more to do.
    pub(crate) fn slice(&mut self, engine: &Engine, now: Instant) -> bool {
        let mut work = SLICE_SENDS * VISITS_PER_SEND;
        while work > 0 && !self.is_done(now) {
            // One of each in turn, so that none waits for the flood of another.
            if let Some(slot) = self.groups.next_member() {
                work = work.saturating_sub(self.visit(slot, Visiting::InTurn, engine, now));
            }
            if let Some(key) = self.queue.pop_front()
                && let Some(subscriber) = self.subscriber_mut(key)
            {
                subscriber.is_queued = false;
                work = work.saturating_sub(self.visit(key.slot, Visiting::OutOfTurn, engine, now));
            }
            if let Some(key) = self.silent.pop_front() {
                let mut delivered = Delivered::default();
                let visit = self.change(key, |subscriber, _| subscriber.send_heartbeat(now, &mut delivered));
                self.delivered += delivered;
                if let Some(Visit::Gone(reason)) = visit {
                    self.remove(key.slot, reason, engine);
                }
                work = work.saturating_sub(VISITS_PER_SEND);
            }
            if self.next_end().is_some_and(|at| at <= now)
                && let Some((at, key)) = self.ends.pop_first()
            {
                self.approach_end(key, at, engine);
                work = work.saturating_sub(1);
            }
            if let Some(slot) = self.sweep_slot {
                work = work.saturating_sub(self.sweep_on(slot, engine, now));
            }
        }
        for snapshot in &mut self.snapshots {
            snapshot.release();
        }
        engine.counts.of(counts::Driver::Shard).deliveries.add(std::mem::take(&mut self.delivered));
        !self.is_done(now)
    }

    fn is_done(&self, now: Instant) -> bool {
        self.groups.is_clean()
            && self.queue.is_empty()
            && self.silent.is_empty()
            && self.sweep_slot.is_none()
            && self.next_end().is_none_or(|at| at > now)
    }

    /// When the next stream ends by itself, or its end is to be announced.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// The time of this stream is over, or that is to be announced: its next visit does either.
    fn approach_end(&mut self, key: Key, at: Instant, engine: &Engine) {
        let Some(subscriber) = self.subscriber_mut(key) else { return };
        if let Some(end) = subscriber.end().filter(|end| end.at > at) {
            let end_at = end.at;
            self.ends.insert((end_at, key));
            self.enqueue(key);
        } else if let Some(reason) = subscriber.cut_at_its_end() {
            self.remove(key.slot, reason.into(), engine);
        } else {
            self.enqueue(key);
        }
    }

    /// The end of this stream was requested: it is the next one.
    fn end_at_once(&mut self, key: Key, now: Instant) {
        let Some(subscriber) = self.subscriber_mut(key) else { return };
        if let Some(end) = subscriber.end_at_once(EndReason::Revoked, now) {
            self.ends.remove(&(end.next_at(), key));
            self.ends.remove(&(end.at, key));
        }
        self.ends.insert((now, key));
    }

    /// To be called once in every [`sweep_interval`](Self::sweep_interval): slices look from now on
    /// for heartbeats and stalled sockets that are due, and for streams that end with their hub.
    /// Every subscriber is looked at once, some at a time, so that none waits for a sweep.
    pub(crate) fn begin_sweep(&mut self) {
        self.sweep_slot.get_or_insert(0);
    }

    /// Looks at the next subscribers. Returns what that cost, in visits.
    fn sweep_on(&mut self, begin: usize, engine: &Engine, now: Instant) -> usize {
        let is_closed = engine.closing.is_closed(now.into());
        if begin == 0 {
            engine.endings.forget_old(now.into());
        }
        let has_endings = engine.endings.is_any();
        let slots_end = self.subscribers.capacity();
        let end = (begin + SWEEP_STEP).min(slots_end);
        self.sweep_slot = (end < slots_end).then_some(end);
        let mut cost = end - begin;
        for index in begin..end {
            let Some(subscriber) = self.subscribers.get(index) else { continue };
            let key = Key { slot: slot(index), serial: subscriber.serial };
            let is_ending = is_closed || subscriber.is_ending();
            let patience = if is_ending { CLOSING_STALLED_MAX } else { STALLED_MAX };
            self.survey.add(subscriber.lag_bytes(), subscriber.is_blocked);
            if subscriber.is_stalled(now, patience) {
                let reason = if is_closed { CloseReason::Shutdown } else { CloseReason::Slow };
                self.remove(key.slot, reason, engine);
                cost += VISITS_PER_SEND;
            } else if has_endings && subscriber.is_to_end(engine) {
                self.end_at_once(key, now);
            } else if subscriber.due_end(engine, now).is_some() {
                self.enqueue(key);
            } else if subscriber.is_silent(now) {
                self.silent.push_back(key);
            }
        }
        if self.sweep_slot.is_none() {
            self.surveyed = Some(std::mem::take(&mut self.survey));
        }
        cost.max(1)
    }

    /// The cost of a visit, in visits.
    fn visit(&mut self, slot: u32, visiting: Visiting, engine: &Engine, now: Instant) -> usize {
        let Some(serial) = self.subscribers.get(slot as usize).map(|subscriber| subscriber.serial) else {
            return 1;
        };
        let key = Key { slot, serial };
        let mut gathered = std::mem::take(&mut self.gathered);
        let mut snapshot = std::mem::take(&mut self.snapshots[visiting as usize]);
        let mut delivered = self.delivered;
        let visit = self.change(key, |subscriber, filters| {
            let (gathered, snapshot, delivered) = (&mut gathered, &mut snapshot, &mut delivered);
            subscriber.visit(&mut VisitContext { engine, filters, snapshot, gathered, delivered }, now)
        });
        self.delivered = delivered;
        self.gathered = gathered;
        self.snapshots[visiting as usize] = snapshot;
        match visit {
            None | Some(Visit::Idle) => return 1,
            Some(Visit::Sent) => {}
            Some(Visit::More) => self.enqueue(key),
            Some(Visit::Blocked) => self.stay_in_budget(key, engine),
            Some(Visit::Replay(request)) => self.requests.push((key, *request)),
            Some(Visit::Gone(reason)) => self.remove(slot, reason, engine),
        }
        VISITS_PER_SEND
    }

    /// What waits for sockets that do not accept it is bounded for all together: beyond, a socket
    /// that has just filled up gives back the page that it can read again later, and if that is not
    /// enough, it is closed. Its client resumes by id.
    fn stay_in_budget(&mut self, key: Key, engine: &Engine) {
        if self.pending_bytes <= engine.settings.pending_bytes_max {
            return;
        }
        self.change(key, |subscriber, _| subscriber.give_page_back());
        if self.pending_bytes > engine.settings.pending_bytes_max {
            tracing::debug!("a stalled connection was closed: too many bytes wait for full sockets");
            self.remove(key.slot, CloseReason::Slow, engine);
        }
    }

    /// Changes a subscriber, and counts what then waits for its socket.
    fn change<T>(
        &mut self,
        key: Key,
        change: impl FnOnce(&mut Subscriber<W>, &mut Filters) -> T,
    ) -> Option<T> {
        let Self { subscribers, filters, pending_bytes, .. } = self;
        let subscriber = subscribers.get_mut(key.slot as usize);
        let subscriber = subscriber.filter(|subscriber| subscriber.serial == key.serial)?;
        let before = subscriber.blocked_bytes();
        let result = change(subscriber, filters);
        *pending_bytes = *pending_bytes + subscriber.blocked_bytes() - before;
        Some(result)
    }

    fn remove(&mut self, slot: u32, reason: CloseReason, engine: &Engine) {
        let mut subscriber = self.subscribers.remove(slot as usize);
        if !self.editable.is_empty() {
            self.editable.remove(&slot);
        }
        let ended_by = if let Phase::Ending(ended_by) = subscriber.phase { ended_by } else { reason };
        engine.counts.closed.count(ended_by);
        self.pending_bytes -= subscriber.blocked_bytes();
        self.filters.release(&subscriber.reader.filter);
        if let Some(end) = subscriber.end() {
            let key = Key { slot, serial: subscriber.serial };
            self.ends.remove(&(end.next_at(), key));
            self.ends.remove(&(end.at, key));
        }
        for member in std::mem::take(&mut subscriber.members) {
            self.leave_group(member);
        }
        subscriber.reader.leave(&engine.feeds);
        subscriber.wire.report_end(ended_by);
    }

    fn leave_group(&mut self, member: Member) {
        for moved in self.groups.leave(member).into_iter().flatten() {
            if let Some(subscriber) = self.subscribers.get_mut(moved.slot as usize) {
                subscriber.has_moved(moved);
            }
        }
    }

    fn enqueue(&mut self, key: Key) {
        let Some(subscriber) = self.subscriber_mut(key) else { return };
        if !std::mem::replace(&mut subscriber.is_queued, true) {
            self.queue.push_back(key);
        }
    }

    fn subscriber_mut(&mut self, key: Key) -> Option<&mut Subscriber<W>> {
        self.subscribers.get_mut(key.slot as usize).filter(|subscriber| subscriber.serial == key.serial)
    }
}

impl<W> std::fmt::Debug for Shard<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("subscribers", &self.subscribers.len()).finish_non_exhaustive()
    }
}

fn slot(index: usize) -> u32 {
    u32::try_from(index).expect("a process has fewer sockets than that")
}
