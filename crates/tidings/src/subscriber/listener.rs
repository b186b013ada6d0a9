//! A subscription for the application itself: typed items in place of bytes.
//!
//! It is the stream that a client receives, parsed, so what is true of one is true of the other:
//! order, resuming, gaps, grants, ephemeral events.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::SystemTime,
};

use bytes::Bytes;
use futures_core::Stream;
use jiff::Timestamp;
use serde::Deserialize;
use tidings_sse::{Item, ParsedEvent, Parser};
use tidings_topic::ConnectionId;

use super::{
    subscribe::Subscribe,
    subscription::{Audience, Subscription},
};
use crate::{
    error::Error,
    feed::encode::{EndReason, Format, GapReason},
    hub::Hub,
};

/// A subscription of the application itself, made by [`Hub::listen`]: a [`Stream`] of [`Received`].
///
/// It keeps the hub alive, and ends when the hub closes. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Listener {
    subscription: Subscription,
    parser: Parser,
    /// What is still to be parsed: at most one event.
    rest: Bytes,
}

/// What a [`Listener`] receives.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Received {
    /// An event.
    Event(ReceivedEvent),
    /// Events are missing here that could have been received.
    Gap(Gap),
    /// The subscription ends; nothing comes after this.
    End(EndReason),
}

/// An event, as a subscriber receives it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ReceivedEvent {
    /// The canonical topic.
    pub topic: String,
    /// The id, from which [`Since::Id`](crate::Since::Id) continues.
    pub id: String,
    /// The type; `None` for an ordinary message.
    pub event_type: Option<String>,
    /// When it was published.
    pub time: SystemTime,
    /// The data.
    pub data: String,
}

/// Events are missing: they expired, or were deleted or lost, before this subscriber could receive
/// them. What follows begins with the oldest event that is left.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Gap {
    /// Why they are missing.
    pub reason: GapReason,
    /// The id that the subscriber resumed from, or had reached.
    pub requested: String,
    /// The oldest event of the log, as a generated id.
    pub oldest: Option<String>,
    /// The end of the log, as a generated id.
    pub newest: String,
}

/// The data of an event in [`Format::Json`].
#[derive(Deserialize)]
struct JsonFields {
    topic: String,
    id: String,
    r#type: String,
    time: String,
    data: String,
}

/// The data of a notice.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Notice {
    Gap(Gap),
    Reconnect {
        reason: EndReason,
    },
    Expired,
    Revoked,
    #[serde(other)]
    Other,
}

impl Hub {
    /// Subscribes the application itself: a stream of typed items, with the same topics, start and
    /// grants as one for a client. It does not count as [present](Self::presence), and
    /// [`Subscribe::format`] and [`Subscribe::label`] have no effect.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tidings::Error> {
    /// use futures_util::StreamExt;
    /// use tidings::{Hub, NewEvent, Received};
    ///
    /// let hub = Hub::in_memory().await;
    /// let mut orders = hub.listen("orders").await?;
    /// hub.publish(NewEvent::new("orders", "42").event_type("shipped")).await?;
    /// hub.close();
    /// while let Some(received) = orders.next().await {
    ///     match received {
    ///         Received::Event(event) => assert_eq!(event.data, "42"),
    ///         Received::Gap(gap) => eprintln!("orders are missing: {:?}", gap.reason),
    ///         Received::End(reason) => println!("{reason:?}"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn listen(&self, request: impl Into<Subscribe>) -> Result<Listener, Error> {
        let request = request.into().format(Format::Json).hello(false);
        let subscription = Subscription::open(self.clone(), request, Audience::Inside).await?;
        Ok(Listener { subscription, parser: Parser::new(), rest: Bytes::new() })
    }
}

impl Listener {
    /// The name of this subscription: an event published with
    /// [`NewEvent::except`](crate::NewEvent::except) of it is not delivered here.
    pub fn connection(&self) -> ConnectionId {
        self.subscription.connection()
    }

    /// The hub that this listens to.
    pub(crate) fn hub(&self) -> &Hub {
        self.subscription.hub()
    }

    /// Whether everything up to the end of the log has been received, as far as this hub has read
    /// it.
    pub(crate) fn has_caught_up(&self) -> bool {
        self.rest.is_empty() && self.subscription.has_caught_up()
    }
}

impl Stream for Listener {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        loop {
            let Self { subscription, parser, rest } = &mut *self;
            while let Some(item) = parser.next(rest) {
                let item = item.expect("a hub sends no event beyond the limits of the parser");
                if let Item::Event(event) = item
                    && let Some(received) = typed(&event)
                {
                    return Poll::Ready(Some(received));
                }
            }
            match ready!(subscription.poll_bytes(context)) {
                Some(bytes) => *rest = bytes,
                None => return Poll::Ready(None),
            }
        }
    }
}

/// In JSON every event is a plain message, so what has a type is a notice.
fn typed(event: &ParsedEvent) -> Option<Received> {
    if event.event_type == "message" {
        let JsonFields { topic, id, r#type, time, data } =
            serde_json::from_str(&event.data).expect("the hub has written this JSON");
        let time: Timestamp = time.parse().expect("the hub has written this time");
        let event_type = (r#type != "message").then_some(r#type);
        return Some(Received::Event(ReceivedEvent { topic, id, event_type, time: time.into(), data }));
    }
    match serde_json::from_str(&event.data).expect("the hub has written this JSON") {
        Notice::Gap(gap) => Some(Received::Gap(gap)),
        Notice::Reconnect { reason } => Some(Received::End(reason)),
        Notice::Expired => Some(Received::End(EndReason::Expired)),
        Notice::Revoked => Some(Received::End(EndReason::Revoked)),
        Notice::Other => None,
    }
}
