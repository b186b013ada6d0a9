//! What subscribers were told, compared with what was acknowledged.

use std::collections::HashMap;

use anyhow::{bail, ensure};

use super::{END, Losses};

/// What a subscriber was told, over all its connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    Event { id: String, data: String },
    Gap,
}

impl Heard {
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

/// Whether everything that was acknowledged is in the log, once, each publisher's in its order, and everybody heard the log and nothing else.
pub(super) fn nothing_is_lost(
    said: &[Vec<String>],
    log: &[Heard],
    subscribers: &[Vec<Heard>],
) -> anyhow::Result<()> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for data in log.iter().filter_map(Heard::data) {
        *counts.entry(data).or_default() += 1;
    }
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    ensure!(twice.is_empty(), "published twice: {twice:?}");
    for said in said {
        let lost: Vec<_> = said.iter().filter(|data| !counts.contains_key(data.as_str())).collect();
        ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let Some((name, _)) = said.first().and_then(|data| data.split_once(':')) else { continue };
        let in_log =
            log.iter().filter_map(|heard| heard.data()?.split_once(':')).filter(|(by, _)| *by == name);
        let numbers = in_log.map(|(_, number)| number.parse::<u64>()).collect::<Result<Vec<_>, _>>()?;
        let turned = numbers.windows(2).find(|pair| pair[0] > pair[1]);
        ensure!(turned.is_none(), "out of order, of publisher {name}: {turned:?}");
    }
    for heard in subscribers {
        let difference = heard.iter().zip(log).find(|(one, other)| one != other);
        ensure!(difference.is_none(), "heard, and what the log has there: {difference:?}");
        ensure!(heard.len() == log.len(), "a subscriber heard {} of {} events", heard.len(), log.len());
    }
    Ok(())
}

/// Whether whoever has not heard what was acknowledged has been told of a gap at that place, and what two have both heard came in the same order. Returns
/// how many gaps were told.
pub(super) fn losses_are_told(
    said: &[Vec<String>],
    subscribers: &[Vec<Heard>],
    losses: Losses,
) -> anyhow::Result<usize> {
    let mut gaps = 0;
    for heard in subscribers {
        gaps += heard.iter().filter(|heard| **heard == Heard::Gap).count();
        let heard = last_times(heard, losses)?;
        let place_of = heard.iter().enumerate().filter_map(|(place, heard)| Some((heard.data()?, place)));
        let place_of: HashMap<_, _> = place_of.collect();
        ensure!(place_of.contains_key(END), "a subscriber has not heard the last event");
        for said in said {
            if let Some((untold, there)) = first_untold(said, &place_of, &heard)? {
                bail!("{untold} was acknowledged, is missing, and no gap was told there: {there:?}");
            }
        }
    }
    // What was lost and said again is another event under another id, and may have come in another order.
    for heard in subscribers {
        let place_of = heard.iter().enumerate().filter_map(|(place, heard)| Some((heard.id()?, place)));
        let place_of: HashMap<_, _> = place_of.collect();
        for other in subscribers {
            let both = other.iter().filter_map(|heard| place_of.get(heard.id()?));
            ensure!(both.is_sorted(), "another order");
        }
    }
    match losses {
        Losses::None => ensure!(gaps == 0, "{gaps} gaps were told, and nothing was lost"),
        Losses::Certain => ensure!(gaps > 0, "no gap was told"),
        Losses::Possible => {}
    }
    Ok(gaps)
}

/// What was heard, each event where it came last. It comes once, but for one case: it was lost before its publisher was answered, who sent it again under
/// its key. The log knows nothing of the first time any more, and a gap is told in between.
fn last_times(heard: &[Heard], losses: Losses) -> anyhow::Result<Vec<Heard>> {
    let mut next_times = HashMap::new();
    let mut last = Vec::new();
    for (place, item) in heard.iter().enumerate().rev() {
        let again = item.data().and_then(|data| next_times.insert(data, place));
        if let Some(again) = again {
            let is_told = heard[place..again].contains(&Heard::Gap);
            ensure!(losses != Losses::None && is_told, "{item:?} came twice, and no gap in between");
        } else {
            last.push(item.clone());
        }
    }
    last.reverse();
    Ok(last)
}

/// The first event of a publisher that a subscriber has not heard without having been told of a gap at that place, and what it was told there.
fn first_untold<'a>(
    said: &'a [String],
    place_of: &HashMap<&str, usize>,
    heard: &'a [Heard],
) -> anyhow::Result<Option<(&'a str, &'a [Heard])>> {
    let mut from = 0;
    let mut missing = None;
    let places = said.iter().map(|data| (data.as_str(), place_of.get(data.as_str()).copied()));
    for (data, place) in places.chain([("", Some(heard.len()))]) {
        let Some(place) = place else {
            missing = missing.or(Some(data));
            continue;
        };
        ensure!(place >= from, "out of order: {data}");
        let there = &heard[from..place];
        if let Some(missing) = missing.take()
            && !there.contains(&Heard::Gap)
        {
            return Ok(Some((missing, there)));
        }
        from = place;
    }
    Ok(None)
}
