//! One connection of a bridge: incoming and outgoing messages, and how its end is detected.
//!
//! Messages and replies share the connection (RESP3). The client library hands incoming messages to
//! [`Listener`] while it reads, which never waits: a queue between the two would have no limit.

use std::{convert::Infallible, sync::Arc, time::Duration};

use redis::{PushInfo, PushKind, RedisError, Value, aio::MultiplexedConnection};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};

use super::{counts::Count, echoes::Echoes, inbox::Message, outwards::Outwards, state::BridgeState};
use crate::{Connector, connect::Problem};

/// How often the server is pinged. With the limit on replies, a connection that is dead and silent
/// is detected within twice this time.
const PING_PAUSE: Duration = Duration::from_secs(5);

/// A connection that is subscribed to everything that is bridged.
pub(super) struct Session {
    connection: MultiplexedConnection,
    listener: Arc<Listener>,
}

impl Session {
    /// Connects and subscribes.
    pub(super) async fn open(shared: &Arc<BridgeState>) -> Result<Self, Problem> {
        let listener = Arc::new(Listener {
            shared: Arc::clone(shared),
            echoes: Echoes::default(),
            closed: Notify::new(),
        });
        let connector = Connector::new(shared.settings.url.clone(), "{tidings}", "bridge");
        let receive = {
            let listener = Arc::clone(&listener);
            move |push| {
                listener.receive(push);
                Ok::<_, Infallible>(())
            }
        };
        let mut connection = connector.open_hearing(receive).await?;
        let (channels, patterns) = shared.settings.subscriptions();
        if !channels.is_empty() {
            connection.subscribe(channels).await?;
        }
        if !patterns.is_empty() {
            connection.psubscribe(patterns).await?;
        }
        Ok(Self { connection, listener })
    }

    /// Sends outgoing messages until the connection is lost. Returns the reason.
    pub(super) async fn serve(&mut self, outwards: &mut Outwards) -> Problem {
        let mut pings = interval(PING_PAUSE);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                () = self.listener.closed.notified() => return "the connection was closed".into(),
                _ = pings.tick() => self.ping().await,
                messages = outwards.next() => self.send(&messages).await,
            };
            if let Err(error) = done {
                return error.into();
            }
        }
    }

    async fn ping(&mut self) -> Result<(), RedisError> {
        redis::cmd("PING").query_async(&mut self.connection).await
    }

    /// Publishes messages. After a failure they may have been published or not, and are not sent
    /// again: at most once is better than twice.
    async fn send(&mut self, messages: &[Message]) -> Result<(), RedisError> {
        let mut pipe = redis::pipe();
        for Message { channel, payload } in messages {
            self.listener.echoes.expect(channel, payload);
            pipe.cmd("PUBLISH").arg(channel).arg(payload).ignore();
        }
        let sent: Result<(), _> = pipe.query_async(&mut self.connection).await;
        let count: Count = if sent.is_ok() { |counts| &mut counts.sent } else { |counts| &mut counts.unsent };
        self.listener.shared.counts.add(count, messages.len());
        sent
    }
}

/// Receives what the server sends.
struct Listener {
    shared: Arc<BridgeState>,
    echoes: Echoes,
    closed: Notify,
}

impl Listener {
    /// Confirmations of subscriptions are no messages, nor is any kind that is not listed here.
    fn receive(&self, push: PushInfo) {
        let mut data = push.data.into_iter();
        let mut text = || match data.next() {
            Some(Value::BulkString(text)) => Some(text),
            _ => None,
        };
        let pattern = match push.kind {
            PushKind::Disconnection => return self.closed.notify_one(),
            PushKind::Message => None,
            PushKind::PMessage => text(),
            _ => return,
        };
        if let (Some(channel), Some(payload)) = (text(), text()) {
            self.take(channel, pattern.as_deref(), payload);
        }
    }

    fn take(&self, channel: Vec<u8>, pattern: Option<&[u8]>, payload: Vec<u8>) {
        let shared = &*self.shared;
        let (settings, counts) = (&shared.settings, &shared.counts);
        if !shared.lease.is_held() {
            return;
        }
        let Ok(channel) = String::from_utf8(channel) else {
            counts.add(|counts| &mut counts.received, 1);
            return shared.refuse(|counts| &mut counts.undecodable, &"the name of the channel is not UTF-8");
        };
        let pattern = pattern.map(|pattern| std::str::from_utf8(pattern).expect("it is one of ours"));
        if pattern.is_some_and(|pattern| settings.comes_otherwise(&channel, pattern)) {
            return;
        }
        if settings.both_ways && self.echoes.is_own(&channel, &payload) {
            return counts.add(|counts| &mut counts.returned, 1);
        }
        counts.add(|counts| &mut counts.received, 1);
        if payload.len() > settings.message_bytes_max {
            let reason =
                format!("it has {} bytes; the limit is {}", payload.len(), settings.message_bytes_max);
            return shared.refuse(|counts| &mut counts.too_large, &reason);
        }
        if shared.inbox.push(Message { channel, payload }) {
            return;
        }
        counts.add(|counts| &mut counts.dropped, 1);
        if let Some(messages) = shared.drops.add() {
            let bytes_max = settings.queue_bytes_max;
            tracing::error!(bridge = %settings, messages, bytes_max, "messages are LOST: the hub accepts no events and the queue is full");
        }
    }
}
