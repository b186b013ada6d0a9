//! The shard: the driver of cursors whose connections are bare sockets.
//!
//! A shard owns its subscribers outright, so its hot path takes no lock but that of the feed it sends from. It knows neither sockets nor
//! clocks: bytes leave through [`Wire`], time comes as an argument, and [`driver`] brings both. That is how it is tested.
//!
//! How an event travels through it:
//!
//! 1. The writer has appended to a feed and rings the shard's [`Seat`](crate::inbox::Seat) there: the **group** of subscribers who read
//!    this feed has a round to make ([`Shard::grown`]).
//! 2. [`Shard::slice`] visits some of the group's members, then returns, so that new input is looked for in between: what arrives meanwhile
//!    is sent along to all who have not been visited yet. Coalescing is a matter of scheduling, there is no timer. Groups take turns.
//! 3. A visit ([`Shard::visit`]) is at most one `write` of everything that the subscriber lacks of a segment, straight from the feed. Where
//!    a socket takes only a part, the rest of the event that is cut is kept and goes first the next time ([`Pending`](pending::Pending)).
//! 4. Who is owed more than one write gets a place in the queue of those who are *owed* (a page of history, a socket that has become
//!    writable again, several matchers), and is visited from there.
//!
//! Invariants:
//! - The bytes that a socket takes are a prefix of: head, then whole chunks, each event once, in order.
//! - A subscriber without anything to send has no buffer ([`Subscriber::pending`] is `None`).
//! - A visit never waits; history is read elsewhere and arrives as a message.

#[cfg(target_os = "linux")]
pub(crate) mod driver;
mod filters;
mod groups;
mod pending;
mod subscriber;
#[cfg(test)]
mod tests;
mod visit;

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use slab::Slab;

pub(crate) use self::subscriber::Newcomer;
use self::{
    filters::Filters,
    groups::Groups,
    subscriber::Subscriber,
    visit::{Gathered, Visit},
};
use crate::{
    hub::Shared,
    inbox::Seat,
    replay::{ReplayRequest, Replayed},
};

/// Sends of one slice, after which the shard looks for new input.
const SLICE_SENDS: usize = 64;
/// Visits that find nothing to send and together cost about as much as a send.
const VISITS_PER_SEND: usize = 32;
/// Bytes that a subscriber may send unasked on a stream. More of them end the connection.
pub(crate) const INPUT_BYTES_MAX: usize = 8 * 1024;
/// A socket that has taken nothing of what it is owed for so long is closed. Its client resumes by id.
const STALLED_MAX: Duration = Duration::from_secs(45);
/// And for so long once the hub is closed.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// The connection of a subscriber.
pub(crate) trait Wire {
    /// Takes what it can without waiting. Every byte for a subscriber leaves through here.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Reads what is there without waiting; 0 is the end.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;
    /// Everything has been said.
    fn shut_down(&mut self);
}

/// Names a subscriber of a shard, also one that has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub(crate) slot: u32,
    pub(crate) serial: u32,
}

/// See the module's documentation.
pub(crate) struct Shard<W> {
    subscribers: Slab<Subscriber<W>>,
    groups: Groups,
    filters: Filters,
    /// Who is owed something that its group's feed alone does not bring.
    owed: VecDeque<Key>,
    /// Who shall hear a heartbeat.
    silent: VecDeque<Key>,
    /// History that has to be read, for the driver.
    pub(crate) requests: Vec<(Key, ReplayRequest)>,
    /// Bytes that wait for sockets which are full, outside of feeds. What has only just come, and waits for its turn, is not counted: the
    /// next visit sends it, or finds the socket full.
    pending_bytes: usize,
    next_serial: u32,
    gathered: Gathered,
}

impl<W: Wire> Shard<W> {
    pub(crate) fn new() -> Self {
        Self {
            subscribers: Slab::new(),
            groups: Groups::default(),
            filters: Filters::default(),
            owed: VecDeque::new(),
            silent: VecDeque::new(),
            requests: Vec::new(),
            pending_bytes: 0,
            next_serial: 0,
            gathered: Gathered::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    pub(crate) fn wire(&self, key: Key) -> Option<&W> {
        let subscriber = self.subscribers.get(key.slot as usize);
        subscriber.filter(|subscriber| subscriber.serial == key.serial).map(|subscriber| &subscriber.wire)
    }

    /// Takes a subscriber in, who is sent what it is owed from the next slice on.
    pub(crate) fn adopt(
        &mut self,
        mut newcomer: Newcomer<W>,
        new_seat: impl Fn(u32) -> Seat,
        now: Instant,
    ) -> Key {
        let filter_number = self.filters.intern(&mut newcomer.reader.filter);
        newcomer.reader.hand_over();
        let entry = self.subscribers.vacant_entry();
        let key = Key { slot: slot(entry.key()), serial: self.next_serial };
        self.next_serial = self.next_serial.wrapping_add(1);
        let feeds = newcomer.reader.feeds();
        let places = feeds.map(|feed| self.groups.join(feed, key.slot, &new_seat)).collect();
        let subscriber = Subscriber::new(newcomer, key.serial, filter_number, places, now);
        entry.insert(subscriber);
        self.owe(key);
        key
    }

    /// The feed of this group has grown, at this point of what the writer writes or later.
    pub(crate) fn grown(&mut self, group: u32, since: u64) {
        self.groups.mark_grown(group, since);
    }

    /// Up to where everybody whose socket takes it has been sent what was written; none if that is everything.
    pub(crate) fn served(&self) -> Option<u64> {
        self.groups.served()
    }

    /// A page of history has been read.
    pub(crate) fn take_page(&mut self, key: Key, page: Replayed) {
        self.change(key, |subscriber, _| subscriber.take_page(page));
        self.owe(key);
    }

    /// The socket has something to read: at the end of input the subscriber has gone.
    pub(crate) fn readable(&mut self, key: Key, shared: &Shared) {
        let Some(subscriber) = self.subscriber_mut(key) else { return };
        if subscriber.read_input().is_err() {
            self.remove(key.slot, shared);
        }
    }

    /// The connection is of no use.
    pub(crate) fn drop_subscriber(&mut self, key: Key, shared: &Shared) {
        if self.subscriber_mut(key).is_some() {
            self.remove(key.slot, shared);
        }
    }

    /// The socket takes bytes again.
    pub(crate) fn writable(&mut self, key: Key) {
        let was_blocked = self.change(key, |subscriber, _| std::mem::take(&mut subscriber.is_blocked));
        if was_blocked == Some(true) {
            self.owe(key);
        }
    }

    /// Makes about [`SLICE_SENDS`] sends. Whether there is more to do.
    pub(crate) fn slice(&mut self, shared: &Shared, now: Instant) -> bool {
        let mut work = SLICE_SENDS * VISITS_PER_SEND;
        while work > 0 && !self.is_done() {
            // One of each in turn, so that nobody waits for somebody else's flood.
            if let Some(slot) = self.groups.next_member() {
                work = work.saturating_sub(self.visit(slot, shared, now));
            }
            if let Some(key) = self.owed.pop_front()
                && let Some(subscriber) = self.subscriber_mut(key)
            {
                subscriber.is_owed = false;
                work = work.saturating_sub(self.visit(key.slot, shared, now));
            }
            if let Some(key) = self.silent.pop_front() {
                let visit = self.change(key, |subscriber, _| subscriber.send_heartbeat(now));
                if let Some(Visit::Gone) = visit {
                    self.remove(key.slot, shared);
                }
                work = work.saturating_sub(VISITS_PER_SEND);
            }
        }
        !self.is_done()
    }

    fn is_done(&self) -> bool {
        self.groups.is_clean() && self.owed.is_empty() && self.silent.is_empty()
    }

    /// To be called about once a second: finds heartbeats, ends and stalled sockets that are due.
    pub(crate) fn sweep(&mut self, shared: &Shared, now: Instant) {
        let is_closed = shared.closing.is_closed(now.into());
        let mut stalled = Vec::new();
        let mut ending = Vec::new();
        for (index, subscriber) in &self.subscribers {
            let key = Key { slot: slot(index), serial: subscriber.serial };
            let patience = if is_closed { FAREWELL_MAX } else { STALLED_MAX };
            if subscriber.is_stalled(now, patience) {
                stalled.push(key.slot);
            } else if subscriber.due_end(shared, now).is_some() {
                ending.push(key);
            } else if subscriber.is_silent(now) {
                self.silent.push_back(key);
            }
        }
        for slot in stalled {
            self.remove(slot, shared);
        }
        for key in ending {
            self.owe(key);
        }
        self.filters.forget_unused();
    }

    /// The cost of a visit, in visits.
    fn visit(&mut self, slot: u32, shared: &Shared, now: Instant) -> usize {
        let Some(serial) = self.subscribers.get(slot as usize).map(|subscriber| subscriber.serial) else {
            return 1;
        };
        let key = Key { slot, serial };
        let mut gathered = std::mem::take(&mut self.gathered);
        let visit =
            self.change(key, |subscriber, filters| subscriber.visit(shared, filters, &mut gathered, now));
        self.gathered = gathered;
        match visit {
            None | Some(Visit::Idle) => return 1,
            Some(Visit::Sent) => {}
            Some(Visit::More) => self.owe(key),
            Some(Visit::Blocked) => self.stay_in_budget(key, shared),
            Some(Visit::Replay(request)) => self.requests.push((key, *request)),
            Some(Visit::Gone) => self.remove(slot, shared),
        }
        VISITS_PER_SEND
    }

    /// What waits for sockets that do not take it is bounded for all together: beyond, a socket that has just filled up gives back the
    /// page that it can read again later, and if that is not enough, it is closed. Its client resumes by id.
    fn stay_in_budget(&mut self, key: Key, shared: &Shared) {
        if self.pending_bytes <= shared.settings.pending_bytes_max {
            return;
        }
        self.change(key, |subscriber, _| subscriber.give_page_back());
        if self.pending_bytes > shared.settings.pending_bytes_max {
            tracing::debug!("a stalled connection was closed: too much waits for sockets");
            self.remove(key.slot, shared);
        }
    }

    /// Lets something happen to a subscriber, and counts what then waits for its socket.
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

    fn remove(&mut self, slot: u32, shared: &Shared) {
        let mut subscriber = self.subscribers.remove(slot as usize);
        self.pending_bytes -= subscriber.blocked_bytes();
        for place in std::mem::take(&mut subscriber.places) {
            for moved in self.groups.leave(place).into_iter().flatten() {
                if let Some(subscriber) = self.subscribers.get_mut(moved.slot as usize) {
                    subscriber.has_moved(moved);
                }
            }
        }
        subscriber.reader.leave(&shared.feeds);
    }

    fn owe(&mut self, key: Key) {
        let Some(subscriber) = self.subscriber_mut(key) else { return };
        if !std::mem::replace(&mut subscriber.is_owed, true) {
            self.owed.push_back(key);
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
