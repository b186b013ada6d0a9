//! An ordered consumer: the messages of a stream in their order, without a hole, until something
//! does not fit.
//!
//! It needs no acknowledgements. The server numbers what it sends, sends a heartbeat when it is
//! idle, and holds back when it does not learn that messages arrive. Anything out of sequence is an
//! error; its owner then starts another consumer after what it has.

use std::time::Duration;

use async_nats::{
    Message, StatusCode, Subscriber,
    jetstream::{
        consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, push},
        stream::Stream,
    },
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::time::timeout;

use crate::{index::Mark, link::Link};

/// The heartbeat interval of the server. After three missed heartbeats the consumer counts as dead.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long the server keeps an unused consumer.
const UNUSED_TIME: Duration = Duration::from_secs(30);

/// See the [module documentation](self).
pub(crate) struct Consumer<'l> {
    link: &'l Link,
    messages: Subscriber,
    /// How many messages it has brought.
    count: u64,
    /// How many it had brought when [`is_silent`](Self::is_silent) was called last.
    checked_count: Option<u64>,
    /// How many there were when it began.
    pub(crate) pending_at_first: u64,
    /// The subject on which the server waits for the report that messages arrive.
    flow_reply: Option<String>,
}

/// The position of a message, from its reply subject.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Delivery {
    pub(crate) mark: Mark,
    /// The number of this message among those of its consumer.
    count: u64,
}

impl<'l> Consumer<'l> {
    /// Starts to read a stream.
    pub(crate) async fn begin(link: &'l Link, stream: &Stream, from: DeliverPolicy) -> Result<Self, String> {
        let client = link.client();
        let deliver_subject = client.new_inbox();
        let messages = link.ask("listening", client.subscribe(deliver_subject.clone())).await?;
        let config = push::Config {
            deliver_subject,
            description: Some("a Tidings hub".to_owned()),
            deliver_policy: from,
            ack_policy: AckPolicy::None,
            replay_policy: ReplayPolicy::Instant,
            flow_control: true,
            idle_heartbeat: HEARTBEAT,
            inactive_threshold: UNUSED_TIME,
            memory_storage: true,
            num_replicas: 1,
            ..Default::default()
        };
        let consumer = link.ask("opening a consumer", stream.create_consumer(config)).await?;
        let pending_at_first = consumer.cached_info().num_pending;
        Ok(Self { link, messages, count: 0, checked_count: None, pending_at_first, flow_reply: None })
    }

    /// Whether it has brought nothing since this was called last.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.checked_count.replace(self.count) == Some(self.count)
    }

    /// The next message. Waits until there is one. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<(Delivery, Message), String> {
        loop {
            if let Some(subject) = self.flow_reply.clone() {
                let client = self.link.client();
                let reported = client.publish(subject, Bytes::new());
                self.link.ask("answering flow control", reported).await?;
                self.flow_reply = None;
            }
            let message = timeout(3 * HEARTBEAT, self.messages.next()).await;
            let message = message.map_err(|_| "the consumer of a stream missed its heartbeats".to_owned())?;
            let message = message.ok_or("the connection to NATS is closed")?;
            if let Some(delivery) = message.reply.as_ref().and_then(|reply| Delivery::parse(reply)) {
                self.count += 1;
                if delivery.count != self.count {
                    return Err("a message of a stream was lost in transit".to_owned());
                }
                return Ok((delivery, message));
            }
            if message.status != Some(StatusCode::IDLE_HEARTBEAT) {
                return Err(format!("the consumer of a stream ended: {:?}", message.description));
            }
            let stalled = message.headers.as_ref().and_then(|headers| headers.get("Nats-Consumer-Stalled"));
            self.flow_reply =
                message.reply.as_ref().map(ToString::to_string).or_else(|| stalled.map(ToString::to_string));
        }
    }

    /// The next message, if it is there already.
    pub(crate) fn next_at_hand(&mut self) -> Option<Result<(Delivery, Message), String>> {
        self.next().now_or_never()
    }
}

impl Delivery {
    /// `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<count>.<nanoseconds>.<pending>`, or
    /// with a domain and an account in front of the stream and more behind.
    fn parse(reply: &str) -> Option<Self> {
        let tokens: Vec<_> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let skipped = match tokens.len() {
            7 => 0,
            9.. => 2,
            _ => return None,
        };
        let number = |index: usize| tokens.get(skipped + index)?.parse().ok();
        let mark = Mark { sequence: number(3)?, nanos: number(5)? };
        Some(Self { mark, count: number(4)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reply_subject_holds_the_position_of_a_message() {
        let expected = Some(Delivery { mark: Mark { sequence: 7, nanos: 9 }, count: 8 });
        for reply in [
            "$JS.ACK.tidings.consumer.1.7.8.9.3",
            "$JS.ACK.domain.account.tidings.consumer.1.7.8.9.3",
            "$JS.ACK._.account.tidings.consumer.1.7.8.9.3.random",
        ] {
            assert_eq!(Delivery::parse(reply), expected, "{reply}");
        }
        for reply in ["", "$JS.ACK.", "$JS.FC.tidings.consumer.x", "$JS.ACK.tidings.consumer.1.x.8.9.0"] {
            assert_eq!(Delivery::parse(reply), None, "{reply}");
        }
    }
}
