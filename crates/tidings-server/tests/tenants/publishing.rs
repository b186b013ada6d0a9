//! Publishing: which events a tenant publishes, by which of the three ways, and what follows.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};

use crate::{
    people::Kind,
    requests::Asking,
    support::{HUB, KEY},
    topics::{Match, TOPICS, cover_all, is_private},
    world::{Published, World, path_of},
};

impl World {
    /// Publishes one event or two, by one of the three ways.
    pub(crate) async fn publish(&mut self) {
        let tenant = self.someone();
        let way = self.random.between(0, 3);
        let count = if way == 2 { self.random.between(1, 3) } else { 1 };
        let events: Vec<_> = (0..count).map(|_| self.new_event(tenant, way)).collect();
        let key = self.random.percent(15).then(|| format!("key-{}", self.random.between(0, 3)));
        let mut asking = publication(way, &events);
        if let Some(key) = &key {
            asking.header("idempotency-key", &**key);
        }
        let who = &self.tenants[tenant];
        let expected = who.writes() && events.iter().all(|event| cover_all(&who.publish, &event.topics));
        asking.header("authorization", format!("Bearer {}", who.credential));
        if who.kind == Kind::Anonymous {
            asking.headers.retain(|(name, _)| *name != "authorization");
        }
        let (accepted, body) = self.answer(&asking).await;
        assert_eq!(accepted, expected, "{asking:?} {:?}: {body}", self.tenants[tenant]);
        if !accepted {
            return;
        }
        let first_before = key.as_ref().and_then(|key| self.keys.get(&(tenant, key.clone())).copied());
        let ids = ids_of(way, &body);
        if let Some(first) = first_before {
            assert_eq!(ids, [self.events[first].id.clone()], "a repeat");
            return;
        }
        let first = self.events.len();
        self.append(events).await;
        if let Some(key) = key {
            self.keys.insert((tenant, key), first);
        }
        let published = self.events[first..].iter().map(|event| event.id.clone());
        assert_eq!(ids, published.collect::<Vec<_>>());
        self.search(&asking, &body, |number, _| number >= first);
    }

    /// Remembers events that were published, with their positions.
    async fn append(&mut self, events: Vec<Published>) {
        let entries = self.log.everything().await;
        for mut event in events {
            // Where the log has dropped it already, it has no position that could be used.
            let entry = entries.iter().find(|entry| entry.event.data == event.data);
            let entry = entry.unwrap_or_else(|| panic!("{event:?} was not appended"));
            event.cursor = entry.cursor.to_event_id().to_string();
            event.id = event.own_id.clone().unwrap_or_else(|| event.cursor.clone());
            assert_eq!(entry.event.private, event.private, "{event:?}");
            self.events.push(event);
        }
    }

    fn new_event(&mut self, tenant: usize, way: usize) -> Published {
        let mark = self.next_mark();
        let count = if way == 0 { 1 } else { self.random.between(1, 4) };
        let mut topics = Vec::new();
        // Most events are within the permission of their publisher.
        for _ in 0..5 {
            topics.clear();
            while topics.len() < count {
                let topic =
                    if self.random.percent(15) { format!("/rooms/mark{mark}mark") } else { self.topic() };
                if !topics.contains(&topic) {
                    topics.push(topic);
                }
            }
            if cover_all(&self.tenants[tenant].publish, &topics) || self.random.percent(10) {
                break;
            }
        }
        let own_ids: Vec<_> = self.events.iter().filter_map(|event| event.own_id.clone()).collect();
        let own_id = match self.random.between(0, 100) {
            0..45 => Some(format!("id-mark{mark}mark")),
            45..55 if !own_ids.is_empty() => Some(self.random.pick(&own_ids).clone()),
            _ => None,
        };
        let connections: Vec<_> =
            self.streams.iter().filter_map(|stream| stream.connection.clone()).collect();
        let excludes = way != 1 && !connections.is_empty() && self.random.percent(15);
        Published {
            private: self.random.percent(50) || topics.iter().any(|topic| is_private(topic)),
            topics,
            data: format!("data mark{mark}mark"),
            id: String::new(),
            own_id,
            cursor: String::new(),
            event_type: self.random.percent(30).then(|| format!("type-mark{mark}mark")),
            except: excludes.then(|| self.random.pick(&connections).clone()),
        }
    }

    /// An event for everybody, and one for everybody with a permission on a private topic: whatever
    /// is sent to a stream before them has arrived when they have.
    pub(crate) async fn publish_to_all(&mut self) {
        let named =
            self.streams.iter().flat_map(|stream| &stream.matchers).filter_map(|matcher| match matcher {
                Match::Exact(topic) => Some(topic.clone()),
                _ => None,
            });
        let topics: BTreeSet<_> = TOPICS.iter().map(|topic| (*topic).to_owned()).chain(named).collect();
        let (private, public): (Vec<_>, Vec<_>) = topics.into_iter().partition(|topic| is_private(topic));
        for topics in [private, public] {
            let mark = self.next_mark();
            let event = Published {
                private: topics.iter().any(|topic| is_private(topic)),
                topics,
                data: format!("data mark{mark}mark"),
                id: String::new(),
                own_id: None,
                cursor: String::new(),
                event_type: None,
                except: None,
            };
            let mut asking = publication(1, std::slice::from_ref(&event));
            asking.header("authorization", format!("Bearer {KEY}"));
            assert!(self.answer(&asking).await.0);
            self.append(vec![event]).await;
        }
    }
}

/// A publication by the native API, the Mercure API, or as a batch.
fn publication(way: usize, events: &[Published]) -> Asking {
    let event = &events[0];
    let optional = [("id", &event.own_id), ("type", &event.event_type), ("except", &event.except)];
    let optional = optional.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    match way {
        0 => {
            let mut asking = Asking::new(Method::POST, path_of(&event.topics[0]));
            optional.for_each(|(name, value)| asking.parameter(name, value));
            if event.private {
                asking.parameter("private", "1");
            }
            asking.body.clone_from(&event.data);
            asking
        }
        1 => {
            let mut asking = Asking::new(Method::POST, HUB);
            event.topics.iter().for_each(|topic| asking.parameter("topic", &**topic));
            asking.parameter("data", &*event.data);
            optional.for_each(|(name, value)| asking.parameter(name, value));
            if event.private {
                asking.parameter("private", "on");
            }
            asking.into_form()
        }
        _ => {
            let mut asking = Asking::new(Method::POST, "/topics");
            for event in events {
                let mut line =
                    json!({ "topics": event.topics, "data": event.data, "private": event.private });
                for (name, value) in
                    [("id", &event.own_id), ("type", &event.event_type), ("except", &event.except)]
                {
                    if let Some(value) = value {
                        line[name] = json!(value);
                    }
                }
                asking.body += &line.to_string();
                asking.body.push('\n');
            }
            asking
        }
    }
}

/// The ids in a response to a publication.
fn ids_of(way: usize, body: &str) -> Vec<String> {
    if way == 1 {
        return vec![body.to_owned()];
    }
    let answer: Value = serde_json::from_str(body).expect("JSON");
    let id = |receipt: &Value| receipt["id"].as_str().expect("an id").to_owned();
    if way == 0 {
        vec![id(&answer)]
    } else {
        answer["events"].as_array().expect("a list").iter().map(id).collect()
    }
}
