//! A log in files that is closed, or left as a killed process leaves it, and reopened under a hub
//! that keeps running.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use tempfile::TempDir;
use tidings::{
    Event, EventId, Filter, Grants, Topic, Unavailable,
    log::{
        AppendError, Appended, Batch, Bounds, Clock, Cursor, Deleted, Log, Page, Position, SegmentLog,
        SegmentSettings, SyncLevel, Tail, TailItem,
    },
};
use tidings_replay_to_live::{Loss, Random, Store};
use tokio::sync::{RwLock, mpsc};

/// How often a directory is copied again if files appeared and disappeared meanwhile.
const COPIES_MAX: usize = 100;

/// A log in files.
pub(crate) struct Files(Arc<Reopened>);

impl Store for Files {
    const LOSES_EVENTS: bool = false;

    /// Small and large segments, much and little memory.
    async fn open(kept_max: Option<usize>, random: &mut Random) -> Self {
        let settings = SegmentSettings {
            // Syncing decides what a loss of power takes, and there is none here.
            sync: SyncLevel::Never,
            count_max: kept_max.map(|kept| kept as u64),
            segment_bytes: Some(*random.pick(&[4 << 10, 64 << 10, 1 << 20])),
            recent_bytes_max: *random.pick(&[0, 16 << 10, 8 << 20]),
            ..SegmentSettings::default()
        };
        Self(Arc::new(Reopened::new(settings)))
    }

    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.0) as Arc<dyn Log>
    }

    async fn append_elsewhere(&self, events: Vec<Event>) -> Result<Appended, AppendError> {
        self.0.append(Batch { events, key: None }).await
    }

    async fn trouble(&mut self, random: &mut Random) -> Option<Loss> {
        if random.percent(50) {
            self.0.close_and_open().await;
        } else {
            self.0.kill_and_open().await;
        }
        None
    }
}

/// The log itself. A call while it is closed waits until it is open again.
#[derive(Debug)]
struct Reopened {
    settings: SegmentSettings,
    open: RwLock<Open>,
}

#[derive(Debug)]
struct Open {
    log: SegmentLog,
    directory: Arc<TempDir>,
    /// Where tails wait for the tail that continues them.
    followers: Vec<mpsc::UnboundedSender<Followed>>,
}

/// A tail, and the files that it may have yet to read, which do not change once the log continues
/// elsewhere.
struct Followed {
    tail: Box<dyn Tail>,
    _directory: Arc<TempDir>,
}

impl Reopened {
    fn new(settings: SegmentSettings) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let log = open(directory.path(), &settings);
        Self { settings, open: RwLock::new(Open { log, directory, followers: Vec::new() }) }
    }

    /// Closes the log cleanly and continues with its files.
    async fn close_and_open(&self) {
        let mut open = self.open.write().await;
        open.log.close().await;
        open.continue_with_files(&self.settings).await;
    }

    /// Continues with the files that the process had written by now, without what it would have
    /// written at its end.
    async fn kill_and_open(&self) {
        self.open.write().await.continue_with_files(&self.settings).await;
    }
}

impl Open {
    /// Opens the log as its files are now. Nothing is appended meanwhile: a new tail continues each
    /// old one.
    async fn continue_with_files(&mut self, settings: &SegmentSettings) {
        let left = (0..COPIES_MAX).find_map(|_| copy(self.directory.path()).expect("files can be copied"));
        self.directory = Arc::new(left.expect("the files are quiet for once"));
        self.log = open(self.directory.path(), settings);
        let mut followers = Vec::new();
        for follower in self.followers.drain(..) {
            let (_, tail) = self.log.tail().await.expect("it is open");
            if follower.send(Followed { tail, _directory: Arc::clone(&self.directory) }).is_ok() {
                followers.push(follower);
            }
        }
        self.followers = followers;
    }
}

fn open(directory: &Path, settings: &SegmentSettings) -> SegmentLog {
    SegmentLog::open(directory, settings.clone(), Clock::system()).expect("it opens")
}

/// A copy of a directory. `None` if a file disappeared while it was made: the copy is then a state
/// that never existed.
fn copy(directory: &Path) -> io::Result<Option<TempDir>> {
    let to = tempfile::tempdir()?;
    let mut names = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().into_string().expect("a name of ours")))
        .collect::<io::Result<Vec<_>>>()?;
    // Segments first: the files about them are written before they are removed.
    names.sort();
    for name in names.iter().filter(|name| *name != "lock" && name.strip_suffix(".new").is_none()) {
        match fs::copy(directory.join(name), to.path().join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            copied => copied?,
        };
    }
    Ok(Some(to))
}

#[async_trait]
impl Log for Reopened {
    async fn append_all(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        self.open.read().await.log.append_all(batches).await
    }

    async fn delete(&self, topic: &Topic, grants: &Grants) -> Result<Deleted, AppendError> {
        self.open.read().await.log.delete(topic, grants).await
    }

    async fn read(&self, after: Position, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        self.open.read().await.log.read(after, filter, bytes_max).await
    }

    async fn last(&self, count: usize, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        self.open.read().await.log.last(count, filter, bytes_max).await
    }

    async fn resolve(&self, id: &EventId, grants: &Grants) -> Result<Option<Position>, Unavailable> {
        self.open.read().await.log.resolve(id, grants).await
    }

    async fn position_ago(&self, ago: Duration) -> Result<Position, Unavailable> {
        self.open.read().await.log.position_ago(ago).await
    }

    async fn bounds(&self) -> Result<Bounds, Unavailable> {
        self.open.read().await.log.bounds().await
    }

    async fn tail(&self) -> Result<(Cursor, Box<dyn Tail>), Unavailable> {
        let mut open = self.open.write().await;
        let (cursor, tail) = open.log.tail().await?;
        let (sender, successors) = mpsc::unbounded_channel();
        open.followers.push(sender);
        let followed = Followed { tail, _directory: Arc::clone(&open.directory) };
        Ok((cursor, Box::new(ReopenedTail { followed, successors })))
    }

    async fn health(&self) -> Result<(), Unavailable> {
        self.open.read().await.log.health().await
    }
}

/// A tail that continues where the one before it ended.
struct ReopenedTail {
    followed: Followed,
    successors: mpsc::UnboundedReceiver<Followed>,
}

#[async_trait]
impl Tail for ReopenedTail {
    async fn next(&mut self, bytes_max: usize) -> Option<TailItem> {
        loop {
            if let Some(item) = self.followed.tail.next(bytes_max).await {
                return Some(item);
            }
            self.followed = self.successors.recv().await?;
        }
    }
}
