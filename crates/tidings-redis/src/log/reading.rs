//! Pages, forwards and backwards, and the index of ids.
//!
//! Redis returns stretches of the log of bounded size; the filter is applied here, where matching
//! delays no other client of Redis.

use std::sync::{Arc, atomic::Ordering};

use tidings_log::{
    Entry, EventId, Filter, Grants, Page, Position,
    parts::{Pace, Plan, Reach, just_before, number, position},
};

use super::{
    answer::Answer,
    client::{ANSWER_BYTES_MAX, LogClient},
    entry::{Raw, audience},
    epochs::Starts,
    places::place,
    scripts,
};
use crate::trouble::Trouble;

/// Up to this many topics Redis finds events by an index. For more it returns everything.
const TOPICS_MAX: usize = 100;

/// How often a page is restarted because the log changed in the meantime.
const TRIES_MAX: usize = 16;

impl LogClient {
    /// See [`Log::read`](tidings_log::Log::read).
    pub(super) async fn read(
        &self,
        after: Position,
        filter: &Filter,
        bytes_max: usize,
    ) -> Result<Page, Trouble> {
        let after_place = place(number(after));
        let budget = bytes_max.min(ANSWER_BYTES_MAX).to_string();
        let plan = Plan::new(filter);
        let topics = topics_of(&plan);
        for _ in 0..TRIES_MAX {
            let answer = self.read_with_floors(&after_place, &budget, &topics).await?;
            let page = self.page(&answer, after, bytes_max).await?;
            let Some((floor, version)) = self.floors.draft(page.epoch, &plan, number(after)) else {
                continue;
            };
            let floor = floor.finish(filter).await;
            // Another page may have brought the floors of later drops: those events were in this
            // page and are not missed.
            let is_ahead = version > answer.number(3)?;
            let first = page.entries.first().map(|entry| entry.cursor.position);
            if !(is_ahead && first.is_some() && floor >= first) {
                let entries = accepted(page.entries, filter).await;
                return Ok(Page { entries, floor, ..page });
            }
        }
        Err(Trouble::Away("retention outruns this read, or the epoch of the log keeps changing".to_owned()))
    }

    /// The reply, before the filter is applied and without a floor.
    async fn page(&self, answer: &Answer, after: Position, bytes_max: usize) -> Result<Page, Trouble> {
        let epoch = answer.epoch(0)?;
        let starts = self.starts_through(epoch).await?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut at_end = answer.number(2)? == 1;
        let mut through = number(after);
        for raw in answer.entries(6)? {
            if !entries.is_empty() && bytes >= bytes_max {
                at_end = false;
                break;
            }
            through = raw.place;
            if let Some(entry) = self.entry(&raw, &starts) {
                bytes += entry.memory_bytes();
                entries.push(Arc::new(entry));
            }
        }
        if at_end {
            through = through.max(answer.place(1)?);
        }
        Ok(Page { epoch, after, entries, through: position(through).max(after), at_end, floor: None })
    }

    /// See [`Log::last`](tidings_log::Log::last).
    pub(super) async fn last(
        &self,
        count: usize,
        filter: &Filter,
        bytes_max: usize,
    ) -> Result<Page, Trouble> {
        let pace = Pace::of(filter);
        'epochs: for _ in 0..TRIES_MAX {
            // The floors first: what retention drops afterwards comes before what is found.
            let answer = self.read_with_floors(&place(u64::MAX), "0", &[]).await?;
            let (epoch, newest) = (answer.epoch(0)?, answer.place(1)?);
            let starts = self.starts_through(epoch).await?;
            let plan = Plan::new(filter);
            let topics = topics_of(&plan);
            let Some((floor, _)) = self.floors.draft(epoch, &plan, 0) else { continue };
            let floor = floor.finish(filter).await;

            let mut newest_first = Vec::new();
            let mut bytes = 0;
            let mut before = place(newest + 1);
            let mut at_start = false;
            while newest_first.len() < count && bytes < bytes_max && !at_start {
                let budget = (bytes_max - bytes).min(ANSWER_BYTES_MAX).to_string();
                let arguments = [&[&*before, &*budget], &*topics].concat();
                let answer = self.call(&scripts::READ_BACK, &arguments).await?;
                if answer.epoch(0)? != epoch {
                    continue 'epochs;
                }
                at_start = answer.number(2)? == 1;
                for raw in answer.entries(3)? {
                    if newest_first.len() == count || bytes >= bytes_max {
                        break;
                    }
                    pace.step().await;
                    before = place(raw.place);
                    let Some(entry) = self.entry(&raw, &starts) else { continue };
                    bytes += entry.memory_bytes();
                    if filter.accepts(&entry.event) {
                        newest_first.push(Arc::new(entry));
                    }
                }
            }
            newest_first.reverse();
            let through = position(newest);
            let after = newest_first.first().map_or(through, |first| just_before(first.cursor.position));
            return Ok(Page { epoch, after, entries: newest_first, through, at_end: true, floor });
        }
        Err(Trouble::Away("the epoch of the log keeps changing".to_owned()))
    }

    /// An entry of the stream. An entry that is no event is counted.
    pub(super) fn entry(&self, raw: &Raw<'_>, starts: &Starts) -> Option<Entry> {
        let entry = raw.entry(starts);
        if entry.is_none() {
            self.rejected.fetch_add(1, Ordering::Relaxed);
        }
        entry
    }

    /// Reads a stretch, and brings the floors up to date.
    async fn read_with_floors(&self, after: &str, budget: &str, topics: &[&str]) -> Result<Answer, Trouble> {
        let limits = &self.settings.limits;
        let mut version = self.floors.version();
        loop {
            let known = version.to_string();
            let arguments = [&[after, budget, &known], topics].concat();
            let answer = self.call(&scripts::READ, &arguments).await?;
            let follows = self.floors.learn(version, &answer, [0, 3, 4, 5], limits)?;
            // A reply that lists changes and does not reach their end leaves more to read.
            let reported = answer.number(3)?;
            let is_complete = answer.list(6).is_ok_and(|events| !events.is_empty()) || answer.number(2)? == 1;
            if follows && is_complete {
                return Ok(answer);
            }
            version = if follows { reported } else { 0 };
        }
    }

    /// See [`Log::resolve`](tidings_log::Log::resolve).
    pub(super) async fn resolve(&self, id: &EventId, grants: &Grants) -> Result<Option<Position>, Trouble> {
        if id.is_generated() {
            return Ok(None);
        }
        let pace = Pace::of_grants(grants);
        let mut after = String::new();
        loop {
            let answer = self.call(&scripts::RESOLVE, &[id.as_str(), &after]).await?;
            let mut found = 0;
            for event in answer.lists() {
                pace.step().await;
                found += 1;
                let place_found = event.place(0)?;
                let Some(audience) = audience(&event.text(1)?) else { continue };
                if !audience.private || grants.cover_any(&audience.topics) {
                    return Ok(Some(position(place_found)));
                }
                after = place(place_found);
            }
            if found == 0 {
                return Ok(None);
            }
        }
    }
}

/// The topics by which Redis can find the requested events; none if it cannot.
fn topics_of<'f>(plan: &Plan<'f>) -> Vec<&'f str> {
    match &plan.reach {
        Reach::Topics(topics) if topics.len() <= TOPICS_MAX => {
            topics.iter().map(|(topic, _)| topic.as_str()).collect()
        }
        _ => Vec::new(),
    }
}

async fn accepted(entries: Vec<Arc<Entry>>, filter: &Filter) -> Vec<Arc<Entry>> {
    let pace = Pace::of(filter);
    let mut accepted = Vec::new();
    for entry in entries {
        pace.step().await;
        if filter.accepts(&entry.event) {
            accepted.push(entry);
        }
    }
    accepted
}
