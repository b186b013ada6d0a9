//! Conversion of events to and from their stored form.

use crate::{
    ConnectionId, Event, EventId, EventType, Topic,
    validate::{Field, NOTICE_TYPE, bounded_retry_millis, check_characters},
};

/// An event as a log stores it: the texts of an [`Event`], borrowed from the event or from the
/// bytes that were read. Whether an event is ephemeral is no part of it: such events are not stored.
///
/// ```
/// use tidings_topic::{NewEvent, StoredEvent, Validator};
///
/// let event = Validator::default().event(NewEvent::new("chat", "hello"))?;
/// assert_eq!(StoredEvent::of(&event).restore(), Some(event.clone()));
/// # Ok::<(), tidings_topic::Invalid>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the fields are those of Event")]
pub struct StoredEvent<'a> {
    pub topics: Vec<&'a str>,
    pub data: &'a str,
    pub id: Option<&'a str>,
    pub event_type: Option<&'a str>,
    pub retry_millis: Option<u64>,
    pub private: bool,
    pub except: Option<ConnectionId>,
}

impl<'a> StoredEvent<'a> {
    /// The stored form of an event.
    pub fn of(event: &'a Event) -> Self {
        Self {
            topics: event.topics.iter().map(Topic::as_str).collect(),
            data: &event.data,
            id: event.id.as_ref().map(EventId::as_str),
            event_type: event.event_type.as_ref().map(EventType::as_str),
            retry_millis: event.retry_millis,
            private: event.private,
            except: event.except,
        }
    }

    /// Restores the event. `None` if it is invalid: whatever program wrote to the store, nothing
    /// that breaks the wire format or imitates a notice of the hub comes out of it. Rules that
    /// depend on the configuration of a hub (its limits, its reserved topics) were checked when the
    /// event was published, and are not checked again.
    pub fn restore(self) -> Option<Event> {
        let topics: Vec<_> = self.topics.into_iter().map(topic).collect::<Option<_>>()?;
        Some(Event {
            topics: (!topics.is_empty()).then_some(topics)?,
            data: self.data.to_owned(),
            id: self.id.map_or(Some(None), |id| event_id(id).map(Some))?,
            event_type: self.event_type.map_or(Some(None), |name| event_type(name).map(Some))?,
            retry_millis: self.retry_millis.map(bounded_retry_millis),
            private: self.private,
            except: self.except,
            ephemeral: false,
        })
    }
}

impl Topic {
    /// For log implementations: the topic of an event that was stored. `None` if no event can have
    /// it.
    ///
    /// ```
    /// use tidings_topic::{EventId, Topic};
    ///
    /// assert!(Topic::from_stored("chat").is_some() && Topic::from_stored("").is_none());
    /// assert!(EventId::from_stored("order-1").is_some() && EventId::from_stored("#1").is_none());
    /// ```
    pub fn from_stored(text: &str) -> Option<Self> {
        topic(text)
    }
}

impl EventId {
    /// For log implementations: a publisher's own id as it was stored. `None` if it cannot be one.
    pub fn from_stored(text: &str) -> Option<Self> {
        event_id(text)
    }
}

fn topic(text: &str) -> Option<Topic> {
    let named = !text.is_empty() && text != "*" && check_characters(Field::Topic, text).is_ok();
    named.then(|| Topic::new_unchecked(text))
}

fn event_id(text: &str) -> Option<EventId> {
    let own = !text.is_empty() && !text.starts_with('#') && text != "earliest";
    (own && check_characters(Field::Id, text).is_ok()).then(|| EventId::new_unchecked(text))
}

fn event_type(text: &str) -> Option<EventType> {
    let named = !text.is_empty() && text != "message" && text != NOTICE_TYPE;
    (named && check_characters(Field::Type, text).is_ok()).then(|| EventType::new_unchecked(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NewEvent, Validator};

    fn full() -> Event {
        let new = NewEvent::new("https://example.com/ä", "one\r\ntwo\u{0}")
            .also("alternate")
            .id("my id: ü")
            .event_type("greeting")
            .retry_millis(700)
            .private()
            .except(ConnectionId::from_random([7; 16]));
        Validator::default().event(new).unwrap()
    }

    #[test]
    fn an_event_is_restored_unchanged() {
        let bare = Validator::default().event(NewEvent::new("a", "")).unwrap();
        for event in [full(), bare] {
            assert_eq!(StoredEvent::of(&event).restore(), Some(event.clone()));
        }
    }

    #[test]
    fn a_restored_retry_obeys_the_limits() {
        let event = full();
        for (stored, expected) in [(0, 500), (499, 500), (500, 500), (u64::MAX, Validator::RETRY_MILLIS_MAX)]
        {
            let stored = StoredEvent { retry_millis: Some(stored), ..StoredEvent::of(&event) };
            assert_eq!(stored.restore().and_then(|event| event.retry_millis), Some(expected));
        }
    }

    #[test]
    fn a_stored_event_that_forges_lines_or_notices_is_rejected() {
        let event = full();
        let good = StoredEvent::of(&event);
        for bad in [
            StoredEvent { topics: vec![], ..good.clone() },
            StoredEvent { topics: vec!["a", ""], ..good.clone() },
            StoredEvent { topics: vec!["a\nb"], ..good.clone() },
            StoredEvent { id: Some("1\ndata: forged"), ..good.clone() },
            StoredEvent { id: Some("#1.1"), ..good.clone() },
            StoredEvent { event_type: Some("a\rb"), ..good.clone() },
            StoredEvent { event_type: Some("tidings"), ..good.clone() },
        ] {
            assert_eq!(bad.clone().restore(), None, "{bad:?}");
        }
    }
}
