//! From entries of the log to the bytes that go out.
//!
//! An event is encoded once per [`Format`] and feed, as an HTTP/1.1 chunk that holds one event of
//! Server-Sent Events; a pulled stream takes the inner event. Notices are encoded here as well, so
//! that nothing else in the crate knows the wire format.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidings_log::{Cursor, Entry};
use tidings_sse::EventFields;

/// How events are written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Format {
    /// The data as it was published, the type in the `event:` field.
    #[default]
    Plain,
    /// Every event is a plain `message` whose data is the JSON object `{"topic", "id", "type",
    /// "time", "data"}`: `topic` is the canonical topic, `type` is `message` for events without
    /// one, `time` is RFC 3339 in UTC, `data` is always a string. With it, one `onmessage` handler
    /// can distinguish many topics. A subscriber that receives an event through an alternate topic
    /// sees the canonical one.
    Json,
}

impl Format {
    /// How many formats there are.
    pub(crate) const COUNT: usize = 2;
}

/// Appends an entry as one chunk and returns the range in `out` of the event inside it.
pub(crate) fn encode_entry(entry: &Entry, format: Format, out: &mut Vec<u8>) -> Range<usize> {
    let event = &entry.event;
    let event_type = event.event_type.as_ref().map(tidings_topic::EventType::as_str);
    let json;
    let fields = match format {
        Format::Plain => EventFields {
            event: event_type,
            retry_millis: event.retry_millis,
            id: Some(entry.id.as_str()),
            data: &event.data,
        },
        Format::Json => {
            json =
                serde_json::to_string(&JsonEvent::from(entry)).expect("a struct of strings is always JSON");
            EventFields {
                event: None,
                retry_millis: event.retry_millis,
                id: Some(entry.id.as_str()),
                data: &json,
            }
        }
    };
    fields
        .encode_chunk(out)
        .expect("only a validator makes events, and it refuses what would break the framing")
}

/// An event as JSON, as [`Format::Json`] writes it.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct JsonEvent<'a> {
    /// The canonical topic.
    pub topic: &'a str,
    /// The id, the publisher's own or a generated one.
    pub id: &'a str,
    /// The type; `message` for an event without one.
    #[serde(rename = "type")]
    pub event_type: &'a str,
    /// When it was published: RFC 3339, in UTC.
    pub time: String,
    /// The data.
    pub data: &'a str,
}

impl<'a> From<&'a Entry> for JsonEvent<'a> {
    fn from(entry: &'a Entry) -> Self {
        let event = &entry.event;
        let millis = i64::try_from(entry.time.to_millis()).unwrap_or(i64::MAX);
        Self {
            topic: event.topics[0].as_str(),
            id: entry.id.as_str(),
            event_type: event.event_type.as_ref().map_or("message", tidings_topic::EventType::as_str),
            time: jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX).to_string(),
            data: &event.data,
        }
    }
}

/// What the hub sends a subscriber besides events: encoded as `event: tidings`, so that `onmessage`
/// never sees it.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Notice {
    /// Events that this subscriber could have received are no longer available.
    Gap {
        reason: GapReason,
        /// The id that the client resumed from, or the position that it had reached.
        requested: String,
        /// The oldest event that is kept, as a generated id.
        oldest: Option<String>,
        /// The end of the log, as a generated id.
        newest: String,
    },
    /// The server is about to end this stream, and the client reconnects.
    Reconnect { reason: &'static str },
    /// The end of a finite read: everything up to its end has been sent.
    End,
    /// The credential of this subscriber expires soon.
    Expiring { remaining_secs: u64 },
    /// The credential of this subscriber has expired: the stream ends, and needs another credential.
    Expired,
    /// What this subscriber was granted has been withdrawn, and the stream ends.
    Revoked,
    /// The beginning of the stream.
    Hello {
        /// The name of this connection, which a publisher can exclude.
        connection: String,
        /// How often the hub sends something at least; 0 without heartbeats.
        heartbeat_secs: u64,
        /// What is subscribed to: topics,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        topics: Vec<String>,
        /// and patterns.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        patterns: Vec<String>,
        /// What proves that a request to change the topics is of this client, if nothing else does.
        #[serde(skip_serializing_if = "Option::is_none")]
        secret: Option<String>,
    },
}

/// Why events are no longer available.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GapReason {
    /// They expired, or were deleted.
    Expired,
    /// The id from which the subscriber resumed names no event that it may see.
    Unknown,
    /// The id is from another log, or this log lost its end.
    OtherLog,
}

/// Why a stream ends.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EndReason {
    /// The hub shuts down.
    Shutdown,
    /// The credential of this subscriber has expired.
    Expired,
    /// The stream has reached its maximum age.
    Lifetime,
    /// What this subscriber was granted was withdrawn ([`Hub::end`](crate::Hub::end)).
    Revoked,
}

impl EndReason {
    /// Whether this subscriber may not receive anything from then on, so that a connection that does
    /// not accept the notice is cut.
    pub(crate) fn is_of_credential(self) -> bool {
        matches!(self, Self::Expired | Self::Revoked)
    }

    /// The last notice of the stream.
    pub(crate) fn notice(self) -> Notice {
        match self {
            Self::Shutdown => Notice::Reconnect { reason: "shutdown" },
            Self::Lifetime => Notice::Reconnect { reason: "lifetime" },
            Self::Expired => Notice::Expired,
            Self::Revoked => Notice::Revoked,
        }
    }
}

impl Notice {
    /// Encodes the notice. Its id moves the client's cursor to `place`, so that a gap is not
    /// reported again after a reconnect.
    pub(crate) fn encode(&self, place: Cursor, retry_millis: Option<u64>) -> Bytes {
        let data = serde_json::to_string(self).expect("notices hold strings only");
        let id = place.to_event_id();
        let fields = EventFields { event: Some("tidings"), retry_millis, id: Some(id.as_str()), data: &data };
        let mut out = Vec::new();
        fields.encode(&mut out).expect("a notice has no control characters");
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use tidings_log::{Epoch, Position, Timestamp};
    use tidings_topic::{NewEvent, Validator};

    use super::*;

    fn entry() -> Entry {
        let new = NewEvent::new("chat", "a\nb").event_type("greeting").id("own");
        let event = Validator::default().event(new).expect("valid");
        let cursor = Cursor { epoch: Epoch::from_u64(1), position: Position::BEFORE_ALL };
        Entry::new(cursor, Timestamp::from_millis(1_000), event)
    }

    #[test]
    fn a_plain_frame_carries_the_event_as_published() {
        let mut out = Vec::new();
        let inner = encode_entry(&entry(), Format::Plain, &mut out);
        assert_eq!(&out[inner], b"event: greeting\nid: own\ndata: a\ndata: b\n\n");
    }

    #[test]
    fn a_json_frame_is_a_message_with_all_fields() {
        let mut out = Vec::new();
        let inner = encode_entry(&entry(), Format::Json, &mut out);
        let expected = "id: own\ndata: {\"topic\":\"chat\",\"id\":\"own\",\"type\":\"greeting\",\
                        \"time\":\"1970-01-01T00:00:01Z\",\"data\":\"a\\nb\"}\n\n";
        assert_eq!(std::str::from_utf8(&out[inner]), Ok(expected));
    }

    #[test]
    fn a_gap_notice_has_the_documented_fields() {
        let place = Cursor { epoch: Epoch::from_u64(1), position: Position::BEFORE_ALL };
        let gap = Notice::Gap {
            reason: GapReason::OtherLog,
            requested: "x".to_owned(),
            oldest: None,
            newest: "#1.0".to_owned(),
        };
        let expected = "event: tidings\nid: #1.0\ndata: {\"kind\":\"gap\",\"reason\":\"other-log\",\
                        \"requested\":\"x\",\"oldest\":null,\"newest\":\"#1.0\"}\n\n";
        assert_eq!(gap.encode(place, None), expected);
    }
}
