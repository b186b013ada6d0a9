//! What a curious tenant learns by comparing: a foreign id or topic is answered with the same bytes,
//! and by the same work, as one that does not exist. And what revoking ends.

use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::time::{Duration, advance};

use crate::{
    counting_log::Work,
    people::{Kind, one_match},
    reading::Reading,
    requests::{Asking, headers_of},
    subscribing::{Way, asking},
    support::{ADMIN_KEY, within},
    topics::{Match, cover_any},
    world::{World, path_of},
};

impl World {
    pub(crate) async fn probe(&mut self) {
        let tenant = self.someone();
        if self.tenants[tenant].revoked {
            return;
        }
        if self.random.percent(60) {
            self.probe_id(tenant).await;
        } else {
            self.probe_topic(tenant).await;
        }
    }

    /// Resumes from the id of a private event of somebody else, and from one that nobody has used.
    async fn probe_id(&mut self, tenant: usize) {
        let who = self.tenants[tenant].clone();
        let sees = |id: &str| {
            let named = self.events.iter().filter(|event| event.own_id.as_deref() == Some(id));
            named.into_iter().any(|event| !event.private || cover_any(&who.subscribe, &event.topics))
        };
        let kept = self.kept().await;
        let ids = self.events.iter().enumerate().filter(|(number, _)| kept.contains(number));
        let ids: Vec<_> = ids.filter_map(|(_, event)| event.own_id.clone()).filter(|id| !sees(id)).collect();
        if ids.is_empty() {
            return;
        }
        let foreign = self.random.pick(&ids).clone();
        let unknown = "?".repeat(foreign.len());
        let way = *self.random.pick(&[Way::Stream, Way::Mercure]);
        let matchers = if who.kind == Kind::Ticket {
            Vec::new()
        } else if self.random.percent(30) {
            vec![Match::Any]
        } else {
            vec![one_match(&mut self.random)]
        };
        if !World::may_subscribe(&who, &matchers, way != Way::Mercure) {
            return;
        }
        let mut subscription = asking(way, &matchers);
        self.sign(&mut subscription, tenant);
        let mut answers = Vec::new();
        for id in [&unknown, &foreign] {
            let mut subscription = subscription.clone();
            subscription.header("last-event-id", &**id);
            let (text, work) = self.observe(&subscription).await;
            assert_eq!(work.calls.iter().filter(|call| **call == "resolve").count(), 1);
            answers.push((text.replace(&**id, "ID"), work));
        }
        assert_eq!(
            answers[0], answers[1],
            "LEAK: a foreign id differs from an unknown one: {subscription:?}"
        );
    }

    /// Reads and deletes a topic of somebody else, and one that does not exist.
    async fn probe_topic(&mut self, tenant: usize) {
        let who = self.tenants[tenant].clone();
        let is_foreign = |topic: &String| {
            let mut on_topic = self.events.iter().filter(|event| event.topics.contains(topic));
            on_topic.all(|event| event.private && !cover_any(&who.subscribe, &event.topics))
                && !who.publish.iter().chain(&who.subscribe).any(|grant| grant.matches(topic))
                && topic.starts_with("/rooms/mark")
        };
        let topics: Vec<_> =
            self.events.iter().flat_map(|event| event.topics.clone()).filter(is_foreign).collect();
        if topics.is_empty() {
            return;
        }
        let foreign = self.random.pick(&topics).clone();
        let unknown = format!("/rooms/{}", "x".repeat(foreign.len() - "/rooms/".len()));
        let method = self.random.pick(&[Method::GET, Method::DELETE]).clone();
        let mut answers = Vec::new();
        for topic in [&unknown, &foreign] {
            let mut asking = Asking::new(method.clone(), path_of(topic));
            asking.header("accept", "application/json");
            if who.kind != Kind::Anonymous {
                asking.header("authorization", format!("Bearer {}", who.credential));
            }
            let (text, work) = self.observe(&asking).await;
            assert!(method == Method::GET || work == Work::default(), "a refusal reads nothing: {work:?}");
            answers.push((text.replace(&**topic, "TOPIC"), work));
        }
        assert_eq!(answers[0], answers[1], "LEAK: a foreign topic differs from an unknown one: {who:?}");
    }

    /// Everything that a client sees of a request, without what is random, and the work that it
    /// caused. Pages that others have read a moment ago are forgotten before.
    async fn observe(&mut self, asking: &Asking) -> (String, Work) {
        advance(Duration::from_secs(2)).await;
        self.log.take_work();
        let response = self.send(asking).await;
        let (status, headers) = (response.status(), headers_of(&response));
        let is_stream = headers.contains("text/event-stream");
        let text = if is_stream {
            let mut stream = Reading::new(0, asking.clone(), Vec::new(), String::new(), response.into_body());
            stream.read_available().await;
            stream.text().to_owned()
        } else {
            let body = within(response.into_body().collect()).await.expect("a body").to_bytes();
            String::from_utf8_lossy(&body).into_owned()
        };
        let lines = text.split_inclusive('\n').filter(|line| !line.starts_with("retry: "));
        let text: String = lines.collect();
        (format!("{status}\n{headers}{text}"), self.log.take_work())
    }

    /// The operator revokes a label, an id or a connection, which ends its streams and no others; a
    /// tenant cannot.
    pub(crate) async fn revoke(&mut self) {
        let tenant = self.someone();
        let who = self.tenants[tenant].clone();
        let connection = self.streams.iter().position(|stream| stream.connection.is_some());
        let what = match (&who.label, &who.id, connection) {
            (_, _, Some(index)) if self.random.percent(40) => {
                json!({ "connection": self.streams[index].connection })
            }
            (Some(label), _, _) if self.random.percent(60) => json!({ "label": label }),
            (_, Some(id), _) => json!({ "id": id }),
            _ => return,
        };
        let mut asking = Asking::new(Method::POST, "/revoke");
        asking.body = what.to_string();
        if self.random.percent(25) {
            let thief = self.someone();
            if self.tenants[thief].kind != Kind::Anonymous {
                asking.header("authorization", format!("Bearer {}", self.tenants[thief].credential));
            }
            assert!(!self.answer(&asking).await.0, "a tenant revoked {what}");
            return;
        }
        asking.header("authorization", format!("Bearer {ADMIN_KEY}"));
        assert!(self.answer(&asking).await.0);
        let is_named = |name: &str, value: &Option<String>| value.is_some() && what[name] == json!(value);
        for tenant in &mut self.tenants {
            tenant.revoked |= is_named("label", &tenant.label) || is_named("id", &tenant.id);
        }
        let count = self.events.len();
        for index in (0..self.streams.len()).rev() {
            let stream = &mut self.streams[index];
            if self.tenants[stream.tenant].revoked || is_named("connection", &stream.connection) {
                stream.revoked_at = Some(count);
                self.close(index).await;
            }
        }
    }
}
