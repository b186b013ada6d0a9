//! What hubs share next to the log, on Redis: leases, state that expires, messages.
//!
//! A lease is a key that Redis expires; state is a hash with the times until which its keys hold,
//! by the clock of Redis. Every step is a script (`cluster/lua/`). All keys carry the hash tag
//! `{name}`, as those of the log do. Changes and messages travel on two pub/sub channels, to which
//! each process subscribes once, whatever the number of watches and listeners: a change only names
//! its key, and watches look it up (`cluster/watching.rs`). So a lost connection loses messages,
//! which are worth nothing a moment later, but never a change: watches look again after every
//! reconnect, and when something that they reported is due to expire.
//!
//! One task makes the two connections (`commands`, `subscriptions`) and reconnects them. While
//! there are none, calls fail at once; watches and listeners wait.

mod watching;

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    fmt,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use redis::{FromRedisValue, PushInfo, PushKind, RedisError, Script, Value, aio::MultiplexedConnection};
use tidings_log::{
    cluster::{Cluster, ClusterError, Lease, Messages, Watch},
    vital::catch_panic,
};
use tokio::{
    sync::{Notify, broadcast, watch},
    task::AbortHandle,
    time::{interval, sleep},
};

use self::watching::RedisWatch;
use crate::{Connector, RedisSettings, connect::RETRY, shared_connection::SharedConnection};

/// Most messages of one channel that are queued for a listener, rounded up to a power of two.
/// Beyond that, it loses the oldest.
const MESSAGES_MAX: usize = 1_024;

/// How often the connection for subscriptions is pinged.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Most changed keys that a watch has not looked at. Beyond that, it looks at everything.
const CHANGED_MAX: usize = 1_024;
/// How many keys one call looks at.
const LOOK_KEYS_MAX: usize = 200;

/// A cluster on Redis. Clones are handles to the same connections; when the last one is gone,
/// watches and listeners end with an error.
#[derive(Clone)]
pub struct RedisCluster(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    keeper: AbortHandle,
}

struct Shared {
    connector: Connector,
    keys: [String; 7],
    connection: SharedConnection,
    /// Fires when any key may have changed.
    notifier: watch::Sender<()>,
    /// Sends each key that has changed.
    changed: broadcast::Sender<Arc<str>>,
    channels: Mutex<HashMap<String, broadcast::Sender<Arc<[u8]>>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.keeper.abort();
        self.shared.close();
    }
}

impl RedisCluster {
    /// Joins the cluster of this name. Needs a Tokio runtime. The limits in the settings are not
    /// used. Fails if Redis cannot be reached.
    pub async fn open(settings: &RedisSettings) -> Result<Self, ClusterError> {
        let parts = ["lease:", "fence", "values", "until", "names", "changes", "messages"];
        let shared = Arc::new(Shared {
            connector: Connector::new(settings.url.clone(), format!("{{{}}}", settings.name), "cluster"),
            keys: parts.map(|part| format!("{{{}}}:cluster:{part}", settings.name)),
            connection: SharedConnection::new(),
            notifier: watch::Sender::new(()),
            changed: broadcast::Sender::new(CHANGED_MAX),
            channels: Mutex::default(),
        });
        let connections = shared.connect().await.map_err(ClusterError::Unavailable)?;
        shared.connection.put_up(connections.commands.clone(), 1);
        let keeping = Arc::clone(&shared);
        let keeper = tokio::spawn(async move {
            if let Err(panicked) = catch_panic(Arc::clone(&keeping).keep(connections)).await {
                tracing::error!(redis = %keeping.connector, %panicked, "the task that keeps the cluster connected has ended");
                keeping.close();
            }
        });
        Ok(Self(Arc::new(Handle { shared, keeper: keeper.abort_handle() })))
    }
}

impl fmt::Debug for RedisCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCluster").field("redis", &self.0.shared.connector).finish_non_exhaustive()
    }
}

#[async_trait]
impl Cluster for RedisCluster {
    async fn acquire(&self, key: &str, time: Duration) -> Result<Option<Lease>, ClusterError> {
        let fence: Option<u64> = self.0.shared.run_on(key, &scripts().acquire, &[&millis(time)]).await?;
        Ok(fence.map(|fence| Lease { key: key.to_owned(), fence }))
    }

    async fn renew(&self, lease: &Lease, time: Duration) -> Result<bool, ClusterError> {
        let fence = lease.fence.to_string();
        self.0.shared.run_on(&lease.key, &scripts().renew, &[fence.as_bytes(), &millis(time)]).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), ClusterError> {
        let fence = lease.fence.to_string();
        self.0.shared.run_on(&lease.key, &scripts().release, &[fence.as_bytes()]).await
    }

    async fn set(&self, key: &str, value: &[u8], time: Duration) -> Result<(), ClusterError> {
        self.0.shared.run(&scripts().set, &[key.as_bytes(), value, &millis(time)]).await
    }

    async fn remove(&self, key: &str) -> Result<(), ClusterError> {
        self.0.shared.run(&scripts().remove, &[key.as_bytes()]).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ClusterError> {
        self.0.shared.run(&scripts().get, &[key.as_bytes()]).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, ClusterError> {
        let listed = self.0.shared.list(prefix).await?;
        Ok(listed.into_iter().map(|found| (found.key, found.value)).collect())
    }

    async fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>, ClusterError> {
        Ok(Box::new(RedisWatch::new(Arc::clone(&self.0.shared), prefix)))
    }

    async fn send(&self, channel: &str, message: &[u8]) -> Result<(), ClusterError> {
        let envelope = [channel.len().to_string().as_bytes(), b":", channel.as_bytes(), message].concat();
        self.0.shared.run(&scripts().send, &[&envelope]).await
    }

    async fn listen(&self, channel: &str) -> Result<Box<dyn Messages>, ClusterError> {
        // A connected process has subscribed to all messages.
        self.0.shared.connection.commands().map_err(ClusterError::Unavailable)?;
        let mut channels = self.0.shared.channels();
        // Channels without listeners make room for new ones.
        channels.retain(|_, listeners| listeners.receiver_count() > 0);
        let listeners = channels.entry(channel.to_owned());
        let received = listeners.or_insert_with(|| broadcast::Sender::new(MESSAGES_MAX)).subscribe();
        Ok(Box::new(RedisMessages(received)))
    }
}

struct RedisMessages(broadcast::Receiver<Arc<[u8]>>);

#[async_trait]
impl Messages for RedisMessages {
    async fn next(&mut self) -> Result<Vec<u8>, ClusterError> {
        loop {
            match self.0.recv().await {
                Ok(message) => return Ok(message.to_vec()),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => {
                    return Err(ClusterError::Unavailable("its last handle is gone".to_owned()));
                }
            }
        }
    }
}

/// A key that exists.
struct Found {
    key: String,
    value: Vec<u8>,
    /// How long it still holds, unless it is set again.
    left: Duration,
}

/// Two connections, the second subscribed to both channels.
struct Connections {
    commands: MultiplexedConnection,
    subscriptions: MultiplexedConnection,
    /// Notified when the second one has ended.
    ended: Arc<Notify>,
}

impl Shared {
    async fn run<T: FromRedisValue>(&self, script: &Script, arguments: &[&[u8]]) -> Result<T, ClusterError> {
        self.run_on("", script, arguments).await
    }

    /// Runs a script that is about one lease.
    async fn run_on<T: FromRedisValue>(
        &self,
        lease: &str,
        script: &Script,
        arguments: &[&[u8]],
    ) -> Result<T, ClusterError> {
        let (mut commands, number) = self.connection.commands().map_err(ClusterError::Unavailable)?;
        let mut invocation = script.prepare_invoke();
        let [leases, others @ ..] = &self.keys;
        invocation.key(format!("{leases}{lease}"));
        for key in others {
            invocation.key(key);
        }
        for argument in arguments {
            invocation.arg(*argument);
        }
        invocation.invoke_async(&mut commands).await.map_err(|error: RedisError| {
            let problem = error.to_string();
            match error.code() {
                Some("OOM") => ClusterError::Full(problem),
                // An error reply leaves the connection as it is, unless the server is not the right
                // one any more.
                Some(code)
                    if !["READONLY", "MOVED", "LOADING", "MASTERDOWN", "CLUSTERDOWN"].contains(&code) =>
                {
                    ClusterError::Unavailable(problem)
                }
                _ => {
                    self.connection.break_off(number, &problem);
                    ClusterError::Unavailable(problem)
                }
            }
        })
    }

    /// Those of these keys that exist.
    async fn look(&self, keys: &BTreeSet<String>) -> Result<Vec<Found>, ClusterError> {
        let keys: Vec<_> = keys.iter().map(String::as_bytes).collect();
        let mut found = Vec::new();
        for keys in keys.chunks(LOOK_KEYS_MAX) {
            found.extend(found_in(self.run(&scripts().look, keys).await?)?);
        }
        Ok(found)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Found>, ClusterError> {
        let mut found = Vec::new();
        let mut after = Vec::new();
        loop {
            let mut answer: Vec<Vec<u8>> = self.run(&scripts().list, &[prefix.as_bytes(), &after]).await?;
            after = answer.pop().ok_or_else(strange)?;
            found.extend(found_in(answer)?);
            if after.is_empty() {
                return Ok(found);
            }
        }
    }

    /// Calls fail from now on, and listeners end.
    fn close(&self) {
        self.connection.close();
        self.notifier.send_replace(());
        self.channels().clear();
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<String, broadcast::Sender<Arc<[u8]>>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(self: &Arc<Self>) -> Result<Connections, String> {
        let commands = self.connector.open().await.map_err(|error| error.to_string())?;
        let ended = Arc::new(Notify::new());
        let receive = {
            let (shared, ended) = (Arc::clone(self), Arc::clone(&ended));
            move |push: PushInfo| {
                match push.kind {
                    PushKind::Disconnection => ended.notify_one(),
                    PushKind::Message => shared.receive(&push.data),
                    _ => {}
                }
                Ok::<_, Infallible>(())
            }
        };
        let subscriptions = self.connector.open_hearing(receive).await;
        let mut subscriptions = subscriptions.map_err(|error| error.to_string())?;
        let [.., changes, messages] = &self.keys;
        subscriptions.subscribe(&[changes, messages]).await.map_err(|error| error.to_string())?;
        Ok(Connections { commands, subscriptions, ended })
    }

    /// Stays connected, until it is aborted.
    async fn keep(self: Arc<Self>, first: Connections) {
        let mut connections = Some(first);
        let mut number = 0;
        let mut retry = RETRY;
        loop {
            let connected = match connections.take() {
                Some(connections) => Ok(connections),
                None => self.connect().await,
            };
            let problem = match connected {
                Ok(Connections { commands, subscriptions, ended }) => {
                    number += 1;
                    retry.succeeded();
                    self.connection.put_up(commands, number);
                    self.notifier.send_replace(());
                    tokio::select! {
                        problem = ping(subscriptions) => problem,
                        () = ended.notified() => "the connection for subscriptions ended".to_owned(),
                        () = self.connection.broken_off(number) => "the connection failed".to_owned(),
                    }
                }
                Err(problem) => problem,
            };
            // Of consecutive failures only the first is logged.
            if retry.failures() == 0 {
                tracing::warn!(redis = %self.connector, problem, "Redis is unreachable for the cluster; retrying");
            }
            self.connection.take_down(problem);
            sleep(retry.failed()).await;
        }
    }

    /// Takes a message of one of the two channels.
    fn receive(&self, data: &[Value]) {
        let [Value::BulkString(channel), Value::BulkString(payload)] = data else { return };
        let [.., changes, messages] = &self.keys;
        if channel == messages.as_bytes() {
            self.deliver(payload);
        } else if channel == changes.as_bytes() {
            self.changed.send(String::from_utf8_lossy(payload).into()).ok();
        }
    }

    /// Delivers a message to the listeners of its channel. Anything else is skipped.
    fn deliver(&self, envelope: &[u8]) {
        let Some((channel, message)) = opened(envelope) else { return };
        if let Some(listeners) = self.channels().get(channel) {
            listeners.send(message.into()).ok();
        }
    }
}

/// Pings a connection until it fails, and returns the reason.
async fn ping(mut connection: MultiplexedConnection) -> String {
    let mut turns = interval(PING_INTERVAL);
    loop {
        turns.tick().await;
        if let Err(error) = redis::cmd("PING").query_async::<Value>(&mut connection).await {
            return error.to_string();
        }
    }
}

/// The channel and the message of an envelope: the length of the channel's name, a colon, the name,
/// the message.
fn opened(envelope: &[u8]) -> Option<(&str, &[u8])> {
    let colon = envelope.iter().position(|byte| *byte == b':')?;
    let length: usize = std::str::from_utf8(&envelope[..colon]).ok()?.parse().ok()?;
    let (channel, message) = envelope[colon + 1..].split_at_checked(length)?;
    Some((std::str::from_utf8(channel).ok()?, message))
}

fn found_in(answer: Vec<Vec<u8>>) -> Result<Vec<Found>, ClusterError> {
    let mut found = Vec::with_capacity(answer.len() / 3);
    let mut answer = answer.into_iter();
    while let (Some(key), Some(value), Some(left)) = (answer.next(), answer.next(), answer.next()) {
        let key = String::from_utf8(key).map_err(|_| strange())?;
        let left = std::str::from_utf8(&left).ok().and_then(|left| left.parse().ok());
        found.push(Found { key, value, left: Duration::from_millis(left.ok_or_else(strange)?) });
    }
    Ok(found)
}

fn strange() -> ClusterError {
    ClusterError::Unavailable("unexpected reply from Redis".to_owned())
}

fn millis(time: Duration) -> Vec<u8> {
    time.as_millis().to_string().into_bytes()
}

/// The scripts, each with the common part in front.
struct Scripts {
    acquire: Script,
    get: Script,
    list: Script,
    look: Script,
    release: Script,
    remove: Script,
    renew: Script,
    send: Script,
    set: Script,
}

fn scripts() -> &'static Scripts {
    static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| {
        let script = |text: &str| Script::new(&[include_str!("cluster/lua/common.lua"), text].concat());
        Scripts {
            acquire: script(include_str!("cluster/lua/acquire.lua")),
            get: script(include_str!("cluster/lua/get.lua")),
            list: script(include_str!("cluster/lua/list.lua")),
            look: script(include_str!("cluster/lua/look.lua")),
            release: script(include_str!("cluster/lua/release.lua")),
            remove: script(include_str!("cluster/lua/remove.lua")),
            renew: script(include_str!("cluster/lua/renew.lua")),
            send: script(include_str!("cluster/lua/send.lua")),
            set: script(include_str!("cluster/lua/set.lua")),
        }
    });
    &SCRIPTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_round_trips() {
        assert_eq!(opened(b"3:a:bhello"), Some(("a:b", &b"hello"[..])));
        assert_eq!(opened(b"0:"), Some(("", &b""[..])));
        for strange in ["", "3", "3:ab", "x:a", "-1:a"] {
            assert_eq!(opened(strange.as_bytes()), None, "{strange}");
        }
    }
}
