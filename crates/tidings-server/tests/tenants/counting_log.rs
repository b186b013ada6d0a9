//! A log that counts what it is asked.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tidings::{
    EventId, Filter, Grants, Topic,
    log::{
        AppendError, Appended, Batch, Bounds, Cursor, Deleted, Entry, Log, MemoryLimits, MemoryLog, Page,
        Position, Tail, Unavailable,
    },
};

/// What a request has cost: calls of each kind, and pages with their entries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Work {
    /// The calls, in their order.
    pub(crate) calls: Vec<&'static str>,
    /// For each page, its entries.
    pub(crate) pages: Vec<usize>,
}

#[derive(Debug)]
pub(crate) struct CountingLog {
    log: MemoryLog,
    work: Mutex<Work>,
}

impl CountingLog {
    pub(crate) fn new(limits: MemoryLimits) -> Self {
        Self { log: MemoryLog::new(limits), work: Mutex::default() }
    }

    /// The work since the last call.
    pub(crate) fn take_work(&self) -> Work {
        std::mem::take(&mut self.work.lock().expect("no panic"))
    }

    /// Everything that it has, uncounted.
    pub(crate) async fn everything(&self) -> Vec<Arc<Entry>> {
        let all = Filter { grants: Grants::all(), ..Filter::everything_public() };
        self.log.read(Position::BEFORE_ALL, &all, usize::MAX).await.expect("in memory").entries
    }

    fn count(&self, call: &'static str) {
        self.work.lock().expect("no panic").calls.push(call);
    }

    fn count_page(&self, page: Result<Page, Unavailable>) -> Result<Page, Unavailable> {
        let entries = page.as_ref().map_or(0, |page| page.entries.len());
        self.work.lock().expect("no panic").pages.push(entries);
        page
    }
}

#[async_trait]
impl Log for CountingLog {
    async fn append_all(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        self.log.append_all(batches).await
    }

    fn append_now(&self, batch: Batch) -> Result<Result<Appended, AppendError>, Batch> {
        self.log.append_now(batch)
    }

    async fn delete(&self, topic: &Topic, grants: &Grants) -> Result<Deleted, AppendError> {
        self.count("delete");
        self.log.delete(topic, grants).await
    }

    async fn read(&self, after: Position, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        self.count("read");
        self.count_page(self.log.read(after, filter, bytes_max).await)
    }

    async fn last(&self, count: usize, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        self.count("last");
        self.count_page(self.log.last(count, filter, bytes_max).await)
    }

    async fn resolve(&self, id: &EventId, grants: &Grants) -> Result<Option<Position>, Unavailable> {
        self.count("resolve");
        self.log.resolve(id, grants).await
    }

    async fn position_ago(&self, ago: std::time::Duration) -> Result<Position, Unavailable> {
        self.count("position_ago");
        self.log.position_ago(ago).await
    }

    async fn bounds(&self) -> Result<Bounds, Unavailable> {
        self.count("bounds");
        self.log.bounds().await
    }

    async fn tail(&self) -> Result<(Cursor, Box<dyn Tail>), Unavailable> {
        self.log.tail().await
    }

    async fn health(&self) -> Result<(), Unavailable> {
        self.log.health().await
    }
}
