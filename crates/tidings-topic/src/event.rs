//! Events, their names, and what they look like before they are checked.

use std::{borrow::Borrow, fmt, sync::Arc};

use crate::Cursor;

/// The name under which an event is published. Only a [`Validator`](crate::Validator) makes one.
///
/// Valid UTF-8 without control or format characters (Mercure protocol); compared byte by byte, never normalised (Mercure protocol).
/// Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    pub(crate) fn new_unchecked(text: &str) -> Self {
        Self(text.into())
    }

    /// The topic as it was published.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({:?})", &*self.0)
    }
}

/// The id of an event: a publisher's own, or one that spells a [`Cursor`].
///
/// A publisher's own id has at most [`Validator::EVENT_ID_BYTES_MAX`](crate::Validator::EVENT_ID_BYTES_MAX) bytes, no control or
/// format characters, does not begin with `#` and is not `earliest` (Mercure protocol). Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EventId(Arc<str>);

impl EventId {
    pub(crate) fn new_unchecked(text: &str) -> Self {
        Self(text.into())
    }

    pub(crate) fn generated(cursor: Cursor) -> Self {
        Self(cursor.spell(&mut [0; Cursor::BYTES_MAX]).into())
    }

    /// The id as it goes over the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the hub made this id: publishers' own never begin with `#`.
    pub fn is_generated(&self) -> bool {
        self.0.starts_with('#')
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({:?})", &*self.0)
    }
}

/// The type of an event, the `event:` field of Server-Sent Events: not empty, never `message` (which is the same as none),
/// `tidings` or `mercure` (reserved for notices), no control or format characters (Mercure protocol).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct EventType(Arc<str>);

impl EventType {
    pub(crate) fn new_unchecked(text: &str) -> Self {
        Self(text.into())
    }

    /// The type as it goes over the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names one connection of a subscriber, so that a publisher can leave it out (`except`). Made by the hub, never by a client: 128 random bits,
/// spelled as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId([u8; 16]);

impl ConnectionId {
    /// The id of these bits, which nobody must be able to guess.
    pub const fn from_random(bits: [u8; 16]) -> Self {
        Self(bits)
    }

    /// The bits that it was made of.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Reads what [`Display`](fmt::Display) writes. `None` for anything else: it could never name a connection.
    pub fn parse(text: &str) -> Option<Self> {
        let is_spelled_so =
            text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let bits = u128::from_str_radix(text, 16).ok().filter(|_| is_spelled_so)?;
        Some(Self(bits.to_be_bytes()))
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionId({self})")
    }
}

/// A valid event, as it stands in the log. Only a [`Validator`](crate::Validator) makes one, from a [`NewEvent`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Event {
    /// What it is about: at least one; the first is canonical, the rest are alternates (Mercure protocol).
    pub topics: Vec<Topic>,
    /// What it says. May be empty; line ends of all three kinds are allowed.
    pub data: String,
    /// The publisher's own id, echoed verbatim. Without one the log generates it.
    pub id: Option<EventId>,
    /// The `event:` field. `None` is an ordinary `message`.
    pub event_type: Option<EventType>,
    /// The `retry:` field: how long a browser waits before it reconnects.
    pub retry_millis: Option<u64>,
    /// Delivered only to subscribers with a grant on one of the topics (Mercure protocol).
    pub private: bool,
    /// Not delivered to this connection.
    pub except: Option<ConnectionId>,
}

impl Event {
    /// The memory that this event holds, in bytes, near enough for limits.
    pub fn memory_bytes(&self) -> usize {
        let topics: usize = self.topics.iter().map(|topic| topic.as_str().len() + 32).sum();
        let names = self.id.as_ref().map_or(0, |id| id.as_str().len())
            + self.event_type.as_ref().map_or(0, |event_type| event_type.as_str().len());
        size_of::<Self>() + topics + names + self.data.len()
    }
}

/// An event as somebody wants to publish it: plain strings, not yet checked.
///
/// ```
/// use tidings_topic::{NewEvent, Validator};
///
/// let validator = Validator::default();
/// let event = validator.event(NewEvent::new("chat", "hello").event_type("greeting"))?;
/// assert_eq!(event.topics[0].as_str(), "chat");
/// # Ok::<(), tidings_topic::Invalid>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NewEvent {
    /// The topics, the canonical one first.
    pub topics: Vec<String>,
    /// The data.
    pub data: String,
    /// The publisher's own id.
    pub id: Option<String>,
    /// The type; `None`, empty and `message` are the same.
    pub event_type: Option<String>,
    /// The reconnection time in milliseconds.
    pub retry_millis: Option<u64>,
    /// Whether only subscribers with a grant may receive it.
    pub private: bool,
    /// A connection that shall not receive it.
    pub except: Option<ConnectionId>,
}

impl NewEvent {
    /// A public event without an id of its own and without a type.
    pub fn new(topic: impl Into<String>, data: impl Into<String>) -> Self {
        Self { topics: vec![topic.into()], data: data.into(), ..Self::default() }
    }

    /// Adds an alternate topic.
    #[must_use]
    pub fn also(mut self, topic: impl Into<String>) -> Self {
        self.topics.push(topic.into());
        self
    }

    /// Sets the publisher's own id.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the type, which `addEventListener` names in the browser.
    #[must_use]
    pub fn event_type(mut self, event_type: impl Into<String>) -> Self {
        self.event_type = Some(event_type.into());
        self
    }

    /// Sets the reconnection time in milliseconds.
    #[must_use]
    pub fn retry_millis(mut self, retry_millis: u64) -> Self {
        self.retry_millis = Some(retry_millis);
        self
    }

    /// Makes the event private.
    #[must_use]
    pub fn private(mut self) -> Self {
        self.private = true;
        self
    }

    /// Leaves one connection out.
    #[must_use]
    pub fn except(mut self, connection: ConnectionId) -> Self {
        self.except = Some(connection);
        self
    }
}
