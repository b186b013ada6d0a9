//! Reads the log for readers that are behind their feeds, one bounded page at a time, and reports
//! gaps.

pub(crate) mod counts;
mod pages;

use std::{
    panic::resume_unwind,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tidings_log::{Bounds, Cursor, Filter, Located, Log, Position, Unavailable, parts::lock};
use tidings_topic::ConnectionId;
use tokio::{runtime::Handle, sync::Semaphore, task::JoinHandle, time::Instant};

use self::{
    counts::{PageSource, ReplayCounts, ReplayStats},
    pages::{EncodedPage, PageKey, Pages},
};
use crate::{
    feed::encode::{Format, GapReason, Notice},
    feed::frames::{FrameMeta, Frames},
};

/// The shared workers that replay history: a limited number of pages is read at once, so that many
/// late readers cannot crowd out publishing and live delivery. Readers queue in the order of their
/// requests.
#[derive(Debug)]
pub(crate) struct Replays {
    log: Arc<dyn Log>,
    permits: Semaphore,
    permits_max: usize,
    page_bytes: usize,
    pages: Mutex<Pages>,
    counts: ReplayCounts,
}

/// What a replay needs to know of a reader.
#[derive(Clone, Debug)]
pub(crate) struct ReplayRequest {
    pub(crate) filter: Arc<Filter>,
    /// Nothing after this position is to be sent: another filter applies there.
    pub(crate) until: Option<Position>,
    pub(crate) format: Format,
    pub(crate) connection: ConnectionId,
    pub(crate) place: Cursor,
    /// How far entries had been routed to feeds when the reader found itself behind its own: none
    /// of them begins later.
    pub(crate) routed: Cursor,
    /// See [`Reader::reported`](crate::subscriber::reader::Reader::reported).
    pub(crate) reported: Option<Position>,
    /// The id that the client resumed from, for the notice; on later pages the reader's position
    /// stands in for it.
    pub(crate) requested: Option<String>,
    /// A gap that is already known and is to be reported with this page.
    pub(crate) gap: Option<GapReason>,
}

/// One page of history, ready to be sent.
#[derive(Debug)]
pub(crate) struct Replayed {
    /// A gap notice, to be sent before the events.
    pub(crate) gap: Option<(Cursor, Bytes)>,
    /// Where the events begin: after everything that is no longer available.
    pub(crate) from: Cursor,
    /// The events, in order.
    pub(crate) frames: Arc<Frames>,
    /// How far this page reaches.
    pub(crate) place: Cursor,
    /// Gaps up to here have been reported.
    pub(crate) reported: Option<Position>,
    /// Whether the log ended here.
    pub(crate) at_end: bool,
}

/// A page on its way to a reader. It is read in a task of its own: a subscriber that stops reading
/// in the middle of it must not keep its permit from others. Dropping this cancels the read.
#[derive(Debug)]
pub(crate) struct PageReading(JoinHandle<Replayed>);

impl PageReading {
    pub(crate) fn spawn(runtime: &Handle, reading: impl Future<Output = Replayed> + Send + 'static) -> Self {
        Self(runtime.spawn(reading))
    }
}

impl Future for PageReading {
    type Output = Replayed;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Replayed> {
        match ready!(Pin::new(&mut self.0).poll(context)) {
            Ok(page) => Poll::Ready(page),
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // The runtime shuts down, and the task that waits for this is about to be dropped as
            // well.
            Err(_) => Poll::Pending,
        }
    }
}

impl Drop for PageReading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Replays {
    pub(crate) fn new(log: Arc<dyn Log>, permits: usize, page_bytes: usize) -> Self {
        let permits_max = permits.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            log,
            permits: Semaphore::new(permits_max),
            permits_max,
            page_bytes,
            pages: Mutex::default(),
            counts: ReplayCounts::default(),
        }
    }

    pub(crate) fn stats(&self) -> ReplayStats {
        self.counts.stats()
    }

    /// How many pages are being read, and how many may be.
    pub(crate) fn running(&self) -> (u64, u64) {
        let running = self.permits_max - self.permits.available_permits();
        (running as u64, self.permits_max as u64)
    }

    /// The next page of a reader, if another reader needed the same a moment ago and there is no
    /// gap to be reported before it. It needs no permit, since nothing is read.
    pub(crate) fn page_at_hand(&self, request: &ReplayRequest) -> Option<Replayed> {
        let page = lock(&self.pages).get(&request.key(), request.routed, Instant::now())?;
        gap_before(request, &page).is_none().then(|| self.count(PageSource::Shared, replayed(request, &page)))
    }

    /// Reads the next page of a reader.
    pub(crate) async fn next_page(&self, mut request: ReplayRequest) -> Result<Replayed, Unavailable> {
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        loop {
            let (page, source) = self.page(&request).await?;
            if page.epoch == request.place.epoch {
                return Ok(self.count(source, self.answer(request, &page).await?));
            }
            // The position is of another epoch: find out what it means in this one, then read again
            // from there.
            let bounds = self.log.bounds().await?;
            let position = match bounds.epochs.locate(request.place, bounds.newest) {
                Located::Here(position) => position,
                Located::Earlier(position) => request.lost_in_another_epoch(position),
                Located::Unknown => request.lost_in_another_epoch(Position::BEFORE_ALL),
            };
            request.place = Cursor { epoch: bounds.epochs.current().epoch, position };
            request.until = None;
        }
    }

    /// Drops the pages that were read, and those that are being read: they may hold events that the
    /// log has no more.
    pub(crate) fn forget(&self) {
        lock(&self.pages).clear();
    }

    /// The page after a position, shared with other readers that need it.
    async fn page(&self, request: &ReplayRequest) -> Result<(Arc<EncodedPage>, PageSource), Unavailable> {
        let key = request.key();
        let cleared = {
            let mut pages = lock(&self.pages);
            if let Some(page) = pages.get(&key, request.routed, Instant::now()) {
                return Ok((page, PageSource::Shared));
            }
            pages.cleared
        };
        let page = self.log.read(request.place.position, &request.filter, self.page_bytes).await?;
        let page = Arc::new(EncodedPage::new(&page, request.format));
        if page.epoch == request.place.epoch {
            lock(&self.pages).put(key, Arc::clone(&page), cleared, Instant::now());
        }
        Ok((page, PageSource::Log))
    }

    fn count(&self, source: PageSource, page: Replayed) -> Replayed {
        self.counts.page(source, page.frames.metas().len(), page.at_end);
        page
    }

    async fn answer(&self, request: ReplayRequest, page: &EncodedPage) -> Result<Replayed, Unavailable> {
        let mut replayed = replayed(&request, page);
        if let Some(reason) = gap_before(&request, page) {
            let bounds = self.log.bounds().await?;
            self.counts.gap(reason);
            replayed.gap = Some((replayed.from, gap_notice(reason, &request, replayed.from, &bounds)));
        }
        Ok(replayed)
    }
}

impl ReplayRequest {
    fn key(&self) -> PageKey {
        (Arc::clone(&self.filter), self.format, self.place)
    }

    /// Continues after a position in another epoch. Events may be lost, so a gap is reported.
    fn lost_in_another_epoch(&mut self, position: Position) -> Position {
        if self.reported.is_some() {
            self.requested.get_or_insert_with(|| self.place.to_string());
            self.gap.get_or_insert(GapReason::OtherLog);
            // Positions of one epoch mean nothing in another.
            self.reported = Some(position);
        }
        position
    }
}

/// Why a gap is reported before this page, if one is.
fn gap_before(request: &ReplayRequest, page: &EncodedPage) -> Option<GapReason> {
    let missing = match request.reported {
        Some(reported) => page.floor.is_some_and(|floor| floor > reported),
        None => false,
    };
    request.gap.or(missing.then_some(GapReason::Expired))
}

/// This page for this reader, without the notice of a gap.
fn replayed(request: &ReplayRequest, page: &EncodedPage) -> Replayed {
    let until = request.until.unwrap_or(page.through).min(page.through);
    // The log has checked the grants; the connection that an event excludes is still to be checked.
    let is_left_out = |meta: &FrameMeta| {
        meta.position > until
            || meta.audience.as_ref().is_some_and(|audience| audience.leaves_out(&request.connection))
    };
    let frames = if page.frames.metas().iter().any(is_left_out) {
        Arc::new(page.frames.retain(|meta| !is_left_out(meta)))
    } else {
        Arc::clone(&page.frames)
    };
    Replayed {
        gap: None,
        from: after_the_gap(request, page, until),
        frames,
        place: Cursor { epoch: page.epoch, position: until },
        reported: page.floor.max(request.reported).or(Some(request.place.position)),
        at_end: page.at_end && until == page.through,
    }
}

/// After what this reader has missed, but never past an event that is still to come.
fn after_the_gap(request: &ReplayRequest, page: &EncodedPage, until: Position) -> Cursor {
    let gone = page.floor.unwrap_or(request.place.position);
    let position = match page.frames.metas().first() {
        Some(first) if first.position <= gone => request.place.position,
        _ => gone,
    };
    let position = position.min(until);
    Cursor { epoch: page.epoch, position }
}

fn gap_notice(reason: GapReason, request: &ReplayRequest, from: Cursor, bounds: &Bounds) -> Bytes {
    let newest = bounds.newest_cursor();
    let notice = Notice::Gap {
        reason,
        requested: request.requested.clone().unwrap_or_else(|| request.place.to_string()),
        oldest: bounds.oldest.map(|position| Cursor { position, ..newest }.to_string()),
        newest: newest.to_string(),
    };
    notice.encode(from, None)
}

#[cfg(test)]
mod tests {
    use tidings_log::{Appended, Batch, Entry, Epoch, MemoryLimits, MemoryLog, Page, Timestamp};
    use tidings_topic::{NewEvent, Validator};

    use super::*;

    async fn append(log: &MemoryLog, data: &str) -> Cursor {
        let event = Validator::default().event(NewEvent::new("chat", data)).expect("valid");
        let batch = Batch { events: vec![event], key: None };
        match log.append(batch).await.expect("there is capacity") {
            Appended::New { last, .. } => last,
            Appended::Duplicate { .. } => unreachable!("it has no key"),
        }
    }

    /// A request of somebody who may receive every public event.
    fn request(place: Cursor, reported: Option<Position>) -> ReplayRequest {
        ReplayRequest {
            filter: Arc::new(Filter::everything_public()),
            until: None,
            format: Format::Plain,
            connection: ConnectionId::from_random([7; 16]),
            place,
            routed: place,
            reported,
            requested: None,
            gap: None,
        }
    }

    /// A client that reads no further than the notice resumes from its id.
    #[test]
    fn a_gap_notice_moves_no_client_past_an_event_that_is_still_to_come() {
        let place = |number: u128| {
            let position = Position::from_bytes(number.to_be_bytes());
            Cursor { epoch: Epoch::from_u64(1), position }
        };
        for (what, events, floor, through, from) in [
            ("an event after the gap", Some(7), 5, 9, 5),
            ("an event before one that was deleted", Some(3), 5, 9, 2),
            ("nothing as far as was read", None, 5, 9, 5),
            ("nothing as far as was read, which is not to the end of the gap", None, 9, 5, 5),
        ] {
            let event = |number| {
                let event = Validator::default().event(NewEvent::new("chat", "")).expect("valid");
                Arc::new(Entry::new(place(number), Timestamp::from_millis(0), event))
            };
            let page = Page {
                epoch: place(2).epoch,
                after: place(2).position,
                entries: events.map(event).into_iter().collect(),
                through: place(through).position,
                at_end: false,
                floor: Some(place(floor).position),
            };
            let page = EncodedPage::new(&page, Format::Plain);
            assert_eq!(after_the_gap(&request(place(2), None), &page, page.through), place(from), "{what}");
        }
    }

    /// What was reported in another log says nothing of what this one drops.
    #[tokio::test]
    async fn a_gap_in_a_log_that_replaced_a_longer_one_is_reported() {
        let log = Arc::new(MemoryLog::new(MemoryLimits { count_max: Some(1), ..MemoryLimits::default() }));
        let replays = Replays::new(Arc::clone(&log) as Arc<dyn Log>, 1, 1_000);
        let first = append(&log, "1").await;
        let far = Position::from_bytes([7; 16]);
        let before = Cursor { epoch: Epoch::from_u64(first.epoch.to_u64() ^ 1), position: far };
        let page = replays.next_page(request(before, Some(far))).await.expect("there");
        assert!(page.gap.is_some() && page.place == first, "{page:?}");
        for data in ["2", "3"] {
            append(&log, data).await;
        }
        let page = replays.next_page(request(page.place, page.reported)).await.expect("there");
        assert!(page.gap.is_some(), "the second event is gone");
    }

    /// Its first position is one of the epoch before, and only the notice of the gap says so.
    #[tokio::test]
    async fn a_page_for_a_reader_of_another_epoch_is_at_hand_for_nobody() {
        let log = Arc::new(MemoryLog::new(MemoryLimits::default()));
        let replays = Replays::new(Arc::clone(&log) as Arc<dyn Log>, 1, 1_000);
        let newest = append(&log, "1").await;
        let before =
            Cursor { epoch: Epoch::from_u64(newest.epoch.to_u64() ^ 1), position: Position::BEFORE_ALL };
        let asked = ReplayRequest { routed: newest, ..request(before, Some(before.position)) };
        assert!(replays.next_page(asked.clone()).await.expect("there").gap.is_some());
        assert!(replays.page_at_hand(&asked).is_none());
    }

    #[tokio::test]
    async fn a_page_that_was_read_is_at_hand_unless_a_gap_is_reported_before_it() {
        let log = Arc::new(MemoryLog::new(MemoryLimits { count_max: Some(2), ..MemoryLimits::default() }));
        let replays = Replays::new(Arc::clone(&log) as Arc<dyn Log>, 1, 1_000);
        let mut head = append(&log, "0").await;
        for data in ["1", "2"] {
            head = append(&log, data).await;
        }
        let from = |position, reported| ReplayRequest {
            routed: head,
            ..request(Cursor { position, ..head }, reported)
        };
        let from_the_start = from(Position::BEFORE_ALL, None);
        assert!(replays.page_at_hand(&from_the_start).is_none(), "nobody has read it");
        let read = replays.next_page(from_the_start.clone()).await.expect("there");
        let at_hand = replays.page_at_hand(&from_the_start).expect("it was read a moment ago");
        assert!(Arc::ptr_eq(&read.frames, &at_hand.frames));
        assert_eq!((read.from, read.place, read.reported), (at_hand.from, at_hand.place, at_hand.reported));

        let lacks_an_event = from(Position::BEFORE_ALL, Some(Position::BEFORE_ALL));
        assert!(replays.page_at_hand(&lacks_an_event).is_none(), "the gap has to be reported");
        assert!(replays.next_page(lacks_an_event).await.expect("there").gap.is_some());
        replays.forget();
        assert!(replays.page_at_hand(&from_the_start).is_none(), "it may hold what was deleted");
    }
}
