//! Events as the stream holds them.

use std::borrow::Cow;

use tidings_log::{
    Cursor, Entry, Event,
    parts::{Audience, position},
};
use tidings_topic::{ConnectionId, StoredEvent, Topic};

use super::{epochs::Starts, places::time_of};

/// An event as it is passed to the script.
pub(super) struct Written<'a> {
    pub(super) topics: String,
    pub(super) meta: String,
    pub(super) data: &'a str,
}

/// Topics, ids and types hold no line feeds: the validator refuses them.
pub(super) fn written(event: &Event) -> Written<'_> {
    let stored = StoredEvent::of(event);
    let mut topics = String::from(if stored.private { "-" } else { "+" });
    topics.push_str(&stored.topics.join("\n"));
    let retry = stored.retry_millis.map_or_else(String::new, |millis| millis.to_string());
    let except = stored.except.map_or_else(String::new, |connection| connection.to_string());
    let (id, event_type) = (stored.id.unwrap_or_default(), stored.event_type.unwrap_or_default());
    Written { topics, meta: format!("\n{id}\n{event_type}\n{retry}\n{except}"), data: stored.data }
}

/// An entry of the stream as Redis returns it.
pub(super) struct Raw<'a> {
    pub(super) place: u64,
    pub(super) topics: Cow<'a, str>,
    pub(super) meta: Cow<'a, str>,
    pub(super) data: Cow<'a, str>,
}

impl Raw<'_> {
    /// The number of the entry.
    pub(super) fn number(&self) -> Option<u64> {
        self.meta.split('\n').next()?.parse().ok()
    }

    /// The entry, or `None` if another program has written something into the stream that is no
    /// event.
    pub(super) fn entry(&self, starts: &Starts) -> Option<Entry> {
        let (private, topics) = audience_of(&self.topics)?;
        let mut meta = self.meta.split('\n').skip(1).map(|text| (!text.is_empty()).then_some(text));
        let (id, event_type) = (meta.next()?, meta.next()?);
        let (retry, except) = (meta.next()?, meta.next()?);
        let stored = StoredEvent {
            topics: topics.collect(),
            data: &self.data,
            id,
            event_type,
            retry_millis: retry.map(str::parse).transpose().ok()?,
            private,
            except: match except {
                Some(text) => Some(ConnectionId::parse(text)?),
                None => None,
            },
        };
        let cursor = Cursor { epoch: starts.epoch_of(self.place), position: position(self.place) };
        Some(Entry::new(cursor, time_of(self.place), stored.restore()?))
    }
}

/// Whether it is private, and the topics.
fn audience_of(text: &str) -> Option<(bool, impl Iterator<Item = &str>)> {
    let private = match text.as_bytes().first()? {
        b'-' => true,
        b'+' => false,
        _ => return None,
    };
    Some((private, text[1..].split('\n')))
}

/// The audience of an event with these topics.
pub(super) fn audience(text: &str) -> Option<Audience> {
    let (private, topics) = audience_of(text)?;
    let mut topics: Vec<Topic> = topics.map(Topic::from_stored).collect::<Option<_>>()?;
    topics.sort_unstable();
    topics.dedup();
    Some(Audience { topics, private })
}

#[cfg(test)]
mod tests {
    use tidings_log::{Epoch, Timestamp};
    use tidings_topic::{NewEvent, Validator};

    use super::*;

    #[test]
    fn an_event_is_read_back_as_it_was_written() {
        let full = NewEvent::new("/a", "one\ntwo\0")
            .also("/b")
            .id("my id")
            .event_type("greeting")
            .retry_millis(0)
            .private()
            .except(ConnectionId::from_random([7; 16]));
        let starts = Starts::starting(Epoch::from_u64(9));
        for new in [full, NewEvent::new("a", "")] {
            let event = Validator::default().event(new).unwrap();
            let Written { topics, meta, data } = written(&event);
            let raw = Raw {
                place: 5 << 20,
                topics: topics.into(),
                meta: format!("17{meta}").into(),
                data: data.into(),
            };
            assert_eq!(raw.number(), Some(17));
            let entry = raw.entry(&starts).unwrap();
            assert_eq!((entry.event, entry.time), (event, Timestamp::from_millis(5)));
        }
    }

    #[test]
    fn an_entry_that_is_no_event_is_none() {
        let starts = Starts::starting(Epoch::from_u64(9));
        for (topics, meta) in
            [("a", "1\n\n\n\n"), ("", "1\n\n\n\n"), ("+", "1\n\n\n\n"), ("+a", "1"), ("+a", "1\n\n\nx\n")]
        {
            let raw = Raw { place: 1, topics: topics.into(), meta: meta.into(), data: "".into() };
            assert!(raw.entry(&starts).is_none(), "{topics:?} {meta:?}");
        }
    }
}
