//! Reading the log for readers that are behind their feeds, one bounded page at a time, and telling what is missing.

use std::sync::Arc;

use bytes::Bytes;
use tidings_log::{Bounds, Cursor, Filter, Located, Log, Page, Position, Unavailable};
use tidings_topic::ConnectionId;
use tokio::sync::Semaphore;

use crate::encode::{Format, GapReason, Notice, encode_entry};

/// The shared workers that replay history: at most so many pages are read at once, so that many late readers cannot crowd out
/// publishing and live delivery. Readers wait for their turn in the order in which they came.
#[derive(Debug)]
pub(crate) struct Replays {
    log: Arc<dyn Log>,
    turns: Semaphore,
    page_bytes: usize,
}

/// What a replay needs to know of a reader.
#[derive(Clone, Debug)]
pub(crate) struct ReplayRequest {
    pub(crate) filter: Arc<Filter>,
    pub(crate) format: Format,
    pub(crate) connection: ConnectionId,
    pub(crate) place: Cursor,
    /// See [`Reader::told`](crate::reader::Reader::told).
    pub(crate) told: Option<Position>,
    /// The id that the reader came with, for the notice; afterwards its place speaks for it.
    pub(crate) requested: Option<String>,
    /// A gap that is already known and shall be told with this page.
    pub(crate) gap: Option<GapReason>,
}

/// One page of history, ready to be sent.
#[derive(Debug)]
pub(crate) struct Replayed {
    /// What is missing, to be sent before the events.
    pub(crate) gap: Option<(Cursor, Bytes)>,
    /// The events, in order, each with its place.
    pub(crate) events: Vec<(Cursor, Bytes)>,
    /// How far this page reaches.
    pub(crate) place: Cursor,
    /// What is missing up to here has been told.
    pub(crate) told: Option<Position>,
    /// Whether the log ended here.
    pub(crate) at_end: bool,
}

impl Replays {
    pub(crate) fn new(log: Arc<dyn Log>, turns: usize, page_bytes: usize) -> Self {
        Self { log, turns: Semaphore::new(turns), page_bytes }
    }

    /// Reads the next page of a reader.
    pub(crate) async fn next_page(&self, mut request: ReplayRequest) -> Result<Replayed, Unavailable> {
        let _turn = self.turns.acquire().await.expect("nobody closes the semaphore");
        loop {
            let page = self.log.read(request.place.position, &request.filter, self.page_bytes).await?;
            if page.epoch == request.place.epoch {
                return self.encode(request, page).await;
            }
            // The place is of another epoch: find out what it is worth in this one, then read again from there.
            let bounds = self.log.bounds().await?;
            let epoch = bounds.epochs.current().epoch;
            let position = match bounds.epochs.locate(request.place, bounds.newest) {
                Located::Here(position) => position,
                Located::Earlier(position) => {
                    request.gap = Some(GapReason::OtherLog);
                    position
                }
                Located::Unknown => {
                    request.gap = Some(GapReason::OtherLog);
                    Position::BEFORE_ALL
                }
            };
            request.requested.get_or_insert_with(|| request.place.to_string());
            request.place = Cursor { epoch, position };
        }
    }

    async fn encode(&self, request: ReplayRequest, page: Page) -> Result<Replayed, Unavailable> {
        let missing = match request.told {
            Some(told) => page.floor.is_some_and(|floor| floor > told.max(request.place.position)),
            None => false,
        };
        let reason = request.gap.or(missing.then_some(GapReason::Expired));
        let gap = match reason {
            Some(reason) => Some(gap_notice(reason, &request, &page, &self.log.bounds().await?)),
            None => None,
        };
        let mut bytes = Vec::new();
        let mut ranges = Vec::with_capacity(page.entries.len());
        for entry in &page.entries {
            if entry.event.except.as_ref() != Some(&request.connection) {
                ranges.push((entry.cursor, encode_entry(entry, request.format, &mut bytes)));
            }
        }
        let bytes = Bytes::from(bytes);
        Ok(Replayed {
            gap,
            events: ranges.into_iter().map(|(place, range)| (place, bytes.slice(range))).collect(),
            place: Cursor { epoch: page.epoch, position: page.through },
            told: page.floor.max(request.told).or(Some(request.place.position)),
            at_end: page.at_end,
        })
    }
}

fn gap_notice(reason: GapReason, request: &ReplayRequest, page: &Page, bounds: &Bounds) -> (Cursor, Bytes) {
    let spell = |position| Cursor { epoch: page.epoch, position }.to_string();
    let notice = Notice::Gap {
        reason,
        requested: request.requested.clone().unwrap_or_else(|| request.place.to_string()),
        oldest: bounds.oldest.map(spell),
        newest: spell(bounds.newest),
    };
    // The notice moves the cursor behind what is gone, but never past an event that is still to come.
    let gone = page.floor.unwrap_or(request.place.position).max(request.place.position);
    let position = match page.entries.first() {
        Some(first) if first.cursor.position <= gone => request.place.position,
        Some(_) => gone,
        None => gone.min(page.through),
    };
    let place = Cursor { epoch: page.epoch, position };
    (place, notice.encode(place, None))
}
