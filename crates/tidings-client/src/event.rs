//! What a subscription yields.

use std::time::Duration;

use tidings_sse::ParsedEvent;

use crate::{ClientError, Notice, notice};

/// What happens to a subscription.
///
/// ```
/// use tidings_client::ClientEvent;
///
/// fn describe(event: &ClientEvent) -> String {
///     match event {
///         ClientEvent::Open => "connected".to_owned(),
///         ClientEvent::Message(message) => format!("{}: {}", message.event_type, message.data),
///         ClientEvent::Notice { notice, id } => format!("{notice:?}, continue after {id}"),
///         ClientEvent::Comment(text) => format!("comment: {text}"),
///         ClientEvent::Waiting { delay, reason } => format!("{reason}; waiting for {delay:?}"),
///         _ => "something that this version does not know".to_owned(),
///     }
/// }
///
/// assert_eq!(describe(&ClientEvent::Open), "connected");
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// A connection is established; at the beginning, and again after each wait.
    Open,
    /// An event.
    Message(Message),
    /// A notice of the hub about the stream itself. A gap means that events are lost for good.
    Notice {
        /// What the hub reports.
        notice: Notice,
        /// The id in force: a subscription that resumes after it gets everything that follows the
        /// notice. Empty if there is none.
        id: String,
    },
    /// A comment line without its colon and the one space after it, if [the source was asked for
    /// comments](crate::EventSource::comments).
    Comment(String),
    /// There is no connection; the next attempt follows after a pause.
    Waiting {
        /// How long the pause is.
        delay: Duration,
        /// The error that ended the connection.
        reason: ClientError,
    },
}

/// An event as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The type, `message` if the event has none.
    pub event_type: String,
    /// The data, its lines joined with line feeds.
    pub data: String,
    /// The id in force: use it to resume after this event. Empty if there is none.
    pub id: String,
}

impl From<ParsedEvent> for ClientEvent {
    fn from(event: ParsedEvent) -> Self {
        let ParsedEvent { event_type, data, last_event_id: id, .. } = event;
        if event_type == notice::EVENT_TYPE {
            return Self::Notice { notice: Notice::parse(&data), id };
        }
        Self::Message(Message { event_type, data, id })
    }
}
