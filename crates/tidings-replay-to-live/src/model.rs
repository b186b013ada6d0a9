//! What a subscriber must have received, derived from the truth alone.
//!
//! The log of one epoch is a list of events by position: what earlier epochs left, then its own. A
//! connection is a position in such a list that only moves forward. Every event between two
//! positions that the subscriber may receive must have been delivered, or a gap whose id covers it
//! must have been reported; and what a gap covers must be gone indeed.

use std::collections::{HashMap, HashSet};

use tidings::{
    ConnectionId,
    log::{Cursor, Epoch},
};

use crate::world::{Outcome, Said, Wish, WorldState, number_of, own_id};

/// The kind of subscriber.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) wishes: Vec<Wish>,
    pub(crate) grants: Vec<Wish>,
}

/// Where a connection asked to start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    Now,
    Earliest,
    Last(usize),
    /// A generated id, of an event or of a notice.
    Place(Cursor),
    /// The id that a publisher gave to the event with this number.
    OwnId(usize),
    /// An id of another log.
    Foreign(String),
    /// An id beyond the end of the log.
    Beyond(String),
    /// An id that never existed.
    Garbage(String),
}

/// One connection as its subscriber saw it.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) asked: Asked,
    pub(crate) id: ConnectionId,
    /// What was certainly in the log before the request.
    pub(crate) newest_before: Option<Cursor>,
    /// The position of the subscription according to the hub, before it sent anything.
    pub(crate) place: Cursor,
    /// How many events had been attempted when the subscription was open.
    pub(crate) attempted: usize,
    pub(crate) received: Vec<Received>,
}

/// Something that was received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Received {
    Event {
        number: usize,
        id: String,
    },
    Gap {
        reason: String,
        requested: String,
        oldest: Option<Cursor>,
        newest: Cursor,
        place: Cursor,
        attempted: usize,
    },
    /// A notice of another kind, which only moves the cursor.
    Notice {
        place: Cursor,
    },
}

/// What was checked.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Figures {
    pub(crate) published: usize,
    pub(crate) delivered: usize,
    pub(crate) connections: usize,
    pub(crate) expired: usize,
    pub(crate) unknown: usize,
    pub(crate) other_log: usize,
}

/// The truth, ordered for the checker.
pub(crate) struct Truth {
    world: WorldState,
    /// How many events the log keeps at most, if it is bounded at all.
    kept_max: Option<usize>,
    views: Vec<View>,
    epochs: HashMap<Epoch, usize>,
}

/// The log as it was in one epoch.
struct View {
    /// The event at each position; 0 is never one. A hole is an event that was lost before anything
    /// observed it.
    events: Vec<Option<usize>>,
    /// Where this epoch began.
    after: usize,
    replaced: bool,
}

/// The position of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// After everything up to here in this view. `gap_due`: a notice is due before anything else.
    At { view: usize, position: usize, gap_due: bool },
    /// The start promised nothing, and nothing has been received yet that shows the position.
    Somewhere { view: usize },
    /// The request named no event that can be found: a notice of it is due before anything else.
    Lost,
}

impl Truth {
    pub(crate) fn new(mut world: WorldState, kept_max: Option<usize>, connections: &[&Connection]) -> Self {
        place_what_only_subscribers_saw(&mut world, connections);
        let mut views: Vec<View> = Vec::new();
        for note in &world.epochs {
            let after = number_of(note.start.after);
            let kept = views.last().filter(|_| !note.replaced);
            let mut events = kept.map_or_else(Vec::new, |view| view.events.clone());
            events.resize(after + 1, None);
            let own = world.placed.iter().filter(|(cursor, _)| cursor.epoch == note.start.epoch);
            for (cursor, number) in own {
                let position = number_of(cursor.position);
                if events.len() <= position {
                    events.resize(position + 1, None);
                }
                events[position] = Some(*number);
            }
            views.push(View { events, after, replaced: note.replaced });
        }
        let epochs = world.epochs.iter().enumerate().map(|(view, note)| (note.start.epoch, view)).collect();
        Self { world, kept_max, views, epochs }
    }

    pub(crate) fn published(&self) -> usize {
        self.world.placed.len()
    }

    /// Compares what a connection received with the truth.
    pub(crate) fn check(
        &self,
        person: &Person,
        connection: &Connection,
        figures: &mut Figures,
    ) -> Result<(), String> {
        figures.connections += 1;
        let mut check = Check {
            truth: self,
            person,
            connection,
            state: self.start(person, connection)?,
            received: HashSet::new(),
        };
        for (index, received) in connection.received.iter().enumerate() {
            match received {
                Received::Event { number, id } => {
                    figures.delivered += 1;
                    check.event(*number, id)
                }
                Received::Notice { place } => check.notice(*place),
                Received::Gap { reason, .. } => {
                    match reason.as_str() {
                        "expired" => figures.expired += 1,
                        "unknown" => figures.unknown += 1,
                        _ => figures.other_log += 1,
                    }
                    check.gap(index == 0, received)
                }
            }
            .map_err(|error| {
                let before = &connection.received[index.saturating_sub(3)..index];
                let kept_max = self.kept_max;
                let state = check.state;
                format!(
                    "item {index}, {received:?}: {error} (at {state:?} after {before:?}, {kept_max:?} are kept)"
                )
            })?;
        }
        Ok(())
    }

    fn start(&self, person: &Person, connection: &Connection) -> Result<State, String> {
        let view = self.view_of(connection.place)?;
        let at = |place: Cursor, gap_due| -> Result<State, String> {
            Ok(State::At { view: self.view_of(place)?, position: number_of(place.position), gap_due })
        };
        Ok(match &connection.asked {
            Asked::Now => {
                let before = connection.newest_before.filter(|newest| newest.epoch == connection.place.epoch);
                if before.is_some_and(|before| connection.place.position < before.position) {
                    return Err("it starts before events that were published earlier".to_owned());
                }
                let position = number_of(connection.place.position);
                let seen = self.views[view].events.iter().take(position + 1);
                if seen.flatten().any(|number| *number >= connection.attempted) {
                    return Err("it starts behind events that were published afterwards".to_owned());
                }
                at(connection.place, false)?
            }
            Asked::Earliest | Asked::Last(_) => State::Somewhere { view },
            Asked::Place(cursor) => at(*cursor, cursor.epoch != connection.place.epoch)?,
            Asked::OwnId(number) => self.start_at_own_id(person, connection, *number, view)?,
            Asked::Foreign(_) | Asked::Beyond(_) | Asked::Garbage(_) => State::Lost,
        })
    }

    fn start_at_own_id(
        &self,
        person: &Person,
        connection: &Connection,
        number: usize,
        view: usize,
    ) -> Result<State, String> {
        let said = &self.world.said[number];
        if !said.is_visible(&person.grants) {
            return Ok(State::Lost);
        }
        let reported_first = match connection.received.first() {
            Some(Received::Gap { reason, place, .. }) if reason == "unknown" => Some(self.view_of(*place)?),
            _ => None,
        };
        if said.cursors.is_empty() {
            // Its publisher got no answer, and the log lost it before the observer reached it: it
            // may have been there, or not.
            return Ok(if reported_first.is_some() { State::Lost } else { State::Somewhere { view } });
        }
        let Some(position) = self.position_in(view, number) else { return Ok(State::Lost) };
        let gone = |view| {
            let there = self.position_in(view, number);
            there.is_none_or(|position| self.may_have_expired(position, connection.attempted))
        };
        if reported_first.is_some_and(gone) {
            return Ok(State::Lost);
        }
        Ok(State::At { view, position, gap_due: position <= self.views[view].after })
    }

    /// The position of an event in a view, if it is there.
    fn position_in(&self, view: usize, number: usize) -> Option<usize> {
        let positions = self.world.said[number].cursors.iter().map(|cursor| number_of(cursor.position));
        positions.into_iter().find(|position| self.views[view].events.get(*position) == Some(&Some(number)))
    }

    fn view_of(&self, place: Cursor) -> Result<usize, String> {
        self.epochs.get(&place.epoch).copied().ok_or_else(|| format!("no log was in the epoch of {place}"))
    }

    /// Whether an event at this position can have expired when this many had been attempted.
    fn may_have_expired(&self, position: usize, attempted: usize) -> bool {
        self.kept_max.is_some_and(|kept_max| position + kept_max <= attempted)
    }

    /// How much of a view up to this position is left in a later one.
    fn kept(&self, view: usize, position: usize, later: usize) -> usize {
        let between = self.views.get(view + 1..=later).unwrap_or_default();
        between.iter().fold(position, |kept, view| if view.replaced { 0 } else { kept.min(view.after) })
    }
}

/// An event whose publisher got no answer, and that the log lost before the observer reached it, is
/// known from its id alone. It may have been appended again in a later epoch.
fn place_what_only_subscribers_saw(world: &mut WorldState, connections: &[&Connection]) {
    let begun: HashMap<_, _> =
        world.epochs.iter().enumerate().map(|(index, note)| (note.start.epoch, index)).collect();
    for received in connections.iter().flat_map(|connection| &connection.received) {
        let Received::Event { number, id } = received else { continue };
        let Ok(cursor) = Cursor::parse(id) else { continue };
        let said = &world.said[*number];
        let is_again = said.cursors.iter().all(|known| begun.get(&cursor.epoch) < begun.get(&known.epoch));
        let is_seen_first = said.outcome == Outcome::Unknown || !said.cursors.is_empty();
        if is_again && is_seen_first {
            world.place(*number, cursor);
        }
    }
}

struct Check<'t> {
    truth: &'t Truth,
    person: &'t Person,
    connection: &'t Connection,
    state: State,
    received: HashSet<(usize, Option<Cursor>)>,
}

impl Check<'_> {
    fn event(&mut self, number: usize, id: &str) -> Result<(), String> {
        let said = &self.truth.world.said[number];
        if said.outcome == Outcome::Refused {
            return Err("it was not published".to_owned());
        }
        if !self.may_receive(said) {
            return Err(format!("it is not for this subscriber: {said:?}"));
        }
        let cursor =
            if said.has_own_id && id == own_id(number) {
                self.here(number).or(said.cursors.last().copied())
            } else {
                let cursors = said.cursors.iter().copied();
                let named = cursors.into_iter().find(|cursor| !said.has_own_id && cursor.to_string() == id);
                Some(named.ok_or_else(|| {
                    format!("it has an unexpected id; its positions are {:?}", said.cursors)
                })?)
            };
        if !self.received.insert((number, cursor)) {
            return Err("it came before".to_owned());
        }
        let Some(cursor) = cursor else { return Ok(()) };
        let place = number_of(cursor.position);
        let (view, position) = self.move_to(None, place - 1)?;
        if self.truth.view_of(cursor)? > view {
            return Err("the log has lost its end, and nothing was reported".to_owned());
        }
        if self.truth.views[view].events.get(place) != Some(&Some(number)) {
            return Err("it had been lost by then".to_owned());
        }
        if place <= position {
            return Err("it is out of order".to_owned());
        }
        self.state = State::At { view, position: place, gap_due: false };
        Ok(())
    }

    /// The position of an event in the log as the connection knows it.
    fn here(&self, number: usize) -> Option<Cursor> {
        let (State::At { view, .. } | State::Somewhere { view }) = self.state else { return None };
        let position = self.truth.position_in(view, number)?;
        let cursors = self.truth.world.said[number].cursors.iter().copied();
        let there = cursors.filter(|cursor| number_of(cursor.position) == position);
        // A lost event that was appended again may have the same position in the next epoch.
        there
            .filter(|cursor| self.truth.view_of(*cursor) <= Ok(view))
            .max_by_key(|cursor| self.truth.view_of(*cursor).ok())
    }

    fn notice(&mut self, place: Cursor) -> Result<(), String> {
        let view = self.truth.view_of(place)?;
        let (_, position) = self.move_to(Some(view), number_of(place.position))?;
        if number_of(place.position) < position {
            return Err("its id goes back".to_owned());
        }
        self.state = State::At { view, position: number_of(place.position), gap_due: false };
        Ok(())
    }

    /// Nothing may be missing up to this position. Returns the previous position of the connection.
    fn move_to(&self, view: Option<usize>, through: usize) -> Result<(usize, usize), String> {
        let (stood_in, position) = match self.state {
            State::At { gap_due: true, .. } | State::Lost => return Err("a gap is not reported".to_owned()),
            State::At { view, position, .. } => (view, position),
            State::Somewhere { view } => {
                self.check_start(view, through)?;
                (view, through)
            }
        };
        if view.is_some_and(|view| view != stood_in) {
            return Err("the epoch changes, and nothing was reported".to_owned());
        }
        match self.between(stood_in, position, through).find(|(_, said)| self.may_receive(said)) {
            Some((missing, said)) => Err(format!("{missing} is missing: {said:?}")),
            None => Ok((stood_in, position)),
        }
    }

    /// A start that promised nothing: is this a valid position?
    fn check_start(&self, view: usize, through: usize) -> Result<(), String> {
        let attempted = self.connection.attempted;
        let wished = |from, to| self.between(view, from, to).filter(|(_, said)| self.is_wished(said));
        let left_out = wished(0, through).find(|(position, said)| {
            self.may_receive(said) && !self.truth.may_have_expired(*position, attempted)
        });
        let Asked::Last(count) = self.connection.asked else {
            return left_out
                .map_or(Ok(()), |(position, _)| Err(format!("it does not start with {position}")));
        };
        let newest = self.connection.newest_before;
        let newest = newest.filter(|newest| self.truth.view_of(*newest) == Ok(view));
        if newest.is_some_and(|newest| wished(through, number_of(newest.position)).count() > count) {
            return Err(format!("more than the last {count} come"));
        }
        // Events published while the subscription was being opened may be among the last, or follow
        // them.
        let end = self.truth.views[view].events.len();
        let published_by_then = wished(through, end).filter(|(position, _)| *position <= attempted);
        if left_out.is_some() && newest.is_some() && published_by_then.count() < count {
            return Err(format!("fewer than the last {count} come"));
        }
        Ok(())
    }

    fn gap(&mut self, is_first: bool, gap: &Received) -> Result<(), String> {
        let Received::Gap { reason, requested, oldest, newest, place, attempted } = gap else {
            return Ok(());
        };
        let view = self.truth.view_of(*place)?;
        let position = number_of(place.position);
        self.check_bounds(*oldest, *newest, *attempted)?;
        if is_first && !self.is_spelled_right(requested) {
            return Err("that was not requested".to_owned());
        }
        let from = match (reason.as_str(), self.state) {
            ("unknown", State::Lost) if is_first => 0,
            ("unknown", _) => return Err("the id is known".to_owned()),
            ("other-log", State::Lost) if is_first => match self.connection.asked {
                Asked::Garbage(_) => return Err("no log ever had this id".to_owned()),
                // It lies beyond the end of its epoch, so that end is where it counts from.
                Asked::Beyond(_) => position,
                _ => 0,
            },
            ("other-log", State::At { view: old, gap_due, position: old_position })
                if old < view || gap_due =>
            {
                self.truth.kept(old, old_position, view)
            }
            ("other-log", State::Somewhere { view: old }) if old < view => 0,
            ("expired", State::At { view: old, position, gap_due: false }) if old == view => position,
            ("expired", State::Somewhere { view: old }) if old == view => 0,
            _ => return Err("there is no such gap".to_owned()),
        };
        if position < from {
            return Err("its id goes back".to_owned());
        }
        let gone = || self.between(view, from, position).filter(|(_, said)| self.is_wished(said));
        if reason == "expired" && gone().next().is_none() {
            return Err("nothing is missing".to_owned());
        }
        let kept = gone().find(|(position, said)| {
            self.may_receive(said) && !self.truth.may_have_expired(*position, *attempted)
        });
        if let Some((kept, said)) = kept {
            return Err(format!("{kept} is still kept: {said:?}"));
        }
        self.state = State::At { view, position, gap_due: false };
        Ok(())
    }

    fn check_bounds(&self, oldest: Option<Cursor>, newest: Cursor, attempted: usize) -> Result<(), String> {
        self.truth.view_of(newest)?;
        if number_of(newest.position) > attempted {
            return Err("so much was not published".to_owned());
        }
        let Some(oldest) = oldest else { return Ok(()) };
        let before = number_of(oldest.position) - 1;
        if oldest.epoch != newest.epoch || oldest.position > newest.position {
            return Err("the oldest is newer than the newest".to_owned());
        }
        if before > 0 && !self.truth.may_have_expired(before, attempted) {
            return Err("older ones are kept".to_owned());
        }
        Ok(())
    }

    fn is_spelled_right(&self, requested: &str) -> bool {
        match &self.connection.asked {
            Asked::Now | Asked::Earliest | Asked::Last(_) => Cursor::parse(requested).is_ok(),
            Asked::Place(cursor) => requested == cursor.to_string() || Cursor::parse(requested).is_ok(),
            Asked::OwnId(number) => requested == own_id(*number) || Cursor::parse(requested).is_ok(),
            Asked::Foreign(id) | Asked::Beyond(id) | Asked::Garbage(id) => requested == id,
        }
    }

    fn between(&self, view: usize, after: usize, through: usize) -> impl Iterator<Item = (usize, &Said)> {
        let events = &self.truth.views[view].events;
        let end = events.len().min(through.saturating_add(1));
        let stretch = events.get(after + 1..end).unwrap_or_default();
        let numbered = stretch.iter().enumerate();
        numbered.filter_map(move |(index, number)| {
            number.map(|number| (after + 1 + index, &self.truth.world.said[number]))
        })
    }

    fn may_receive(&self, said: &Said) -> bool {
        self.is_wished(said) && said.except.as_ref() != Some(&self.connection.id)
    }

    /// The log knows nothing of connections: what it reports of the past holds for what a
    /// subscriber asked for and is granted.
    fn is_wished(&self, said: &Said) -> bool {
        said.is_for(&self.person.wishes, &self.person.grants)
    }
}
