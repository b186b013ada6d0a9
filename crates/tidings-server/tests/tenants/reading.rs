//! An open stream of a tenant, and what the model says that it may and must have received.

use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::{Duration, timeout};

use crate::{
    requests::Asking,
    topics::{Match, cover_any},
    world::Published,
};

/// What a stream has to report first, because it does not begin where its client asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum FirstGap {
    None,
    Unknown(String),
    OtherLog(String),
}

/// An open stream.
pub(crate) struct Reading {
    pub(crate) tenant: usize,
    pub(crate) asking: Asking,
    pub(crate) matchers: Vec<Match>,
    pub(crate) grants: Vec<Match>,
    /// It receives what was published from this number on.
    pub(crate) after: usize,
    /// What is missing has to be reported.
    pub(crate) promises: bool,
    pub(crate) first_gap: FirstGap,
    pub(crate) json: bool,
    pub(crate) connection: Option<String>,
    /// Its credential was revoked when this many events had been published.
    pub(crate) revoked_at: Option<usize>,
    pub(crate) headers: String,
    body: Body,
    read: String,
    pub(crate) ended: bool,
}

impl Reading {
    pub(crate) fn new(
        tenant: usize,
        asking: Asking,
        grants: Vec<Match>,
        headers: String,
        body: Body,
    ) -> Self {
        Self {
            tenant,
            asking,
            matchers: Vec::new(),
            grants,
            after: 0,
            promises: false,
            first_gap: FirstGap::None,
            json: false,
            connection: None,
            revoked_at: None,
            headers,
            body,
            read: String::new(),
            ended: false,
        }
    }

    /// Reads everything that is there. Time is paused: it advances only when every task waits.
    pub(crate) async fn read_available(&mut self) {
        while !self.ended {
            match timeout(Duration::from_millis(1), self.body.frame()).await {
                Err(_) => return,
                Ok(None) => self.ended = true,
                Ok(Some(frame)) => {
                    let data = frame.expect("no errors").into_data().expect("no trailers");
                    self.read.push_str(std::str::from_utf8(&data).expect("UTF-8"));
                }
            }
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.read
    }

    /// The name of the connection, from its `hello`.
    pub(crate) fn read_hello(&mut self) {
        let mut notices = blocks(&self.read).into_iter().filter_map(|block| block.notice());
        let connection = |notice: Value| notice["connection"].as_str().map(str::to_owned);
        self.connection = notices.find_map(connection);
    }

    /// Whether the stream is for this event, wherever it begins, and but for an excluded connection.
    pub(crate) fn is_for(&self, event: &Published) -> bool {
        self.matchers.iter().any(|matcher| matcher.matches_any(&event.topics))
            && (!event.private || cover_any(&self.grants, &event.topics))
    }

    pub(crate) fn may_receive(&self, number: usize, event: &Published) -> bool {
        number >= self.after && number < self.revoked_at.unwrap_or(usize::MAX) && self.is_for(event)
    }

    /// Compares what was received with what may and must have been. `is_kept` says which events the
    /// log still has.
    pub(crate) fn check(&self, events: &[Published], is_kept: impl Fn(usize) -> bool) {
        let mut received = Vec::new();
        let mut gaps = Vec::new();
        let mut ends = None;
        for block in blocks(&self.read) {
            if let Some(notice) = block.notice() {
                match notice["kind"].as_str().expect("a kind") {
                    "gap" => gaps.push(notice),
                    "hello" => assert_eq!(received.len(), 0, "it is before the events"),
                    "revoked" => ends = Some(notice),
                    _ => panic!("not expected: {notice}"),
                }
                continue;
            }
            let number = self.number_of(&block, events);
            assert!(received.last().is_none_or(|last| *last < number), "event {number} is doubled or late");
            assert!(self.may_receive(number, &events[number]), "LEAK: event {number}, {:?}", events[number]);
            let excluded = self.connection.is_some() && events[number].except == self.connection;
            assert!(!excluded, "event {number} excludes this connection");
            received.push(number);
        }
        assert_eq!(ends.is_some(), self.revoked_at.is_some(), "revoked, and not ended, or the reverse");
        assert_eq!(self.ended, self.revoked_at.is_some());

        let missing: Vec<_> = (self.after..events.len())
            .filter(|number| self.is_for(&events[*number]) && !received.contains(number))
            .collect();
        if self.revoked_at.is_none() {
            for number in missing.iter().filter(|number| is_kept(**number)) {
                let excluded = self.connection.is_some() && events[*number].except == self.connection;
                assert!(excluded, "event {number} was not received: {:?}", events[*number]);
            }
            let reported = !gaps.is_empty();
            let is_gone = |number: &usize| !is_kept(*number) && events[*number].except.is_none();
            if self.promises && missing.iter().any(is_gone) {
                assert!(reported, "{missing:?} are gone, and no gap was reported");
            }
        }
        self.check_gaps(&gaps, missing.iter().any(|number| !is_kept(*number)));
    }

    /// A gap names nothing but what the client itself has said and positions of the log, and there is
    /// none if the reader misses nothing that it could have received.
    fn check_gaps(&self, gaps: &[Value], misses_something: bool) {
        for (index, gap) in gaps.iter().enumerate() {
            let requested = gap["requested"].as_str().expect("a text");
            match (index, &self.first_gap) {
                (0, FirstGap::Unknown(id)) => {
                    assert_eq!((&gap["reason"], requested), (&"unknown".into(), &**id));
                }
                (0, FirstGap::OtherLog(id)) => {
                    assert_eq!((&gap["reason"], requested), (&"other-log".into(), &**id));
                }
                _ => {
                    assert_eq!(gap["reason"], "expired");
                    assert!(misses_something, "LEAK: a gap of what others miss: {gap}");
                    assert!(requested.starts_with('#') || self.asking.text().contains(requested), "{gap}");
                }
            }
            for position in [&gap["oldest"], &gap["newest"]] {
                assert!(
                    position.is_null() || position.as_str().is_some_and(|id| id.starts_with('#')),
                    "{gap}"
                );
            }
            assert_eq!(gap.as_object().map(serde_json::Map::len), Some(5), "{gap}");
        }
        let must = self.first_gap != FirstGap::None && self.revoked_at.is_none();
        assert!(!must || !gaps.is_empty(), "an unknown id was not reported");
    }

    /// Which event it is; every field is what was published.
    fn number_of(&self, block: &Block<'_>, events: &[Published]) -> usize {
        let find = |data: &str| events.iter().position(|event| event.data == data).expect("a known event");
        let number;
        if self.json {
            let object: Value = serde_json::from_str(block.data).expect("JSON");
            number = find(object["data"].as_str().expect("data"));
            let event = &events[number];
            let event_type = event.event_type.as_deref().unwrap_or("message");
            assert_eq!(
                (&object["topic"], &object["id"]),
                (&event.topics[0].as_str().into(), &event.id.as_str().into())
            );
            assert_eq!((&object["type"], block.event), (&event_type.into(), None));
            assert_eq!(object.as_object().map(serde_json::Map::len), Some(5));
        } else {
            number = find(block.data);
            assert_eq!(block.event, events[number].event_type.as_deref());
        }
        assert_eq!(block.id, Some(&*events[number].id));
        number
    }
}

struct Block<'a> {
    event: Option<&'a str>,
    id: Option<&'a str>,
    data: &'a str,
}

impl Block<'_> {
    fn notice(&self) -> Option<Value> {
        (self.event == Some("tidings")).then(|| serde_json::from_str(self.data).expect("JSON"))
    }
}

/// The events of a stream; none here has several lines of data.
fn blocks(text: &str) -> Vec<Block<'_>> {
    let blocks = text.split("\n\n").filter_map(|block| {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        Some(Block { event: field("event: "), id: field("id: "), data: field("data: ")? })
    });
    blocks.collect()
}
