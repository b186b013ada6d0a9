//! Where a new subscription starts, and where a finite read ends: from what a request says to
//! positions in the log.

use std::{sync::Arc, time::SystemTime};

use tidings_log::{Bounds, Cursor, Located, Log, Position, Unavailable};
use tidings_topic::{EventId, Filter, Since, Until, Validator};

use crate::{error::Error, feed::encode::GapReason, subscriber::stages::Stages};

/// Bytes of the log that `since=-50` searches at most. Fewer events than requested are found when
/// they are further back.
const LAST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Attempts to look up an id in a log that loses events meanwhile.
const LOOKUPS_MAX: usize = 4;

/// Where to begin, and what has to be reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) place: Cursor,
    /// The request named an event: a gap after it has to be reported.
    pub(crate) promises: bool,
    pub(crate) gap: Option<GapReason>,
    /// The id that was found, to be echoed.
    pub(crate) found: Option<String>,
    /// This is the end of the log: where the feeds have reached it, there is no history to read.
    pub(crate) at_end: bool,
}

/// Finds the position for a requested start.
pub(crate) async fn find(
    log: &dyn Log,
    validator: &Validator,
    since: &Since,
    filter: &Filter,
) -> Result<Start, Unavailable> {
    let (bounds, resolved) = match since {
        Since::Id(id) if !id.starts_with('#') => resolve(log, validator, id, filter).await?,
        _ => (log.bounds().await?, None),
    };
    let epoch = bounds.epochs.current().epoch;
    let at = |position| {
        let place = Cursor { epoch, position };
        Start { place, promises: false, gap: None, found: None, at_end: false }
    };
    Ok(match since {
        // Not the head of the feeds: they may have yet to deliver events that were published
        // before.
        Since::Now => Start { at_end: true, ..at(bounds.newest) },
        Since::Earliest => at(Position::BEFORE_ALL),
        Since::Ago(ago) => at(log.position_ago(*ago).await?),
        // A time in the future is now.
        Since::At(time) => {
            at(log.position_ago(SystemTime::now().duration_since(*time).unwrap_or_default()).await?)
        }
        Since::Last(count) => {
            let page = log.last(*count, filter, LAST_BYTES_MAX).await?;
            Start { place: Cursor { epoch: page.epoch, position: page.after }, ..at(page.after) }
        }
        Since::Id(id) => {
            let found = |position| Start { promises: true, found: Some(id.clone()), ..at(position) };
            let lost = |position, reason| Start { gap: Some(reason), promises: true, ..at(position) };
            match Cursor::parse(id).ok().filter(|_| id.starts_with('#')) {
                Some(cursor) => match bounds.epochs.locate(cursor, bounds.newest) {
                    Located::Here(position) => found(position),
                    Located::Earlier(position) => lost(position, GapReason::OtherLog),
                    Located::Unknown if cursor.epoch == epoch => {
                        lost(Position::BEFORE_ALL, GapReason::Unknown)
                    }
                    Located::Unknown => lost(Position::BEFORE_ALL, GapReason::OtherLog),
                },
                None => match resolved {
                    // The event survived when the log lost its end; it is unknown whether an event
                    // after it was lost.
                    Some(position) if position <= bounds.epochs.current().after => {
                        lost(position, GapReason::OtherLog)
                    }
                    Some(position) => found(position),
                    None => lost(Position::BEFORE_ALL, GapReason::Unknown),
                },
            }
        }
    })
}

/// Finds the position where a finite read ends; `None` if its id is not known.
async fn find_end(
    log: &dyn Log,
    validator: &Validator,
    until: &Until,
    filter: &Filter,
) -> Result<Option<Cursor>, Unavailable> {
    let (bounds, position) = match until {
        Until::Now => {
            let bounds = log.bounds().await?;
            let newest = bounds.newest;
            (bounds, Some(newest))
        }
        Until::Id(id) if !id.starts_with('#') => resolve(log, validator, id, filter).await?,
        Until::Id(id) => {
            let bounds = log.bounds().await?;
            let located = Cursor::parse(id).map(|cursor| bounds.epochs.locate(cursor, bounds.newest));
            let position = match located {
                Ok(Located::Here(position) | Located::Earlier(position)) => Some(position),
                Ok(Located::Unknown) | Err(_) => None,
            };
            (bounds, position)
        }
    };
    Ok(position.map(|position| Cursor { epoch: bounds.epochs.current().epoch, position }))
}

/// The positions of a subscription.
#[derive(Debug)]
pub(crate) struct Range {
    /// The first start.
    pub(crate) start: Start,
    /// The order in which history is read.
    pub(crate) stages: Option<Box<Stages>>,
    /// Where a finite read ends.
    pub(crate) end: Option<Cursor>,
}

/// Finds where each group of matchers starts, and where all end.
pub(crate) async fn find_range(
    log: &dyn Log,
    validator: &Validator,
    groups: &[(Since, Arc<Filter>)],
    until: Option<&Until>,
) -> Result<Range, Error> {
    for _ in 0..LOOKUPS_MAX {
        let mut end = None;
        if let Some(until) = until {
            let (_, filter) = &groups[0];
            end = Some(find_end(log, validator, until, filter).await?.ok_or(Error::UntilUnknown)?);
        }
        let mut starts = Vec::new();
        for (since, filter) in groups {
            starts.push((find(log, validator, since, filter).await?, filter));
        }
        // The log may lose its end between two of these.
        let epoch = starts[0].0.place.epoch;
        let is_here = |cursor: &Cursor| cursor.epoch == epoch;
        if starts.iter().all(|(start, _)| is_here(&start.place)) && end.as_ref().is_none_or(is_here) {
            starts.sort_by_key(|(start, _)| start.place.position);
            let places = starts.iter().map(|(start, filter)| (start.place.position, *filter));
            let stages = Stages::new(epoch, places, end.map(|end| end.position));
            let at_end = starts.iter().all(|(start, _)| start.at_end);
            let (first, _) = starts.swap_remove(0);
            return Ok(Range { start: Start { at_end, ..first }, stages, end });
        }
    }
    let reason = format!("the log lost events {LOOKUPS_MAX} times during the lookup of a start; try again");
    Err(Unavailable(reason).into())
}

/// Looks up a publisher's own id, and the bounds at that time. The id of an event that the
/// subscriber may not see is as unknown as one that never existed.
///
/// A log may discover that it has lost events only while it looks up an id. The bounds that it
/// returned before are no longer valid then, and so the id is looked up again.
async fn resolve(
    log: &dyn Log,
    validator: &Validator,
    id: &str,
    filter: &Filter,
) -> Result<(Bounds, Option<Position>), Unavailable> {
    let mut bounds = log.bounds().await?;
    let Ok(id): Result<EventId, _> = validator.event_id(id) else { return Ok((bounds, None)) };
    for _ in 0..LOOKUPS_MAX {
        let position = log.resolve(&id, &filter.grants).await?;
        let earlier = std::mem::replace(&mut bounds, log.bounds().await?);
        if bounds.epochs.current() == earlier.epochs.current() {
            return Ok((bounds, position));
        }
    }
    Err(Unavailable(format!("the log lost events {LOOKUPS_MAX} times during the lookup of an id; try again")))
}
