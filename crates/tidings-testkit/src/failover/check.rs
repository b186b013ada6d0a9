//! Compares the received events with the acknowledged ones.

use std::collections::HashMap;

use anyhow::{bail, ensure};

/// The last event.
pub(super) const END: &str = "end";

/// Which acknowledged or received events an outage may lose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Losses {
    /// None.
    None,
    /// Some, each time.
    Certain,
    /// Events that had been received and not acknowledged yet, which their publisher then repeats.
    Possible,
}

/// The events that a subscriber received, over all its connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Received {
    Event { id: String, data: String },
    Gap,
}

impl Received {
    fn id(&self) -> Option<&str> {
        match self {
            Self::Event { id, .. } => Some(id),
            Self::Gap => None,
        }
    }

    fn data(&self) -> Option<&str> {
        match self {
            Self::Event { data, .. } => Some(data),
            Self::Gap => None,
        }
    }
}

/// Checks that the log contains every acknowledged event once, in the order of its publisher, and
/// that every subscriber received exactly the log.
pub(super) fn nothing_is_lost(
    said: &[Vec<String>],
    log: &[Received],
    subscribers: &[Vec<Received>],
) -> anyhow::Result<()> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for data in log.iter().filter_map(Received::data) {
        *counts.entry(data).or_default() += 1;
    }
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    ensure!(twice.is_empty(), "published twice: {twice:?}");
    for said in said {
        let lost: Vec<_> = said.iter().filter(|data| !counts.contains_key(data.as_str())).collect();
        ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let Some((name, _)) = said.first().and_then(|data| data.split_once(':')) else { continue };
        let in_log =
            log.iter().filter_map(|received| received.data()?.split_once(':')).filter(|(by, _)| *by == name);
        let numbers = in_log.map(|(_, number)| number.parse::<u64>()).collect::<Result<Vec<_>, _>>()?;
        let turned = numbers.windows(2).find(|pair| pair[0] > pair[1]);
        ensure!(turned.is_none(), "out of order, of publisher {name}: {turned:?}");
    }
    for received in subscribers {
        let difference = received.iter().zip(log).find(|(one, other)| one != other);
        ensure!(difference.is_none(), "received, and what the log has there: {difference:?}");
        ensure!(
            received.len() == log.len(),
            "a subscriber received {} of {} events",
            received.len(),
            log.len()
        );
    }
    Ok(())
}

/// Checks that every subscriber that lacks an acknowledged event has received a gap notice at that
/// position, and that any two received their common events in the same order. Returns the number of
/// reported gaps.
pub(super) fn losses_are_reported(
    said: &[Vec<String>],
    subscribers: &[Vec<Received>],
    losses: Losses,
) -> anyhow::Result<usize> {
    let mut gaps = 0;
    for received in subscribers {
        gaps += received.iter().filter(|received| **received == Received::Gap).count();
        let received = last_times(received, losses)?;
        let place_of =
            received.iter().enumerate().filter_map(|(place, received)| Some((received.data()?, place)));
        let place_of: HashMap<_, _> = place_of.collect();
        ensure!(place_of.contains_key(END), "a subscriber has not received the last event");
        for said in said {
            if let Some((unreported, there)) = first_unreported(said, &place_of, &received)? {
                bail!("{unreported} was acknowledged, is missing, and no gap was reported there: {there:?}");
            }
        }
    }
    // A lost event that was repeated is a different event with another id, and may arrive in
    // another order.
    for received in subscribers {
        let place_of =
            received.iter().enumerate().filter_map(|(place, received)| Some((received.id()?, place)));
        let place_of: HashMap<_, _> = place_of.collect();
        for other in subscribers {
            let both = other.iter().filter_map(|received| place_of.get(received.id()?));
            ensure!(both.is_sorted(), "another order");
        }
    }
    match losses {
        Losses::None => ensure!(gaps == 0, "{gaps} gaps were reported, and nothing was lost"),
        Losses::Certain => ensure!(gaps > 0, "no gap was reported"),
        Losses::Possible => {}
    }
    Ok(gaps)
}

/// The received events, each at its last position. An event arrives once, with one exception: it
/// was lost before its publisher was answered, which then repeated it with its key. The log has no
/// record of the first copy, and a gap is reported in between.
fn last_times(received: &[Received], losses: Losses) -> anyhow::Result<Vec<Received>> {
    let mut next_times = HashMap::new();
    let mut last = Vec::new();
    for (place, item) in received.iter().enumerate().rev() {
        let again = item.data().and_then(|data| next_times.insert(data, place));
        if let Some(again) = again {
            let is_reported = received[place..again].contains(&Received::Gap);
            ensure!(losses != Losses::None && is_reported, "{item:?} arrived twice without a gap in between");
        } else {
            last.push(item.clone());
        }
    }
    last.reverse();
    Ok(last)
}

/// The first event of a publisher that a subscriber lacks without a gap notice at that position,
/// and what it received there.
fn first_unreported<'a>(
    said: &'a [String],
    place_of: &HashMap<&str, usize>,
    received: &'a [Received],
) -> anyhow::Result<Option<(&'a str, &'a [Received])>> {
    let mut from = 0;
    let mut missing = None;
    let places = said.iter().map(|data| (data.as_str(), place_of.get(data.as_str()).copied()));
    for (data, place) in places.chain([("", Some(received.len()))]) {
        let Some(place) = place else {
            missing = missing.or(Some(data));
            continue;
        };
        ensure!(place >= from, "out of order: {data}");
        let there = &received[from..place];
        if let Some(missing) = missing.take()
            && !there.contains(&Received::Gap)
        {
            return Ok(Some((missing, there)));
        }
        from = place;
    }
    Ok(None)
}
