//! A log on a real nats-server, and what is written to it and read from it.

use std::{fs, path::Path, sync::Arc};

use tidings_log::{
    AppendError, Appended, Batch, Entry, Event, Filter, Grants, IdempotencyKey, Log, Position, Tail,
    TailItem, Topic,
};
use tidings_nats::{NatsAddress, NatsLog, NatsSettings};
use tidings_testkit::PATIENCE;
use tidings_topic::{Cursor, Matcher, NewEvent, Validator};
use tokio::time::timeout;

use super::{connect, eventually};

pub(crate) const PLENTY: usize = 16 << 20;

pub(crate) async fn open(address: &NatsAddress) -> NatsLog {
    open_with(address, NatsSettings::default()).await
}

pub(crate) async fn open_with(address: &NatsAddress, settings: NatsSettings) -> NatsLog {
    connect(address, settings).await.log().await.expect("the log opens")
}

pub(crate) fn event(topic: &str, data: &str) -> Event {
    Validator::default().event(NewEvent::new(topic, data)).expect("a valid event")
}

pub(crate) fn topic(text: &str) -> Topic {
    Validator::default().topic(text).expect("a topic")
}

pub(crate) fn exact(text: &str) -> Filter {
    let matcher = Validator::default().exact(text).expect("a topic");
    Filter { matchers: vec![matcher], grants: Grants::NONE }
}

pub(crate) fn everything() -> Filter {
    Filter { matchers: vec![Matcher::Any], grants: Grants::all() }
}

pub(crate) async fn try_to_append(
    log: &NatsLog,
    data: &str,
    key: Option<&str>,
) -> Result<Appended, AppendError> {
    let key = key.map(|key| IdempotencyKey::new(key).expect("a key"));
    log.append(Batch { events: vec![event("a", data)], key }).await
}

pub(crate) async fn append(log: &NatsLog, data: &str) -> Cursor {
    match try_to_append(log, data, None).await {
        Ok(Appended::New { last, .. }) => last,
        other => panic!("expected a new event, got {other:?}"),
    }
}

/// Appends as soon as the log accepts it.
pub(crate) async fn append_at_last(log: &NatsLog, data: &str) {
    eventually("the log accepts an event", async || {
        match try_to_append(log, data, Some(&data.replace(' ', "-"))).await {
            Ok(_) => true,
            Err(AppendError::Unavailable(_) | AppendError::OutcomeUnknown(_)) => false,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
}

/// A tail may continue a moment before requests are answered.
pub(crate) async fn answers(log: &NatsLog) {
    eventually("the hub is back", async || log.bounds().await.is_ok()).await;
}

pub(crate) async fn texts(log: &NatsLog) -> Vec<String> {
    let page = log.read(Position::BEFORE_ALL, &everything(), PLENTY).await.expect("a page");
    assert!(page.at_end);
    data(&page.entries)
}

pub(crate) fn data(entries: &[Arc<Entry>]) -> Vec<String> {
    entries.iter().map(|entry| entry.event.data.clone()).collect()
}

pub(crate) async fn next(tail: &mut Box<dyn Tail>) -> TailItem {
    timeout(PATIENCE, tail.next(PLENTY)).await.expect("the tail brings something").expect("the log is open")
}

/// What a tail brings up to an event, the starts of epochs included.
pub(crate) async fn follow_to(tail: &mut Box<dyn Tail>, last: &str) -> Vec<String> {
    let mut received: Vec<String> = Vec::new();
    while received.last().is_none_or(|text| text != last) {
        match next(tail).await {
            TailItem::Entries(entries) => received.extend(data(&entries)),
            TailItem::NewEpoch(_) => received.push("new epoch".to_owned()),
            other => panic!("{other:?}"),
        }
    }
    received
}

/// Whether a file below this folder holds these bytes.
pub(crate) fn holds(folder: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return holds(&path, bytes);
        }
        let content = fs::read(path).unwrap_or_default();
        content.windows(bytes.len()).any(|window| window == bytes)
    })
}
