//! The store: the values of `--store` and `--sync`, and opening what they name.
//!
//! Only this module knows the kinds of stores. To add one, add a variant of [`Store`], parse it in
//! [`Store::from_str`], set its defaults, and open it in [`Keeping::open`]. Stores on other servers
//! are cargo features; [`absent`] stands for those that this build does not contain.

#[cfg(not(all(feature = "redis", feature = "nats")))]
mod absent;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "redis")]
mod redis;

use std::{path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use tidings::{
    Hub, HubBuilder, MemoryLimits, MemoryLog,
    log::{Log, cluster::Cluster},
};

#[cfg(unix)]
use tidings::log::{Clock, RetentionRule, SegmentLog, SegmentSettings, SyncLevel};

#[cfg(not(feature = "nats"))]
use self::absent as nats;
#[cfg(not(feature = "redis"))]
use self::absent as redis;
use crate::{failure::Failure, hooks::JOURNAL_BYTES_MAX};

/// The kind of a store, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// In the memory of this process; lost when it exits.
    Memory,
    /// In files of this directory, which one process uses at a time.
    Directory(PathBuf),
    /// In Redis, where any number of hubs share it.
    Redis(redis::Address),
    /// On NATS JetStream, where any number of hubs share it.
    Nats(nats::Address),
}

/// When an event is synced to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Before its publisher is answered.
    Always,
    /// At most this much later.
    Interval(Duration),
    /// When the system writes it.
    Never,
}

/// A store, and how much it keeps.
#[derive(Clone, Debug)]
pub(crate) struct Keeping {
    pub(crate) store: Store,
    pub(crate) sync: Sync,
    pub(crate) age_max: Option<Duration>,
    pub(crate) bytes_max: u64,
    pub(crate) count_max: Option<u64>,
    /// Shorter retention for some topics.
    #[cfg(unix)]
    pub(crate) rules: Vec<RetentionRule>,
    /// Whether the journal of the hooks is opened, too.
    pub(crate) has_journal: bool,
}

/// An open store. Closing it closes the log, even if other references to it remain.
pub(crate) struct Opened {
    pub(crate) log: Arc<dyn Log>,
    /// The journal of the hooks, a log of its own, if it was wanted.
    pub(crate) journal: Option<Arc<dyn Log>>,
    /// The state other than the log that hubs share, if the store can be shared.
    cluster: Option<Arc<dyn Cluster>>,
    /// The logs that must be closed cleanly.
    #[cfg(unix)]
    files: Vec<SegmentLog>,
}

/// Why a store could not be opened.
#[derive(Debug)]
pub(crate) struct NotOpened {
    failure: Failure,
    /// Another process has the store open, and may leave it.
    #[cfg_attr(not(unix), allow(dead_code, reason = "only files are used by one process at a time"))]
    pub(crate) is_in_use: bool,
}

impl From<Failure> for NotOpened {
    fn from(failure: Failure) -> Self {
        Self { failure, is_in_use: false }
    }
}

impl From<NotOpened> for Failure {
    fn from(refused: NotOpened) -> Self {
        refused.failure
    }
}

impl FromStr for Store {
    type Err = String;

    /// Errors continue after the word itself: "`memory:1GiB` is not a store: …".
    fn from_str(word: &str) -> Result<Self, String> {
        let is_scheme = |scheme: &&str| {
            // A single letter is a Windows drive. A directory with a colon in its name needs ./
            // before it.
            scheme.len() > 1
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        };
        let scheme = word.split_once(':').map(|(scheme, _)| scheme).filter(is_scheme);
        match (scheme, word) {
            (Some("memory"), "memory:") => Ok(Self::Memory),
            (Some("memory"), _) | (None, "memory") => {
                Err("is not a store: write memory:, or ./memory if it is a directory".to_owned())
            }
            (Some("file"), _) => directory(word.trim_start_matches("file:")),
            (Some(scheme), _) if scheme.starts_with("redis") || scheme == "unix" => {
                redis::Address::parse(word).map(Self::Redis)
            }
            (Some("nats" | "tls"), _) => nats::Address::parse(word).map(Self::Nats),
            (Some(scheme), _) => {
                let stores =
                    "memory:, redis://, nats:// and directories, such as ./events or file:/var/lib/tidings";
                Err(format!("is not a store: the scheme {scheme}: is unknown; stores are {stores}"))
            }
            (None, _) => directory(word),
        }
    }
}

fn directory(path: &str) -> Result<Store, String> {
    if cfg!(not(unix)) {
        return Err("names a directory, which this version can use on Unix systems only".to_owned());
    }
    let has_host = path.starts_with("//") && !path.starts_with("///");
    if path.is_empty() || has_host {
        return Err("is not a store: write a directory as ./events or file:/var/lib/tidings".to_owned());
    }
    if path.starts_with('~') {
        return Err("begins with ~, which only a shell expands: write the full path".to_owned());
    }
    Ok(Store::Directory(path.into()))
}

impl Store {
    /// The default of `--retain`.
    pub(crate) fn age_default(&self) -> &'static str {
        match self {
            Self::Memory => "unlimited",
            Self::Directory(_) | Self::Redis(_) | Self::Nats(_) => "7d",
        }
    }

    /// The default of `--retain-bytes`.
    pub(crate) fn bytes_default(&self) -> &'static str {
        match self {
            Self::Memory => "64MiB",
            Self::Directory(_) | Self::Nats(_) => "1GiB",
            Self::Redis(_) => "256MiB",
        }
    }
}

impl Keeping {
    /// Opens the store. The error explains a failure in one line.
    pub(crate) async fn open(&self) -> Result<Opened, NotOpened> {
        match &self.store {
            Store::Memory => Ok(self.open_memory()),
            Store::Nats(address) => {
                let journal = if self.has_journal {
                    Some(address.open_journal(JOURNAL_SUFFIX, journal_limits()).await?)
                } else {
                    None
                };
                Ok(Opened::shared(address.open(self.limits()).await?, journal))
            }
            #[cfg(unix)]
            Store::Directory(directory) => self.open_directory(directory).await,
            #[cfg(not(unix))]
            Store::Directory(_) => unreachable!("a directory is refused when it is parsed"),
            Store::Redis(address) => {
                let journal = if self.has_journal {
                    Some(address.open_journal(JOURNAL_SUFFIX, journal_limits()).await?)
                } else {
                    None
                };
                Ok(Opened::shared(address.open(self.limits()).await?, journal))
            }
        }
    }

    /// Opens a store whose last user is about to exit.
    #[cfg(unix)]
    pub(crate) async fn open_soon(&self) -> Result<Opened, NotOpened> {
        let patience = tokio::time::Instant::now() + LOCK_RELEASE_MAX;
        loop {
            match self.open().await {
                Err(refused) if refused.is_in_use && tokio::time::Instant::now() < patience => {
                    tokio::time::sleep(LOCK_RETRY_INTERVAL).await;
                }
                opened => return opened,
            }
        }
    }

    fn limits(&self) -> MemoryLimits {
        MemoryLimits {
            bytes_max: self.bytes_max,
            count_max: self.count_max,
            age_max: self.age_max,
            ..MemoryLimits::default()
        }
    }

    fn open_memory(&self) -> Opened {
        let log = MemoryLog::new(self.limits());
        let journal = self.has_journal.then(|| Arc::new(MemoryLog::new(journal_limits())) as Arc<dyn Log>);
        Opened {
            log: Arc::new(log),
            journal,
            cluster: None,
            #[cfg(unix)]
            files: Vec::new(),
        }
    }

    #[cfg(unix)]
    async fn open_directory(&self, directory: &std::path::Path) -> Result<Opened, NotOpened> {
        let sync = match self.sync {
            Sync::Always => SyncLevel::Always,
            Sync::Interval(interval) => SyncLevel::Interval(interval),
            Sync::Never => SyncLevel::Never,
        };
        let settings = SegmentSettings {
            sync,
            bytes_max: self.bytes_max,
            count_max: self.count_max,
            age_max: self.age_max,
            retention: self.rules.clone(),
            ..SegmentSettings::default()
        };
        let log = open_files(directory.to_owned(), settings).await?;
        let mut files = vec![log.clone()];
        if self.has_journal {
            let settings = SegmentSettings {
                sync,
                bytes_max: JOURNAL_BYTES_MAX,
                age_max: None,
                ..SegmentSettings::default()
            };
            files.push(open_files(directory.join(JOURNAL_FOLDER), settings).await?);
        }
        let journal = files.get(1).map(|journal| Arc::new(journal.clone()) as Arc<dyn Log>);
        Ok(Opened { log: Arc::new(log), journal, cluster: None, files })
    }
}

/// The folder of the journal in a directory.
#[cfg(unix)]
const JOURNAL_FOLDER: &str = "hooks";

/// What the name of the journal on a server ends with, after the name of the log.
const JOURNAL_SUFFIX: &str = "-hooks";

/// How much a journal keeps.
fn journal_limits() -> MemoryLimits {
    MemoryLimits { bytes_max: JOURNAL_BYTES_MAX, count_max: None, age_max: None, ..MemoryLimits::default() }
}

#[cfg(unix)]
async fn open_files(directory: PathBuf, settings: SegmentSettings) -> Result<SegmentLog, NotOpened> {
    let opening = tokio::task::spawn_blocking(move || {
        if directory.exists() && !directory.is_dir() {
            let failure = Failure::runtime(format!("--store: {} is not a directory", directory.display()));
            return Err(failure.into());
        }
        SegmentLog::open(&directory, settings, Clock::system()).map_err(|error| NotOpened {
            is_in_use: error.is_in_use(),
            failure: Failure::runtime(format!("--store: {error}")),
        })
    });
    opening.await.map_err(Failure::runtime)?
}

impl Opened {
    /// A store that any number of hubs share.
    fn shared((log, cluster): (Arc<dyn Log>, Arc<dyn Cluster>), journal: Option<Arc<dyn Log>>) -> Self {
        Self {
            log,
            journal,
            cluster: Some(cluster),
            #[cfg(unix)]
            files: Vec::new(),
        }
    }

    /// The builder of a hub on this store.
    pub(crate) fn hub(&self) -> HubBuilder {
        let hub = Hub::builder().log(Arc::clone(&self.log));
        match &self.cluster {
            Some(cluster) => hub.cluster(Arc::clone(cluster)),
            None => hub,
        }
    }

    /// Whether only one process can have it open at a time.
    #[cfg(unix)]
    pub(crate) fn is_exclusive(&self) -> bool {
        !self.files.is_empty()
    }

    /// Syncs everything that was acknowledged. Nothing can be appended afterwards.
    pub(crate) async fn close(self) {
        #[cfg(unix)]
        for log in self.files {
            log.close().await;
        }
    }
}

/// The system releases the lock of a process shortly after its end is noticed. How long that may
/// take, and how often opening is tried.
#[cfg(unix)]
const LOCK_RELEASE_MAX: Duration = Duration::from_secs(5);
#[cfg(unix)]
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// The default of `interval`.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);

/// `always`, `interval`, `interval=5s` or `never`.
pub(crate) fn sync(word: &str) -> Result<Sync, String> {
    match (word, word.strip_prefix("interval=")) {
        ("always", _) => Ok(Sync::Always),
        ("never", _) => Ok(Sync::Never),
        ("interval", _) => Ok(Sync::Interval(INTERVAL_DEFAULT)),
        (_, Some(time)) => crate::config::time(time).map(Sync::Interval),
        (_, None) => Err("is not always, interval, interval=5s or never".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_memory_or_a_directory() {
        assert_eq!("memory:".parse(), Ok(Store::Memory));
        for (word, path) in [
            ("./events", "./events"),
            ("events", "events"),
            ("/var/lib/tidings", "/var/lib/tidings"),
            ("file:events", "events"),
            ("file:/var/lib/tidings", "/var/lib/tidings"),
            ("file:///var/lib/tidings", "///var/lib/tidings"),
            ("./a:b", "./a:b"),
        ] {
            assert_eq!(word.parse(), Ok(Store::Directory(path.into())), "{word}");
        }
    }

    #[cfg(feature = "redis")]
    #[test]
    fn a_store_may_be_in_redis() {
        for word in [
            "redis://localhost",
            "rediss://u:p@h:1/2?name=a&wait=1",
            "redis+sentinel://a,b/s",
            "redis+cluster://a",
            "redis+unix:///run/redis.sock?db=1&name=a",
            "unix:///run/redis.sock",
        ] {
            assert!(matches!(word.parse(), Ok(Store::Redis(_))), "{word}");
        }
    }

    #[cfg(feature = "nats")]
    #[test]
    fn a_store_may_be_on_nats() {
        for word in
            ["nats://localhost", "nats://user:password@one:4222,two:4222/news", "tls://localhost/news"]
        {
            assert!(matches!(word.parse(), Ok(Store::Nats(_))), "{word}");
        }
    }

    #[test]
    fn an_unknown_store_is_refused_with_the_known_ones() {
        for (word, part) in [
            ("memory", "./memory"),
            ("memory:1GiB", "memory:"),
            ("", "./events"),
            ("file:", "./events"),
            ("file://host/events", "file:/var/lib/tidings"),
            ("~/events", "the full path"),
            ("http://localhost", "the scheme http: is unknown"),
            ("redis://", "no host"),
            ("redis://localhost?nmae=a", "nmae"),
            ("redis+elsewhere://localhost", "redis+sentinel"),
            ("nats://localhost/a.b", "nats://host:4222/name"),
        ] {
            let reason = word.parse::<Store>().unwrap_err();
            assert!(reason.contains(part), "{word} {reason}");
        }
    }

    #[test]
    fn a_sync_level_is_a_word_or_a_time() {
        assert_eq!(sync("always"), Ok(Sync::Always));
        assert_eq!(sync("interval"), Ok(Sync::Interval(Duration::from_secs(1))));
        assert_eq!(sync("interval=5s"), Ok(Sync::Interval(Duration::from_secs(5))));
        assert_eq!(sync("never"), Ok(Sync::Never));
        for wrong in ["", "sometimes", "interval=", "interval=0s", "1s"] {
            assert!(sync(wrong).is_err(), "{wrong}");
        }
    }
}
