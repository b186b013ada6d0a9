//! What all handles, watches and listeners of a cluster share in this process, and the task that
//! keeps it connected.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use redis::{FromRedisValue, PushInfo, PushKind, RedisResult, Script, Value, aio::MultiplexedConnection};
use tidings_log::{cluster::ClusterError, parts::lock, vital::catch_panic};
use tokio::{
    sync::{Notify, broadcast, watch},
    task::AbortHandle,
    time::{interval, sleep},
};

use super::scripts::{LIST, LOOK};
use crate::{
    Connector, RedisSettings,
    connect::{Problem, RETRY},
    shared_connection::SharedConnection,
};

/// Most messages of one channel that are queued for a listener, rounded up to a power of two.
/// Beyond that, it loses the oldest.
const MESSAGES_MAX: usize = 1_024;
/// How often the connection for subscriptions is pinged.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Most changed keys that a watch has not looked at. Beyond that, it looks at everything.
const CHANGED_MAX: usize = 1_024;
/// How many keys one call looks at.
const LOOK_KEYS_MAX: usize = 200;

/// See the [module documentation](self).
pub(super) struct ClusterClient {
    pub(super) connector: Connector,
    keys: [String; 7],
    pub(super) connection: SharedConnection,
    /// Fires when any key may have changed.
    pub(super) notifier: watch::Sender<()>,
    /// Sends each key that has changed.
    pub(super) changed: broadcast::Sender<Arc<str>>,
    channels: Mutex<HashMap<String, broadcast::Sender<Arc<[u8]>>>>,
}

/// A key that exists.
pub(super) struct LiveValue {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    /// How long it still holds, unless it is set again.
    pub(super) left: Duration,
}

impl LiveValue {
    /// As the scripts return it.
    fn of((key, value, left_millis): (String, Vec<u8>, u64)) -> Self {
        Self { key, value, left: Duration::from_millis(left_millis) }
    }
}

/// Two connections, the second subscribed to both channels.
struct Connections {
    commands: MultiplexedConnection,
    subscriptions: MultiplexedConnection,
    /// Notified when the second one has ended.
    ended: Arc<Notify>,
}

impl ClusterClient {
    pub(super) fn new(settings: &RedisSettings) -> Self {
        let parts = ["lease:", "fence", "values", "until", "names", "changes", "messages"];
        Self {
            connector: Connector::new(settings.url.clone(), format!("{{{}}}", settings.name), "cluster"),
            keys: parts.map(|part| format!("{{{}}}:cluster:{part}", settings.name)),
            connection: SharedConnection::new(),
            notifier: watch::Sender::new(()),
            changed: broadcast::Sender::new(CHANGED_MAX),
            channels: Mutex::default(),
        }
    }

    /// Connects, and starts the task that keeps connected.
    pub(super) async fn open(self: &Arc<Self>) -> Result<AbortHandle, ClusterError> {
        let connections = self.connect().await;
        let connections = connections.map_err(|problem| ClusterError::Unavailable(problem.to_string()))?;
        self.connection.put_up(connections.commands.clone(), 1);
        let client = Arc::clone(self);
        let keeper = tokio::spawn(async move {
            if let Err(panicked) = catch_panic(Arc::clone(&client).keep(connections)).await {
                tracing::error!(redis = %client.connector, %panicked, "the task that keeps the cluster connected has ended");
                client.close();
            }
        });
        Ok(keeper.abort_handle())
    }

    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        arguments: &[&[u8]],
    ) -> Result<T, ClusterError> {
        self.run_on("", script, arguments).await
    }

    /// Runs a script that is about one lease.
    pub(super) async fn run_on<T: FromRedisValue>(
        &self,
        lease: &str,
        script: &Script,
        arguments: &[&[u8]],
    ) -> Result<T, ClusterError> {
        let (mut commands, number) = self.connection.commands().map_err(ClusterError::Unavailable)?;
        let [leases, others @ ..] = &self.keys;
        let mut invocation = script.key(format!("{leases}{lease}"));
        let answered = invocation.key(others).arg(arguments).invoke_async(&mut commands).await;
        answered.map_err(|error| self.connection.judge(number, &error).into())
    }

    /// Those of these keys that exist.
    pub(super) async fn look(&self, keys: &BTreeSet<String>) -> Result<Vec<LiveValue>, ClusterError> {
        let keys: Vec<_> = keys.iter().map(String::as_bytes).collect();
        let mut found = Vec::new();
        for keys in keys.chunks(LOOK_KEYS_MAX) {
            found.extend(self.run::<Vec<_>>(&LOOK, keys).await?.into_iter().map(LiveValue::of));
        }
        Ok(found)
    }

    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<LiveValue>, ClusterError> {
        let mut found = Vec::new();
        let mut after = Vec::new();
        loop {
            let page: Vec<_>;
            (page, after) = self.run(&LIST, &[prefix.as_bytes(), &after]).await?;
            found.extend(page.into_iter().map(LiveValue::of));
            if after.is_empty() {
                return Ok(found);
            }
        }
    }

    /// Calls fail from now on, and listeners end.
    pub(super) fn close(&self) {
        self.connection.close();
        self.notifier.send_replace(());
        lock(&self.channels).clear();
    }

    /// The messages of a channel from now on.
    pub(super) fn listen(&self, channel: &str) -> Result<broadcast::Receiver<Arc<[u8]>>, ClusterError> {
        // A connected process has subscribed to all messages.
        self.connection.commands().map_err(ClusterError::Unavailable)?;
        let mut channels = lock(&self.channels);
        // Channels without listeners make room for new ones.
        channels.retain(|_, listeners| listeners.receiver_count() > 0);
        let listeners = channels.entry(channel.to_owned());
        Ok(listeners.or_insert_with(|| broadcast::Sender::new(MESSAGES_MAX)).subscribe())
    }

    async fn connect(self: &Arc<Self>) -> Result<Connections, Problem> {
        let commands = self.connector.open().await?;
        let ended = Arc::new(Notify::new());
        let receive = {
            let (client, ended) = (Arc::clone(self), Arc::clone(&ended));
            move |push: PushInfo| {
                match push.kind {
                    PushKind::Disconnection => ended.notify_one(),
                    PushKind::Message => client.receive(&push.data),
                    _ => {}
                }
                Ok::<_, Infallible>(())
            }
        };
        let mut subscriptions = self.connector.open_hearing(receive).await?;
        let [.., changes, messages] = &self.keys;
        subscriptions.subscribe(&[changes, messages]).await?;
        Ok(Connections { commands, subscriptions, ended })
    }

    /// Stays connected, until it is aborted.
    async fn keep(self: Arc<Self>, first: Connections) {
        let mut connected: Result<_, Problem> = Ok(first);
        let mut retry = RETRY;
        for number in 1.. {
            let problem = match connected {
                Ok(Connections { commands, subscriptions, ended }) => {
                    retry.succeeded();
                    self.connection.put_up(commands, number);
                    self.notifier.send_replace(());
                    tokio::select! {
                        Err(error) = ping(subscriptions) => error.to_string(),
                        () = ended.notified() => "the connection for subscriptions ended".to_owned(),
                        () = self.connection.broken_off(number) => "the connection failed".to_owned(),
                    }
                }
                Err(problem) => problem.to_string(),
            };
            // Of consecutive failures only the first is logged.
            if retry.failures() == 0 {
                tracing::warn!(redis = %self.connector, problem, "Redis is unreachable for the cluster; retrying");
            }
            self.connection.take_down(problem);
            sleep(retry.failed()).await;
            connected = self.connect().await;
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
        if let Some(listeners) = lock(&self.channels).get(channel) {
            listeners.send(message.into()).ok();
        }
    }
}

/// Pings a connection until it fails.
async fn ping(mut connection: MultiplexedConnection) -> RedisResult<Infallible> {
    let mut turns = interval(PING_INTERVAL);
    loop {
        turns.tick().await;
        redis::cmd("PING").query_async::<()>(&mut connection).await?;
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
