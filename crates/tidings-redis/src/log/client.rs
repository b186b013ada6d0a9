//! What all handles and tails of a log share in this process, and the task that keeps it connected.
//!
//! The task has two connections. One carries all commands; it is handed out only after Redis was
//! found to have everything that this process knows of. The other waits for new entries, for all
//! tails together, and fires a notifier when there are some. Every second the task writes a canary
//! on the first and expects it back on the second: health reports that, not a ping. Where events
//! wait for replicas there is a third connection for the waiting commands (`log/replicas.rs`).
//!
//! A failed connection is never used again. While there is none, calls fail at once; the task
//! retries after a growing, jittered delay.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use redis::{AsyncTypedCommands as _, RedisResult, Script, Value, aio::MultiplexedConnection};
use tidings_log::{Clock, Epoch, LogStats, Unavailable, parts::lock, vital::catch_panic};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    answer::Answer,
    epochs::{Learned, Starts, fresh, spelled},
    floors::FloorCopy,
    places::{place, place_of, time_of},
    replicas::Replicas,
    scripts,
    settings::RedisSettings,
};
use crate::{
    Connector,
    connect::{Problem, RESPONSE_TIME_MAX, RETRY, eviction_policy},
    shared_connection::SharedConnection,
    trouble::{Trouble, judge},
};

/// How often a canary is sent.
const CANARY_INTERVAL: Duration = Duration::from_secs(1);
/// How old the last canary that returned may be.
const CANARY_AGE_MAX: Duration = Duration::from_secs(5);
/// How long Redis waits for new entries before it reports that there are none.
const ENTRY_WAIT_TIME_MAX: Duration = Duration::from_secs(2);
/// How many canaries pass between two checks of the eviction policy: it may be changed while a hub
/// runs.
const EVICTION_CANARIES: u64 = 10;
/// How many calls of a script one operation may take, where one call does not do all the work.
const TURNS_MAX: usize = 100_000;

/// The most bytes of the log in one reply of Redis. Redis serves no other client while it makes the
/// reply.
pub(super) const ANSWER_BYTES_MAX: usize = 256 << 10;

/// See the [module documentation](self).
pub(super) struct LogClient {
    connector: Connector,
    pub(super) settings: RedisSettings,
    clock: Option<Clock>,
    keys: [String; 10],
    /// Identifies the canaries of this process.
    name: String,
    pub(super) connection: SharedConnection,
    pub(super) replicas: Replicas,
    /// Fires when there may be new entries.
    notifier: watch::Sender<()>,
    pub(super) floors: FloorCopy,
    epochs: Mutex<Learned>,
    known: Mutex<Option<NewestKnown>>,
    canary_back: Mutex<Option<Instant>>,
    eviction: Mutex<Eviction>,
    /// What the log kept when a canary was sent last.
    kept: Mutex<LogStats>,
    /// How many entries were read that are no events.
    pub(super) rejected: AtomicU64,
}

/// Whether Redis may evict keys when its memory is full, and with them events that it acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Eviction {
    /// It has not been queried yet.
    Unasked,
    /// Redis does not report it.
    Unknown,
    Never,
    /// By this policy.
    By(String),
}

impl Eviction {
    /// Why events are not safe here, and what to do.
    fn problem(&self) -> Option<String> {
        let Self::By(policy) = self else { return None };
        Some(format!(
            "maxmemory-policy is {policy}: Redis evicts acknowledged events when its memory is full; \
             set maxmemory-policy to noeviction (redis.conf, CONFIG SET, or the settings of the provider)"
        ))
    }
}

/// What this process knows of the newest epoch, to detect that Redis does not have it any more.
#[derive(Clone, Debug)]
struct NewestKnown {
    epoch: Epoch,
    place: u64,
    event: Newest,
    deletions: u64,
}

/// An event, as far as is needed to tell it from another one at the same position.
#[derive(Clone, Default, Debug)]
pub(super) struct Newest {
    topics: String,
    /// All other fields, as the stream has them, without its number.
    text: String,
}

impl Newest {
    pub(super) fn of(topics: &str, meta: &str, data: &str) -> Self {
        let meta = meta.trim_start_matches(|character: char| character.is_ascii_digit());
        Self { topics: topics.to_owned(), text: [meta, data].concat() }
    }
}

/// The end of the log, and its beginning.
pub(super) struct End {
    pub(super) epochs: Arc<Starts>,
    pub(super) oldest: Option<u64>,
    pub(super) newest: u64,
    pub(super) number: u64,
    pub(super) deletions: u64,
}

/// New connections.
struct Connections {
    commands: MultiplexedConnection,
    notifications: MultiplexedConnection,
    /// Where events wait for replicas.
    waiting: Option<MultiplexedConnection>,
    /// How far the two streams have been received.
    log_received: String,
    notifier_received: String,
}

impl LogClient {
    pub(super) fn new(connector: Connector, settings: RedisSettings, clock: Option<Clock>) -> Self {
        Self {
            keys: scripts::keys(&settings.name),
            replicas: Replicas::new(settings.wait_replicas),
            kept: Mutex::new(LogStats::new("redis", settings.limits.bytes_max)),
            connector,
            settings,
            clock,
            name: fresh(),
            connection: SharedConnection::new(),
            notifier: watch::Sender::new(()),
            floors: FloorCopy::default(),
            epochs: Mutex::default(),
            known: Mutex::new(None),
            canary_back: Mutex::new(None),
            eviction: Mutex::new(Eviction::Unasked),
            rejected: AtomicU64::new(0),
        }
    }

    /// Connects, starts the task, and waits for the first canary.
    pub(super) async fn open(self: &Arc<Self>) -> Result<AbortHandle, Unavailable> {
        let connections = self.connect().await.map_err(|problem| Unavailable(problem.to_string()))?;
        if let Some(problem) = lock(&self.eviction).problem() {
            return Err(Unavailable(format!("{}: {problem}", self.connector)));
        }
        let client = Arc::clone(self);
        let task = tokio::spawn(async move {
            if let Err(panicked) = catch_panic(Box::pin(client.keep(connections))).await {
                tracing::error!(redis = %client.connector, %panicked, "the task that keeps the log connected has ended");
                client.close();
            }
        });
        let mut notifier = self.notifier.subscribe();
        let canary = async {
            while self.health().is_err() {
                notifier.changed().await.ok();
            }
        };
        if timeout(CANARY_AGE_MAX, canary).await.is_err() {
            task.abort();
            return Err(Unavailable(format!("{}: a write is not read back", self.connector)));
        }
        Ok(task.abort_handle())
    }

    /// Tails end and calls fail.
    pub(super) fn close(&self) {
        self.connection.close();
        self.replicas.connection.close();
        self.notifier.send_replace(());
    }

    /// Runs a script as many times as it takes.
    pub(super) async fn call(&self, script: &Script, arguments: &[&str]) -> Result<Answer, Trouble> {
        Ok(self.call_over(&self.connection, script, arguments).await?.0)
    }

    /// Runs a script, and waits until as many replicas as requested have what it wrote.
    pub(super) async fn call_and_wait(&self, script: &Script, arguments: &[&str]) -> Result<Answer, Trouble> {
        if !self.replicas.are_wanted() {
            return self.call(script, arguments).await;
        }
        let (answer, commands, number) = self.call_over(&self.replicas.connection, script, arguments).await?;
        self.replicas.wait(commands, number).await?;
        Ok(answer)
    }

    /// The reply, and the connection it came by.
    async fn call_over(
        &self,
        connection: &SharedConnection,
        script: &Script,
        arguments: &[&str],
    ) -> Result<(Answer, MultiplexedConnection, u64), Trouble> {
        for _ in 0..TURNS_MAX {
            let (mut commands, number) = connection.commands().map_err(Trouble::Away)?;
            let value = self.run(&mut commands, script, arguments).await;
            let answer = Answer::of(value.map_err(|error| connection.judge(number, &error))?)?;
            if !answer.is_again() {
                return Ok((answer, commands, number));
            }
        }
        Err(Trouble::Away("too many events are due to expire".to_owned()))
    }

    async fn run(
        &self,
        connection: &mut MultiplexedConnection,
        script: &Script,
        arguments: &[&str],
    ) -> RedisResult<Value> {
        let now = self.clock.as_ref().map_or_else(String::new, |clock| clock.now().to_millis().to_string());
        let limits = &self.settings.limits;
        let optional = |limit: Option<u64>| limit.map_or_else(String::new, |limit| limit.to_string());
        let age_max = limits.age_max.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let mut invocation = script.key(&self.keys);
        invocation
            .arg(now)
            .arg(fresh())
            .arg(limits.bytes_max)
            .arg(optional(limits.count_max))
            .arg(optional(age_max))
            .arg(limits.floors_max)
            .arg(tidings_log::MemoryLimits::FLOORS_BYTES_MAX)
            .arg(arguments);
        invocation.invoke_async(connection).await
    }

    pub(super) fn listen(&self) -> watch::Receiver<()> {
        self.notifier.subscribe()
    }

    /// Whether writes are read back.
    pub(super) fn health(&self) -> Result<(), Unavailable> {
        self.connection.commands().map_err(Unavailable)?;
        if let Some(problem) = lock(&self.eviction).problem() {
            return Err(Unavailable(format!("{}: {problem}", self.connector)));
        }
        match *lock(&self.canary_back) {
            Some(back) if back.elapsed() <= CANARY_AGE_MAX => Ok(()),
            _ => Err(Unavailable(format!("{}: a write is not read back", self.connector))),
        }
    }

    /// What the log kept a second ago or less, while there is a connection.
    pub(super) fn stats(&self) -> LogStats {
        let mut stats = *lock(&self.kept);
        stats.is_up = self.health().is_ok();
        stats
    }

    /// The end of the log as it is now.
    pub(super) async fn end(&self) -> Result<End, Trouble> {
        let asked_at = self.changes();
        let answer = self.call(&scripts::BOUNDS, &[]).await?;
        let epochs = self.learn_starts(&answer.text(0)?, asked_at)?;
        let oldest = place_of(answer.bytes(1)?);
        let (newest, number, deletions) = (answer.place(2)?, answer.number(3)?, answer.number(4)?);
        Ok(End { epochs, oldest, newest, number, deletions })
    }

    /// The epochs as last known.
    pub(super) fn starts(&self) -> Arc<Starts> {
        lock(&self.epochs).starts()
    }

    fn changes(&self) -> u64 {
        lock(&self.epochs).changes()
    }

    /// The epochs as they were while this one was the newest.
    pub(super) async fn starts_through(&self, epoch: Epoch) -> Result<Arc<Starts>, Trouble> {
        let known = self.starts();
        if known.newest() == Some(epoch) {
            return Ok(known);
        }
        let starts = match known.through(epoch) {
            Some(starts) => Some(starts),
            None => self.end().await?.epochs.through(epoch),
        };
        let another = || Trouble::Away("another log has replaced this one".to_owned());
        starts.map(Arc::new).ok_or_else(another)
    }

    /// The epochs that were requested after this many changes. Not every reply replaces what is
    /// known, see [`Learned::learn`].
    fn learn_starts(&self, text: &str, asked_at: u64) -> Result<Arc<Starts>, Trouble> {
        let starts = Arc::new(Starts::parse(text).ok_or_else(|| Trouble::strange("the epochs"))?);
        lock(&self.epochs).learn(&starts, asked_at);
        Ok(starts)
    }

    /// An event of the newest epoch was read here, or acknowledged to a publisher here.
    pub(super) fn know(&self, epoch: Epoch, place: u64, event: impl FnOnce() -> Newest) {
        let starts = self.starts();
        if starts.contains(epoch) && starts.newest() != Some(epoch) {
            return;
        }
        let mut known = lock(&self.known);
        match &mut *known {
            Some(known) if known.epoch == epoch && known.place >= place => {}
            Some(known) if known.epoch == epoch => (known.place, known.event) = (place, event()),
            known => *known = Some(NewestKnown { epoch, place, event: event(), deletions: 0 }),
        }
    }

    /// This many deletions were reported here.
    pub(super) fn know_deletions(&self, epoch: Epoch, serial: u64) {
        if let Some(known) = &mut *lock(&self.known)
            && known.epoch == epoch
        {
            known.deletions = known.deletions.max(serial);
        }
    }

    /// Stays connected, until it is aborted.
    async fn keep(self: &Arc<Self>, first: Connections) {
        let mut connected: Result<_, Problem> = Ok(first);
        let mut retry = RETRY;
        for number in 1.. {
            let problem = match connected {
                Ok(connections) => {
                    if number > 1 {
                        tracing::info!(redis = %self.connector, "the log has reconnected");
                    }
                    retry.succeeded();
                    self.serve(connections, number).await.to_string()
                }
                Err(problem) => problem.to_string(),
            };
            // Of consecutive failures only the first is logged.
            if retry.failures() == 0 {
                tracing::warn!(redis = %self.connector, problem, "Redis is unreachable for the log; retrying");
            }
            self.replicas.connection.take_down(problem.clone());
            self.connection.take_down(problem);
            sleep(retry.failed()).await;
            connected = self.connect().await;
        }
    }

    /// Makes the connections and checks that everything is there that this process knows of.
    async fn connect(&self) -> Result<Connections, Problem> {
        let mut commands = self.connector.open().await?;
        let notifications = self.connector.open_with(ENTRY_WAIT_TIME_MAX + RESPONSE_TIME_MAX).await?;
        let waiting = if self.replicas.are_wanted() { Some(self.connector.open().await?) } else { None };
        self.look_at_eviction(&mut commands).await;
        for script in scripts::ALL {
            script.load_async(&mut commands).await?;
        }
        let [.., notifier, _] = &self.keys;
        let mut last = redis::cmd("XREVRANGE");
        last.arg(notifier).arg("+").arg("-").arg("COUNT").arg(1);
        let last: Vec<(String, Vec<String>)> = last.query_async(&mut commands).await?;
        let notifier_received = last.into_iter().next().map_or_else(|| "0-0".to_owned(), |(id, _)| id);
        let log_received = self.probe(&mut commands, "").await?;
        Ok(Connections { commands, notifications, waiting, log_received, notifier_received })
    }

    /// Records the eviction policy of Redis, and logs a change.
    async fn look_at_eviction(&self, commands: &mut MultiplexedConnection) {
        let now = match eviction_policy(commands).await.as_deref() {
            None => Eviction::Unknown,
            Some("noeviction") => Eviction::Never,
            Some(policy) => Eviction::By(policy.to_owned()),
        };
        let before = std::mem::replace(&mut *lock(&self.eviction), now.clone());
        if before == now {
            return;
        }
        let redis = &self.connector;
        match (now.problem(), before, now) {
            // `open` refuses it.
            (Some(_), Eviction::Unasked, _) => {}
            (Some(problem), ..) => tracing::error!(%redis, "events may be LOST: {problem}"),
            (None, Eviction::By(_), Eviction::Never) => {
                tracing::info!(%redis, "maxmemory-policy is noeviction again");
            }
            (None, _, Eviction::Unknown) => tracing::info!(
                %redis,
                "the maxmemory-policy of Redis cannot be read (CONFIG GET, INFO memory): make sure that it is noeviction"
            ),
            _ => {}
        }
    }

    /// Presents what this process knows, and sends a canary. Returns the end of the log.
    async fn probe(&self, commands: &mut MultiplexedConnection, canary: &str) -> Result<String, Trouble> {
        let known = lock(&self.known).clone();
        let asked_at = self.changes();
        let starts = self.starts();
        let epoch = known.as_ref().map(|known| known.epoch).or(starts.newest());
        let epoch = epoch.map_or_else(String::new, spelled);
        let id = known.as_ref().map_or_else(String::new, |known| place(known.place));
        let deletions = known.as_ref().map_or(0, |known| known.deletions).to_string();
        let Newest { topics, text } = known.map_or_else(Newest::default, |known| known.event);
        let arguments = [&*epoch, &starts.earlier(), &id, &topics, &text, &deletions, canary];
        let value = self.run(commands, &scripts::PROBE, &arguments).await;
        let answer = Answer::of(value.map_err(|error| judge(&error).0)?)?;
        let mut kept = LogStats::new("redis", self.settings.limits.bytes_max);
        (kept.events, kept.bytes) = (answer.number(5)?, answer.number(6)?);
        kept.oldest = place_of(answer.bytes(7)?).map(time_of);
        kept.newest = place_of(answer.bytes(8)?).map(time_of);
        *lock(&self.kept) = kept;
        let end = answer.text(1)?;
        let before = starts.newest();
        let starts = self.learn_starts(&answer.text(0)?, asked_at)?;
        if before.is_some() && before != starts.newest() {
            tracing::warn!(
                redis = %self.connector,
                epoch = ?starts.current(),
                "Redis has lost acknowledged events; a new epoch begins"
            );
        }
        Ok(end)
    }

    /// Uses these connections until one of them fails, and returns the reason.
    async fn serve(&self, connections: Connections, number: u64) -> Problem {
        let Connections { commands, notifications, waiting, log_received, notifier_received } = connections;
        *lock(&self.canary_back) = None;
        if let Some(waiting) = waiting {
            self.replicas.connection.put_up(waiting, number);
        }
        self.connection.put_up(commands.clone(), number);
        self.notifier.send_replace(());
        tokio::select! {
            Err(error) = self.receive(notifications, log_received, notifier_received) => error.into(),
            problem = self.send_canaries(commands) => problem,
            () = self.connection.broken_off(number) => "the connection failed".into(),
            () = self.replicas.connection.broken_off(number) => "the connection failed".into(),
        }
    }

    /// Waits for new entries and fires the notifier.
    async fn receive(
        &self,
        mut notifications: MultiplexedConnection,
        mut log_received: String,
        mut notifier_received: String,
    ) -> RedisResult<Infallible> {
        type Streams = Vec<(String, Vec<(String, Vec<String>)>)>;
        let [log, state, .., notifier, _] = &self.keys;
        let millis = u64::try_from(ENTRY_WAIT_TIME_MAX.as_millis()).unwrap_or(u64::MAX);
        loop {
            let mut wait = redis::cmd("XREAD");
            wait.arg("COUNT").arg(1).arg("BLOCK").arg(millis);
            wait.arg("STREAMS").arg(&[log, notifier, &log_received, &notifier_received]);
            let streams: Option<Streams> = wait.query_async(&mut notifications).await?;
            let mut is_news = false;
            for (stream, entries) in streams.into_iter().flatten() {
                for (id, fields) in entries {
                    if stream == *log {
                        is_news = true;
                        log_received = id;
                    } else {
                        is_news |= self.receive_notifier(&fields);
                        notifier_received = id;
                    }
                }
            }
            if is_news {
                self.notifier.send_replace(());
            }
            let newest = notifications.hget(state, "newest").await?;
            let newest = newest.unwrap_or_else(|| "0-0".to_owned());
            // A tail that was woken a moment ago may have looked before these arrived.
            if newest != log_received {
                log_received = newest;
                self.notifier.send_replace(());
            }
        }
    }

    /// Whether an entry of the notification stream concerns tails.
    fn receive_notifier(&self, fields: &[String]) -> bool {
        let [kind, value] = fields else { return true };
        if kind != "canary" {
            return true;
        }
        // The first canary of a connection shows that the log can be used.
        value.starts_with(&self.name) && lock(&self.canary_back).replace(Instant::now()).is_none()
    }

    async fn send_canaries(&self, mut commands: MultiplexedConnection) -> Problem {
        let started = Instant::now();
        let mut count = 0;
        loop {
            if count % EVICTION_CANARIES == EVICTION_CANARIES - 1 {
                self.look_at_eviction(&mut commands).await;
            }
            let canary = format!("{}:{count}", self.name);
            let epoch = self.starts().newest();
            match self.probe(&mut commands, &canary).await {
                // A full Redis is no reason to reconnect; health reports it when no canary comes
                // back.
                Ok(_) | Err(Trouble::Full(_)) => {}
                Err(trouble) => return trouble.into(),
            }
            if self.starts().newest() != epoch {
                self.notifier.send_replace(());
            }
            let back = lock(&self.canary_back).unwrap_or(started);
            if back.elapsed() > 2 * CANARY_AGE_MAX {
                return "a write is not read back".into();
            }
            sleep(CANARY_INTERVAL).await;
            count += 1;
        }
    }
}
