//! A log whose positions count one by one, as the checker of the replay-to-live test requires.
//! Those of JetStream have holes between messages.
//!
//! A follower without retention sees every event; the index of an event in what it saw is its
//! number.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tidings_log::{
    AppendError, Appended, Batch, Bounds, Cursor, Deleted, Entry, EventId, Filter, Grants, Log, Page,
    Position, Tail, TailItem, Topic, Unavailable, parts::position,
};
use tidings_nats::NatsLog;
use tokio::sync::watch;

/// A log on NATS with the positions of its events.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    pub(crate) log: NatsLog,
    pub(crate) places: Places,
}

/// The positions of all events, in order.
#[derive(Clone, Debug)]
pub(crate) struct Places(watch::Receiver<Vec<Position>>);

impl Places {
    /// Follows a fresh log.
    pub(crate) async fn of(log: NatsLog) -> Self {
        let (sender, places) = watch::channel(Vec::new());
        let (_, mut tail) = log.tail().await.expect("the server is there");
        tokio::spawn(async move {
            // The log has to live as long as its tail.
            let _log = log;
            while let Some(item) = tail.next(1 << 20).await {
                let TailItem::Entries(entries) = item else { panic!("{item:?}") };
                let positions = entries.iter().map(|entry| entry.cursor.position);
                sender.send_modify(|places| places.extend(positions));
                if sender.is_closed() {
                    return;
                }
            }
        });
        Self(places)
    }

    /// How many events there are up to this position, once as many are known.
    async fn number(&self, real: Position) -> Position {
        if real == Position::BEFORE_ALL {
            return real;
        }
        let mut places = self.0.clone();
        let known = places.wait_for(|places| places.last().is_some_and(|last| *last >= real)).await;
        let known = known.expect("the follower is running");
        position(known.partition_point(|place| *place <= real) as u64)
    }

    fn real(&self, number: Position) -> Position {
        match tidings_log::parts::number(number) {
            0 => Position::BEFORE_ALL,
            number => {
                let places = self.0.borrow();
                let place = usize::try_from(number).ok().and_then(|number| places.get(number - 1));
                place.copied().unwrap_or(Position::from_bytes([0xff; 16]))
            }
        }
    }

    async fn cursor(&self, real: Cursor) -> Cursor {
        Cursor { position: self.number(real.position).await, ..real }
    }

    async fn entries(&self, real: &[Arc<Entry>]) -> Vec<Arc<Entry>> {
        let mut entries = Vec::with_capacity(real.len());
        for entry in real {
            let cursor = self.cursor(entry.cursor).await;
            entries.push(Arc::new(Entry::new(cursor, entry.time, entry.event.clone())));
        }
        entries
    }
}

impl Dense {
    /// A page that was requested after a number.
    async fn page(&self, page: Page, asked: Option<Position>) -> Page {
        let asked_real = page.after;
        let through = match asked {
            Some(asked) if page.through == asked_real => asked,
            _ => self.places.number(page.through).await,
        };
        let after = match asked {
            Some(asked) => asked,
            None if page.entries.is_empty() => through,
            None => self.places.number(page.after).await,
        };
        let floor = match page.floor {
            Some(floor) => Some(self.places.number(floor).await),
            None => None,
        };
        Page { after, entries: self.places.entries(&page.entries).await, through, floor, ..page }
    }
}

#[async_trait]
impl Log for Dense {
    async fn append_all(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        let mut outcomes = self.log.append_all(batches).await;
        for outcome in &mut outcomes {
            let Ok(Appended::New { ids, last }) = outcome else { continue };
            *last = self.places.cursor(*last).await;
            let count = ids.len() as u64;
            for (id, index) in ids.iter_mut().zip(0..).filter(|(id, _)| id.is_generated()) {
                let number = tidings_log::parts::number(last.position) - (count - 1 - index);
                *id = Cursor { position: position(number), ..*last }.to_event_id();
            }
        }
        outcomes
    }

    async fn delete(&self, topic: &Topic, grants: &Grants) -> Result<Deleted, AppendError> {
        self.log.delete(topic, grants).await
    }

    async fn read(&self, after: Position, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        let page = self.log.read(self.places.real(after), filter, bytes_max).await?;
        Ok(self.page(page, Some(after)).await)
    }

    async fn last(&self, count: usize, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        let page = self.log.last(count, filter, bytes_max).await?;
        Ok(self.page(page, None).await)
    }

    async fn resolve(&self, id: &EventId, grants: &Grants) -> Result<Option<Position>, Unavailable> {
        match self.log.resolve(id, grants).await? {
            Some(place) => Ok(Some(self.places.number(place).await)),
            None => Ok(None),
        }
    }

    async fn position_ago(&self, ago: Duration) -> Result<Position, Unavailable> {
        Ok(self.places.number(self.log.position_ago(ago).await?).await)
    }

    async fn bounds(&self) -> Result<Bounds, Unavailable> {
        let bounds = self.log.bounds().await?;
        let oldest = match bounds.oldest {
            Some(oldest) => Some(self.places.number(oldest).await),
            None => None,
        };
        Ok(Bounds { oldest, newest: self.places.number(bounds.newest).await, ..bounds })
    }

    async fn tail(&self) -> Result<(Cursor, Box<dyn Tail>), Unavailable> {
        let (cursor, tail) = self.log.tail().await?;
        let places = self.places.clone();
        Ok((self.places.cursor(cursor).await, Box::new(DenseTail { tail, places, item: None })))
    }

    async fn health(&self) -> Result<(), Unavailable> {
        self.log.health().await
    }
}

struct DenseTail {
    tail: Box<dyn Tail>,
    places: Places,
    /// An item that arrived and was not returned yet, because a wait was cancelled.
    item: Option<TailItem>,
}

#[async_trait]
impl Tail for DenseTail {
    async fn next(&mut self, bytes_max: usize) -> Option<TailItem> {
        if self.item.is_none() {
            self.item = Some(self.tail.next(bytes_max).await?);
        }
        let numbered = match self.item.as_ref()? {
            TailItem::Entries(entries) => TailItem::Entries(self.places.entries(entries).await),
            TailItem::Skipped { through } => {
                TailItem::Skipped { through: self.places.number(*through).await }
            }
            other => other.clone(),
        };
        self.item = None;
        Some(numbered)
    }
}
