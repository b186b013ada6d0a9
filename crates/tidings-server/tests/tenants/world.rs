//! One hub with its tenants, and everything that a tenant may do. Each response is compared with the
//! model, and searched for marks: every event has one in each of its fields, so that a response that
//! contains the mark of an event that its reader may not know has leaked it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, LazyLock},
};

use axum::body::Body;
use http::{Method, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tidings::{Hub, HubSettings, MemoryLimits, Validator, log::Log};
use tidings_replay_to_live::Random;
use tidings_server::Settings;

use crate::{
    counting_log::CountingLog,
    people::{Kind, Tenant, tenants},
    reading::Reading,
    requests::{Asking, headers_of},
    support::{Api, PUBLIC_URL, within},
    topics::{Match, TOPICS, cover_all, cover_any, covers, is_private},
};

/// Streams that are open at the same time.
const STREAMS_MAX: usize = 6;

/// An event that was published.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) topics: Vec<String>,
    pub(crate) private: bool,
    pub(crate) data: String,
    /// As subscribers see it.
    pub(crate) id: String,
    /// The id that its publisher chose.
    pub(crate) own_id: Option<String>,
    /// Its position in the log.
    pub(crate) cursor: String,
    pub(crate) event_type: Option<String>,
    /// The connection that does not receive it.
    pub(crate) except: Option<String>,
}

impl Published {
    fn marks(&self) -> BTreeSet<usize> {
        marks(&format!("{:?} {} {} {:?}", self.topics, self.data, self.id, self.event_type))
    }
}

/// The numbers of all marks in a text.
fn marks(text: &str) -> BTreeSet<usize> {
    let number = |(at, word): (usize, &str)| text[at + word.len()..].split_once(word)?.0.parse().ok();
    text.match_indices("mark").filter_map(number).collect()
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) api: Api,
    pub(crate) log: Arc<CountingLog>,
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) events: Vec<Published>,
    pub(crate) streams: Vec<Reading>,
    /// Requests so far.
    pub(crate) requests: u64,
    mark: usize,
    /// The first event that each tenant published with an idempotency key.
    pub(crate) keys: HashMap<(usize, String), usize>,
}

/// The patterns are compiled once, in this thread: time is paused, and does not wait for others.
static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    let validator = Validator::new(PUBLIC_URL.parse().expect("a URL"));
    for pattern in crate::topics::PATTERNS {
        validator.pattern(pattern).expect("valid");
    }
    validator
});

impl World {
    pub(crate) async fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count_max = random.percent(40).then(|| random.between(5, 25) as u64);
        let log = Arc::new(CountingLog::new(MemoryLimits { count_max, ..MemoryLimits::default() }));
        let mut settings = HubSettings::default();
        settings.private_topics = vec!["staff-*".parse().expect("a glob")];
        settings.replay_page_bytes = *random.pick(&[1, 1_000, 128 * 1024]);
        settings.feed_bytes_max = *random.pick(&[0, 2_000, 1 << 20]);
        let hub = Hub::builder()
            .log(Arc::clone(&log) as Arc<dyn Log>)
            .validator(VALIDATOR.clone())
            .settings(settings);
        let hub = hub.start().await.expect("it starts");
        let (tenants, authenticator) = tenants(&mut random, &VALIDATOR);
        Self {
            api: Api::new(hub, Some(authenticator), Settings::default()),
            random,
            log,
            tenants,
            events: Vec::new(),
            streams: Vec::new(),
            requests: 0,
            mark: 0,
            keys: HashMap::new(),
        }
    }

    pub(crate) async fn step(&mut self) {
        match self.random.between(0, 100) {
            0..30 => self.publish().await,
            30..50 => self.subscribe().await,
            50..59 => self.summary().await,
            59..69 => self.delete().await,
            69..82 => self.read().await,
            82..92 => self.probe().await,
            92..95 => self.revoke().await,
            95..98 => self.make_ticket().await,
            _ => self.read_metrics().await,
        }
    }

    /// Everything that is open is read to its end and compared.
    pub(crate) async fn finish(mut self) -> u64 {
        self.publish_to_all().await;
        while !self.streams.is_empty() {
            self.close(0).await;
        }
        self.requests
    }

    /// The numbers of the events that the log still has.
    pub(crate) async fn kept(&self) -> BTreeSet<usize> {
        let entries = self.log.everything().await;
        let number = |cursor: &str| self.events.iter().position(|event| event.cursor == cursor);
        entries
            .iter()
            .map(|entry| number(entry.cursor.to_event_id().as_str()).expect("it was published"))
            .collect()
    }

    pub(crate) fn someone(&mut self) -> usize {
        self.random.between(0, self.tenants.len())
    }

    pub(crate) fn next_mark(&mut self) -> usize {
        self.mark += 1;
        self.mark
    }

    pub(crate) fn topic(&mut self) -> String {
        (*self.random.pick(&TOPICS)).to_owned()
    }

    pub(crate) fn sign(&mut self, asking: &mut Asking, tenant: usize) {
        let other = self.someone();
        let Self { random, tenants, .. } = self;
        tenants[tenant].sign(asking, random, &tenants[other]);
    }

    /// Sends a request.
    pub(crate) async fn send(&mut self, asking: &Asking) -> Response<Body> {
        self.requests += 1;
        asking.send(&self.api).await
    }

    /// Fails if a response contains the mark of an event that is not visible to its reader.
    pub(crate) fn search(
        &self,
        asking: &Asking,
        response: &str,
        is_visible: impl Fn(usize, &Published) -> bool,
    ) {
        let found = marks(response);
        if found.is_empty() {
            return;
        }
        let mut known = marks(&asking.text());
        for (number, event) in self.events.iter().enumerate() {
            if is_visible(number, event) {
                known.extend(event.marks());
            }
        }
        let leaked: Vec<_> = found.difference(&known).collect();
        assert!(leaked.is_empty(), "LEAK: {leaked:?} in the response to {asking:?}: {response}");
    }

    /// The complete response, which may not contain anything but what the client said. Returns
    /// whether the request was accepted.
    pub(crate) async fn answer(&mut self, asking: &Asking) -> (bool, String) {
        let response = self.send(asking).await;
        let (headers, status) = (headers_of(&response), response.status());
        let body = within(response.into_body().collect()).await.expect("a body").to_bytes();
        let body = String::from_utf8(body.into()).expect("UTF-8");
        assert!(status.is_success() || matches!(status.as_u16(), 401 | 403), "{status} {asking:?}: {body}");
        if !status.is_success() {
            self.search(asking, &format!("{headers}{body}"), |_, _| false);
        }
        (status.is_success(), body)
    }

    /// The state of a topic as JSON: exactly its visible events, and the count of its streams only
    /// for readers whose credential covers it.
    async fn summary(&mut self) {
        let tenant = self.someone();
        let matcher =
            if self.random.percent(10) { Match::Any } else { Match::Exact(self.some_known_topic()) };
        let topic = matcher.exact_or_pattern().expect("a topic").to_owned();
        let mut asking = Asking::new(Method::GET, path_of(&topic));
        asking.header("accept", "application/json");
        self.sign(&mut asking, tenant);
        let (accepted, body) = self.answer(&asking).await;
        let who = self.tenants[tenant].clone();
        let expected = Self::may_subscribe(&who, std::slice::from_ref(&matcher), true);
        assert_eq!(accepted, expected, "{asking:?} {who:?}: {body}");
        if !accepted {
            return;
        }
        let kept = self.kept().await;
        let is_visible = |number: usize, event: &Published| {
            kept.contains(&number)
                && matcher.matches_any(&event.topics)
                && (!event.private || cover_any(&who.subscribe, &event.topics))
        };
        self.search(&asking, &body, is_visible);
        let visible = self.events.iter().enumerate().filter(|(number, event)| is_visible(*number, event));
        let mut visible: Vec<_> = visible.map(|(_, event)| event).collect();
        visible.drain(..visible.len().saturating_sub(50));
        let summary: Value = serde_json::from_str(&body).expect("JSON");
        let events: Vec<_> =
            summary["events"].as_array().expect("a list").iter().map(|event| &event["data"]).collect();
        assert_eq!(events, visible.iter().map(|event| &*event.data).collect::<Vec<_>>());
        assert_eq!(summary["newest"], visible.last().map_or(Value::Null, |event| event.id.clone().into()));
        let counts = match &matcher {
            Match::Exact(topic) => covers(&who.subscribe, topic),
            _ => who.subscribe.contains(&Match::Any),
        };
        let open = |matcher: &Match| match &matcher {
            Match::Exact(topic) => self
                .streams
                .iter()
                .map(|stream| stream.matchers.iter().filter(|matcher| matcher.matches(topic)).count())
                .sum::<usize>(),
            _ => self.streams.len(),
        };
        let expected = if counts { json!(open(&matcher)) } else { Value::Null };
        assert_eq!(summary["subscribers"], expected, "{asking:?}: {body}");
    }

    /// A topic of all tenants, or one of an event.
    fn some_known_topic(&mut self) -> String {
        if self.events.is_empty() || self.random.percent(70) {
            return self.topic();
        }
        let number = self.random.between(0, self.events.len());
        let topics = self.events[number].topics.clone();
        self.random.pick(&topics).clone()
    }

    pub(crate) fn may_subscribe(who: &Tenant, matchers: &[Match], is_native: bool) -> bool {
        let may = |matcher: &Match| match matcher {
            Match::Exact(topic) if is_native && is_private(topic) => covers(&who.subscribe, topic),
            _ => true,
        };
        !who.revoked && matchers.iter().all(|matcher| who.holds(matcher) && may(matcher))
    }

    /// Deletes a topic. The counts are those of events on it, which its publishers may know.
    async fn delete(&mut self) {
        let tenant = self.someone();
        let topic = self.some_known_topic();
        let mut asking = Asking::new(Method::DELETE, path_of(&topic));
        let who = self.tenants[tenant].clone();
        if who.kind != Kind::Anonymous {
            asking.header("authorization", format!("Bearer {}", who.credential));
        }
        let before = self.kept().await;
        let (accepted, body) = self.answer(&asking).await;
        assert_eq!(accepted, who.writes() && covers(&who.publish, &topic), "{asking:?} {who:?}: {body}");
        let kept = self.kept().await;
        if !accepted {
            assert_eq!(kept, before);
            return;
        }
        self.search(&asking, &body, |_, _| false);
        let on_topic = |number: &&usize| self.events[**number].topics.contains(&topic);
        let (gone, left): (Vec<_>, Vec<_>) = before
            .iter()
            .filter(on_topic)
            .partition(|number| cover_all(&who.publish, &self.events[**number].topics));
        let remaining: BTreeSet<_> =
            before.iter().copied().filter(|number| !gone.contains(&number)).collect();
        assert_eq!(kept, remaining, "{asking:?}");
        if left.is_empty() {
            assert_eq!(body, "");
        } else {
            let counts: Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!(counts, json!({ "deleted": gone.len(), "kept": left.len() }));
        }
    }

    /// Reads what has arrived on a stream, and often closes it.
    async fn read(&mut self) {
        if self.streams.is_empty() {
            return;
        }
        let index = self.random.between(0, self.streams.len());
        if self.random.percent(30) {
            self.close(index).await;
        } else {
            self.streams[index].read_available().await;
        }
    }

    pub(crate) async fn keep_open(&mut self, stream: Reading) {
        while self.streams.len() >= STREAMS_MAX {
            let index = self.random.between(0, self.streams.len());
            self.close(index).await;
        }
        self.streams.push(stream);
    }

    /// Reads a stream until nothing is left, compares it with the model and closes it.
    pub(crate) async fn close(&mut self, index: usize) {
        let mut stream = self.streams.swap_remove(index);
        stream.read_available().await;
        let kept = self.kept().await;
        stream.check(&self.events, |number| kept.contains(&number));
        let text = format!("{}{}", stream.headers, stream.text());
        self.search(&stream.asking, &text, |number, event| stream.may_receive(number, event));
    }

    async fn make_ticket(&mut self) {
        let tenant = self.someone();
        let matchers: Vec<_> =
            (0..self.random.between(1, 3)).map(|_| crate::people::one_match(&mut self.random)).collect();
        let mut asking = Asking::new(Method::POST, "/tickets");
        for matcher in &matchers {
            match matcher.exact_or_pattern() {
                Ok(topic) => asking.parameter("topic", topic),
                Err(pattern) => asking.parameter("pattern", pattern),
            }
        }
        let mut asking = asking.into_form();
        let who = self.tenants[tenant].clone();
        if who.kind != Kind::Anonymous {
            asking.header("authorization", format!("Bearer {}", who.credential));
        }
        let (accepted, ticket) = self.answer(&asking).await;
        assert_eq!(
            accepted,
            matchers.iter().all(|matcher| who.may_grant(matcher)),
            "{asking:?} {who:?}: {ticket}"
        );
        if accepted && self.tenants.len() < 12 {
            let (publish, label, id) = (Vec::new(), None, None);
            let made = Tenant {
                kind: Kind::Ticket,
                credential: ticket,
                publish,
                subscribe: matchers,
                label,
                id,
                ..who
            };
            self.tenants.push(made);
        }
    }

    /// Metrics count the events and streams of all tenants.
    async fn read_metrics(&mut self) {
        let tenant = self.someone();
        let mut asking = Asking::new(Method::GET, "/metrics");
        self.sign(&mut asking, tenant);
        let (accepted, body) = self.answer(&asking).await;
        assert!(!accepted, "LEAK: {body}");
    }
}

pub(crate) fn path_of(topic: &str) -> String {
    format!("/topics/{}", percent_encoding::utf8_percent_encode(topic, percent_encoding::NON_ALPHANUMERIC))
}
